"""The climate of a long run against the truth's: means, variability, annual cycle, drift, tails and blocking.

Everything is reduced from one pass over each record, in float64; a run's days are compared with the truth's mean over the
same seasons, never with the same dates.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from emulator.planet.grid import Grid

BLOCK_BYTES = 2**24  # of one field in a block; a dozen copies of it are alive at a time
SEASONS = ("DJF", "MAM", "JJA", "SON")
TAILS = (0.001, 0.01, 0.05, 0.5, 0.95, 0.99, 0.999)
BINS = 400  # of the histogram that quantiles come from, over the range of the truth widened by half
MONTHS = 12
MIDDLES = np.array(
    [15.5, 45.5, 75.5, 106, 136.5, 167, 197.5, 228.5, 259, 289.5, 320, 350.5]
)  # of months, of a leap year
TWO_YEARS = 730 - 1.0  # days between the first and the last of daily samples


@dataclasses.dataclass(frozen=True, eq=False)
class Climate:
    """Sums over one record of one field.

    Attributes:
      count: samples of each month `(12,)`.
      total, square: sums by month `(12, cell)`, less `centre` `(cell,)`, so that variances keep their digits.
      histogram: area share by bin `(bins + 2,)`, the first and last outside `edges` `(bins + 1,)`.
      series: area mean at every time `(time,)`.
    """

    count: np.ndarray
    total: np.ndarray
    square: np.ndarray
    centre: np.ndarray
    histogram: np.ndarray
    edges: np.ndarray
    series: np.ndarray

    @property
    def monthly(self) -> np.ndarray:
        """Mean of every month, `(12, cell)`; NaN for months without samples."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.centre + self.total / np.where(self.count > 0, self.count, np.nan)[:, None]

    def mean(self, months: np.ndarray | None = None) -> np.ndarray:
        """Mean over months of equal weight, `(cell,)`: all that have samples, or `months` (0 ... 11)."""
        chosen = np.flatnonzero(self.count > 0) if months is None else months
        return self.monthly[chosen].mean(axis=0)

    def variance(self, months: np.ndarray) -> np.ndarray:
        """Variance about the monthly means, averaged over months, `(cell,)`."""
        number = self.count[months, None]
        return (self.square[months] / number - (self.total[months] / number) ** 2).mean(axis=0).clip(0)

    def quantile(self, probabilities) -> np.ndarray:
        """Quantiles of all cells and times by area, from the histogram."""
        share = np.cumsum(self.histogram) / self.histogram.sum()
        width = self.edges[1] - self.edges[0]
        points = np.concatenate([self.edges, [self.edges[-1] + width]])
        keep = np.concatenate([[True], np.diff(share) > 0])
        return np.interp(probabilities, share[keep], points[keep])


def climate_of(
    read: Callable[[slice], np.ndarray], month: np.ndarray, area: np.ndarray, limits: tuple[float, float]
) -> Climate:
    """Reduces a record: `read` gives fields `(time, cell)`, `month` `(time,)` 0 ... 11, `area` `(cell,)`.

    `limits`: of the histogram. Raises `ValueError` for fields that are not finite, naming the time.
    """
    cells, times = len(area), len(month)
    block = max(1, BLOCK_BYTES // (8 * cells))
    centre = np.asarray(read(slice(0, 1)), np.float64)[0]
    count, total, square = np.zeros(MONTHS), np.zeros((MONTHS, cells)), np.zeros((MONTHS, cells))
    edges = np.linspace(*limits, BINS + 1)
    histogram, series = np.zeros(BINS + 2), np.empty(times)
    for start in range(0, times, block):
        part = slice(start, min(start + block, times))
        values = np.asarray(read(part), np.float64)
        if not np.isfinite(values).all():
            bad = start + int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise ValueError(f"Expected finite fields in a long run, got others at time {bad} of {times}")
        series[part] = values @ area
        place = np.clip(np.floor((values - edges[0]) / (edges[1] - edges[0])), -1, BINS).astype(np.int64) + 1
        weights = np.broadcast_to(area, place.shape)
        histogram += np.bincount(place.ravel(), weights.ravel(), BINS + 2)
        anomaly = values - centre
        for index, number in enumerate(month[part]):
            count[number] += 1
            total[number] += anomaly[index]
            square[number] += anomaly[index] ** 2
    return Climate(count, total, square, centre, histogram, edges, series)


def climate_scores(
    run: Climate,
    truth: Climate,
    grid: Grid,
    days: np.ndarray,
    date: np.ndarray | None = None,
    exists: np.ndarray | None = None,
) -> dict[str, tuple]:
    """Scores of one field as `name -> (dims, values)`; `days` `(time,)` are those of the run, `date` their days of the year.

    Means and variances are over the months that both records have. Maps are `(*space)`, zonal means `(latitude,)`. `exists`:
    which cells of the grid the records are of, `(*space)` in any shape; None: all. Maps are NaN elsewhere.
    """
    months = np.flatnonzero((run.count > 0) & (truth.count > 0))
    area = cells_of(grid.area, exists)
    if not len(months):
        raise ValueError("Expected a long run and a truth that share a month of the year, got none")
    bias = run.mean(months) - truth.mean(months)
    variances = run.variance(months), truth.variance(months)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(variances[1] > 0, np.sqrt(variances[0] / variances[1]), np.nan)
    seasonal = [_season_bias(run, truth, season, months) for season in range(4)]
    monthly = np.full(MONTHS, np.nan)
    monthly[months] = (run.monthly[months] - truth.monthly[months]) ** 2 @ area
    cycle = [np.full(MONTHS, np.nan), np.full(MONTHS, np.nan)]
    for row, record in enumerate((run, truth)):
        cycle[row][months] = record.monthly[months] @ area
    slope, error = trend(days, deseasonalised(run.series, days, date, truth.monthly @ area))
    result = {
        "bias_map": (grid.dims, _on_grid(bias, grid, exists)),
        "bias_rmse": ((), np.sqrt(bias**2 @ area)),
        "bias_mean": ((), bias @ area),
        "month_bias_squared": (("month",), monthly),
        "season_bias_rmse": (("season",), np.array([np.sqrt(b**2 @ area) for b in seasonal])),
        "deviation_ratio_map": (grid.dims, _on_grid(ratio, grid, exists)),
        "deviation_ratio": ((), np.sqrt((variances[0] @ area) / (variances[1] @ area))),
        "annual_cycle": (("record", "month"), np.stack(cycle)),
        "trend_per_year": ((), slope * 365.25),
        "trend_error_per_year": ((), error * 365.25),
        "quantile": (("record", "probability"), np.stack([run.quantile(TAILS), truth.quantile(TAILS)])),
    }
    if grid.has_rows:
        means = [_zonal(_on_grid(record.mean(months), grid, exists), exists) for record in (run, truth)]
        result["zonal_mean"] = (("record", "latitude"), np.stack(means))
    return result


def cells_of(area: np.ndarray, exists: np.ndarray | None) -> np.ndarray:
    """Areas of the cells that a record is of, `(cell,)`, summing to 1; `exists` None: of all."""
    if exists is None:
        return area.ravel()
    chosen = area.ravel()[exists.ravel()]
    return chosen / chosen.sum()


def _on_grid(values: np.ndarray, grid: Grid, exists: np.ndarray | None) -> np.ndarray:
    """Values by cell of a record on the grid, NaN where the record has no cell."""
    if exists is None:
        return values.reshape(grid.shape)
    field = np.full(grid.shape, np.nan)
    field[exists.reshape(grid.shape)] = values
    return field


def _zonal(field: np.ndarray, exists: np.ndarray | None) -> np.ndarray:
    """Mean of every row over the cells that exist; NaN for a row without any."""
    if exists is None:
        return field.mean(axis=1)
    here = exists.reshape(field.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(here, field, 0.0).sum(axis=1) / here.sum(axis=1)


def _season_bias(run, truth, season, months) -> np.ndarray:
    own = [m for m in ((3 * season + k - 1) % 12 for k in range(3)) if m in months]
    missing = np.full_like(run.centre, np.nan)
    return run.mean(np.array(own)) - truth.mean(np.array(own)) if own else missing


def deseasonalised(series: np.ndarray, days: np.ndarray, date=None, cycle=None) -> np.ndarray:
    """A series less its annual cycle.

    From two years on two harmonics are fitted together with a line, of which the line is left in. Before, the cycle cannot
    be told from a trend: that of the truth is taken, `cycle` `(12,)` by month, linear between the middles of months at the
    days of the year `date` (1 ... 366). NaN where the truth lacks a month; without `date` the series is returned as it is.
    """
    if days[-1] - days[0] < TWO_YEARS:
        if date is None:
            return series
        return series - np.interp(date, MIDDLES, cycle, period=366)
    phase = 2 * np.pi * days / 365.25
    waves = np.stack([f(k * phase) for k in (1, 2) for f in (np.cos, np.sin)], axis=1)
    design = np.concatenate([np.ones((len(days), 1)), (days - days.mean())[:, None], waves], axis=1)
    fitted, *_ = np.linalg.lstsq(design, series, rcond=None)
    return series - waves @ fitted[2:]


def trend(days: np.ndarray, series: np.ndarray) -> tuple[float, float]:
    """Slope per day by least squares, and its standard error by the residuals' autocorrelation (Santer et al. 2000)."""
    if len(series) < 3 or not np.isfinite(series).all():
        return float("nan"), float("nan")
    x = days - days.mean()
    slope = float(x @ (series - series.mean()) / (x @ x))
    rest = series - series.mean() - slope * x
    size = float(rest @ rest)
    correlation = float(rest[1:] @ rest[:-1] / size) if size > 0 else 0.0
    effective = len(series) * (1 - correlation) / (1 + correlation) if abs(correlation) < 1 else 2.0
    return slope, float(np.sqrt(size / max(effective - 2, 1.0) / (x @ x)))


def month_of(time) -> np.ndarray:
    """Month 0 ... 11 of datetime64 or cftime values."""
    return np.asarray(xr.DataArray(np.asarray(time), dims="time").dt.month.values) - 1


# --- blocking -------------------------------------------------------------------------------------------------------

NORTH, MIDDLE, SOUTH, SHIFTS = 80.0, 60.0, 40.0, (-4.0, 0.0, 4.0)
GRADIENT = -10.0  # metres per degree, north of the ridge


def blocked(height: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Whether each longitude is blocked, from 500 hPa height in metres `(..., latitude, longitude)` -> `(..., longitude)`.

    Tibaldi and Molteni (1990, Tellus 42A, 343): for a shift of -4, 0 or 4 degrees of 60 N, height rises from 40 N to it and
    falls by more than 10 m per degree from it to 80 N. Heights between rows are linear. `latitude` in any order.
    """
    order = np.argsort(latitude)
    rows, field = np.asarray(latitude)[order], np.asarray(height, np.float64)[..., order, :]

    def at(phi):
        phi = min(phi, rows[-1])
        upper = int(np.clip(np.searchsorted(rows, phi), 1, len(rows) - 1))
        share = (phi - rows[upper - 1]) / (rows[upper] - rows[upper - 1])
        return (1 - share) * field[..., upper - 1, :] + share * field[..., upper, :]

    result = np.zeros((*field.shape[:-2], field.shape[-1]), bool)
    for shift in SHIFTS:
        north, middle, south = at(NORTH + shift), at(MIDDLE + shift), at(SOUTH + shift)
        result |= ((middle - south) / (MIDDLE - SOUTH) > 0) & ((north - middle) / (NORTH - MIDDLE) < GRADIENT)
    return result


def blocking_frequency(
    read: Callable[[slice], np.ndarray], times: int, grid: Grid, gravity: float, levels: int = 1
) -> np.ndarray:
    """Share of times at which each longitude is blocked, `(longitude,)`; `read` gives 500 hPa geopotential `(time, cell)`.

    `levels`: that `read` works on at a time, for blocks of bounded memory.
    """
    total = np.zeros(len(grid.longitude))
    block = max(1, BLOCK_BYTES // (8 * grid.area.size * levels))
    for start in range(0, times, block):
        part = slice(start, min(start + block, times))
        height = np.asarray(read(part), np.float64).reshape(-1, *grid.shape) / gravity
        total += blocked(height, grid.latitude).sum(axis=0)
    return total / times


def geopotential_at(
    fields: Mapping[str, np.ndarray], levels, pressure: float, dry_gas: float, vapour_gas: float
) -> np.ndarray:
    """Geopotential of a pressure surface from temperature, by the hydrostatic equation: `(time, cell)`.

    `fields`: `temperature` `(time, level, cell)`, `surface_pressure` `(time, cell)`, `geopotential_at_surface` `(cell,)`, and
    `specific_humidity` as temperature where it counts; `levels`: `Levels`; `pressure` in Pa. Layers are
    taken as isothermal, from the ground up; below the ground the lowest layer is carried on.
    """
    surface = np.asarray(fields["surface_pressure"], np.float64)
    warm = np.moveaxis(np.asarray(fields["temperature"], np.float64), 1, 0)
    if "specific_humidity" in fields:
        humidity = np.moveaxis(np.asarray(fields["specific_humidity"], np.float64), 1, 0)
        warm = warm * (1 + (vapour_gas / dry_gas - 1) * humidity)
    half = [np.maximum(h, 1.0) for h in levels.interfaces(surface)]
    height = np.broadcast_to(fields["geopotential_at_surface"], surface.shape).astype(np.float64)
    result = height + dry_gas * warm[-1] * np.log(half[-1] / pressure)  # where the surface lies below the ground
    for layer in range(len(warm) - 1, -1, -1):
        upper, lower = half[layer], half[layer + 1]
        inside = (pressure <= lower) & (pressure > upper)
        result = np.where(inside, height + dry_gas * warm[layer] * np.log(lower / pressure), result)
        height = height + dry_gas * warm[layer] * np.log(lower / upper)
    return result
