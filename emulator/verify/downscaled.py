"""Downscaled fields: whether means of coarse cells are kept, and whether quantiles and the cycle of the day are the truth's.

Unlike metrics these are of all times together, quantiles from a histogram in which bins are an eightieth of the distance from
the climatological mean wide, or less.
"""

import dataclasses
import json
from collections.abc import Iterator

import numpy as np
import xarray as xr

from emulator.planet.calendar import hour_and_leap_day, in_nanoseconds, valid_times
from emulator.planet.vertical import vertical_of
from emulator.sources.foreign import open_any_forecast
from emulator.sphere.cell_means import CellMeans
from emulator.store.analysis import ANALYSIS, open_analysis
from emulator.store.interval_forecasts import DOWNSCALING
from emulator.store.schema import entry, grid_of, open_zarr
from emulator.verify.channels import ScoredVariable, channel_name, headline_ranks

QUANTILES = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
PER_OCTAVE, NEAREST, OCTAVES = 64, 1e-3, 20  # bins; distance from the mean in standard deviations at which they begin
SHOWN = 3  # channels of which a case is kept to look at
RAIN = "mean_total_precipitation_rate"


def open_coarse(source) -> xr.Dataset:
    """The store, by path or as a dataset, that was downscaled: an analysis or forecasts. Raises `ValueError`."""
    if isinstance(source, xr.Dataset):
        return in_nanoseconds(source)
    is_analysis = open_zarr(source).attrs.get("emulator_schema") == ANALYSIS
    return in_nanoseconds(open_analysis(source)) if is_analysis else open_any_forecast(source)


def downscaling_scores(inputs, scores: xr.Dataset) -> xr.Dataset:
    """Scores of the downscaled stores among the forecasts of `Inputs`; empty without them or their coarse store.

    `coarse_departure` `(downscaled, coarse_variable)`: the largest departure of a mean of a coarse cell, for means over the
    interval, from the coarse store's value, in units of its largest value. `downscaled_quantile` `(downscaled,
    downscaled_channel, downscaled_quantile_level)`, the truth among `downscaled`, over cells by area, times and members.
    `diurnal_strength`, `diurnal_error` `(downscaled, downscaled_channel)`: root mean square of the mean cycle of the day, and
    of its departure from the truth's, relative to the truth's. `downscaled_case` and `downscaled_case_coarse`: the last
    step of one interval. Raises `ValueError` where the coarse store lacks what was made of it.
    """
    names = [name for name, dataset in inputs.forecasts.items() if DOWNSCALING in dataset.attrs]
    if inputs.coarse is None or not names:
        return xr.Dataset()
    coarse = _Coarse.of(inputs)
    kept = [variable for variable in inputs.variables if variable.name in inputs.coarse]
    departures = [[coarse.departure(variable, name, inputs) for variable in kept] for name in names]
    ends = {"downscaled": [*names, "truth"], "coarse_variable": [variable.name for variable in kept]}
    missing = [[np.nan] * len(kept)]
    data = {"coarse_departure": (("downscaled", "coarse_variable"), np.array(departures + missing))}
    found = xr.Dataset(data, ends)
    return found.merge(_distributions(inputs, scores, names)).merge(_case(inputs, coarse, names))


@dataclasses.dataclass(frozen=True, eq=False)
class _Coarse:
    """The coarse store beside the fine grid."""

    dataset: xr.Dataset
    means: CellMeans

    @classmethod
    def of(cls, inputs) -> "_Coarse":
        return cls(inputs.coarse, CellMeans.of(inputs.grid, grid_of(inputs.coarse)))

    def at(self, variable: ScoredVariable, init, ends: np.ndarray) -> np.ndarray | None:
        """Fields at the ends of intervals, `(interval, member, level, *coarse)`; None where the store has not all of them."""
        field = self.dataset[variable.name]
        if "lead_time" in field.dims:
            where = field.indexes["init_time"].get_indexer([init])
            field, axis, wanted = field.isel(init_time=int(where[0])), "lead_time", ends
            missing = where[0] < 0
        else:
            axis, wanted, missing = "time", valid_times(np.array([init]), ends)[0], False
        places = field.indexes[axis].get_indexer(wanted)
        if missing or (places < 0).any():
            return None
        field = field.isel({axis: places})
        vertical = vertical_of(field.dims)
        if vertical is not None:
            field = field.isel({vertical: [int(np.abs(field[vertical].values - v).argmin()) for v in variable.levels]})
        front = [d for d in (axis, "member", vertical) if d in field.dims]
        space = grid_of(self.dataset).dims
        values = field.load().transpose(*front, *space).values.astype(np.float64)
        return values.reshape(len(ends), field.sizes.get("member", 1), -1, *values.shape[-2:])

    def departure(self, variable: ScoredVariable, name: str, inputs) -> float:
        """The largest departure of the means of coarse cells from a field, relative to its largest value."""
        dataset, field = inputs.forecasts[name], variable.forecasts[name]
        leads, hours = dataset["lead_time"].values, json.loads(dataset.attrs[DOWNSCALING])["coarse_step_hours"]
        apart = leads / np.timedelta64(1, "h") / hours
        whole = np.abs(apart - np.round(apart)) < 1e-6
        steps = int(np.flatnonzero(whole)[0]) + 1 if whole.any() and not np.isclose(apart[0], 0) else 1
        instant, worst, largest = entry(self.dataset, variable.name).cell == "point", 0.0, 0.0
        for init in inputs.alignment.init_time:
            asked = self.at(variable, init, leads[steps - 1 :: steps])
            if asked is None:
                continue
            fine = field.forecast(init, leads)  # (member, lead, level, cell)
            fine = fine.reshape(len(fine), -1, steps, *fine.shape[2:-1], *inputs.grid.shape)
            own = self.means(fine[:, :, -1] if instant else fine.mean(2)).swapaxes(0, 1)
            asked = np.repeat(self.means.part(asked), own.shape[1] // asked.shape[1], axis=1)
            worst = max(worst, float(np.abs(own - asked).max()))
            largest = max(largest, float(np.abs(asked).max()))
        return worst / largest if largest else np.nan


def _sources(inputs, variable: ScoredVariable, level: int, names) -> Iterator[tuple[int, np.ndarray, dict]]:
    """Of every initial time with a truth: number, hours of the day `(lead,)`, and fields `(member, lead, cell)` by name."""
    alignment, one = inputs.alignment, variable.at_levels([level])
    for number, init in enumerate(alignment.init_time):
        at = np.flatnonzero(alignment.truth_valid[number] >= 0)
        if len(at):
            leads = alignment.lead_time[at]
            fields = {name: one.forecasts[name].forecast(init, leads)[:, :, 0] for name in names}
            fields["truth"] = one.truth.analysis(alignment.truth_valid[number, at])[None, :, 0]
            yield number, hour_and_leap_day(valid_times(np.array([init]), leads)[0])[0], fields


def _distributions(inputs, scores: xr.Dataset, names: list[str]) -> xr.Dataset:
    """Quantiles and cycles of the day at the channels of maps."""
    area, whole = inputs.grid.area.ravel(), [*names, "truth"]
    quantiles, strengths, errors, channels = [], [], [], []
    for variable in inputs.variables:
        for level in sorted(headline_ranks(variable)):
            channels.append(channel_name(variable, level))
            at = list(scores["channel"].values).index(channels[-1])
            mean, std = (float(scores[f"climatology_{kind}"].values[at]) for kind in ("mean", "std"))
            histograms = {name: _Histogram(mean, std or 1.0) for name in whole}
            days = {name: _Days() for name in whole}
            for _, hours, fields in _sources(inputs, variable, level, names):
                for name, field in fields.items():
                    histograms[name].add(field, area)
                    days[name].add(hours, field.mean(0))
            quantiles.append([histograms[name].quantiles(QUANTILES) for name in whole])
            cycles = {name: known.cycle() for name, known in days.items()}
            own = _size(cycles["truth"], area)
            strengths.append([_size(cycles[name], area) / own if own else np.nan for name in whole])
            errors.append([_size(cycles[name] - cycles["truth"], area) / own if own else np.nan for name in whole])
    dims = ("downscaled", "downscaled_channel")
    data = {
        "downscaled_quantile": ((*dims[::-1], "downscaled_quantile_level"), np.array(quantiles)),
        "diurnal_strength": (dims[::-1], np.array(strengths)),
        "diurnal_error": (dims[::-1], np.array(errors)),
    }
    ends = {"downscaled": whole, "downscaled_channel": channels, "downscaled_quantile_level": list(QUANTILES)}
    return xr.Dataset(data, ends) if channels else xr.Dataset()


class _Histogram:
    """Values by their distance from a mean, in bins that widen with it."""

    def __init__(self, mean: float, std: float):
        self.mean, self.std, self.half = mean, std, PER_OCTAVE * OCTAVES
        self.weight = np.zeros(2 * self.half + 1)

    def add(self, field: np.ndarray, area: np.ndarray) -> None:
        """Fields `(..., cell)`."""
        away = (field - self.mean) / self.std
        octave = np.log2(1 + np.abs(away) / NEAREST) * PER_OCTAVE
        place = np.sign(away) * np.minimum(np.round(octave), self.half) + self.half
        known = np.isfinite(place)
        weights = np.broadcast_to(area, field.shape)[known]
        self.weight += np.bincount(place[known].astype(np.int64), weights, len(self.weight))

    def quantiles(self, levels) -> np.ndarray:
        """Linear within a bin."""
        place = np.arange(-self.half, self.half + 1)
        edges = place[1:] - 0.5
        away = np.sign(edges) * NEAREST * (2 ** (np.abs(edges) / PER_OCTAVE) - 1)
        share = np.cumsum(self.weight)[:-1] / self.weight.sum()
        return self.mean + self.std * np.interp(levels, share, away)


class _Days:
    """Mean fields by hour of the day."""

    def __init__(self):
        self.sums, self.counts = {}, {}

    def add(self, hours: np.ndarray, fields: np.ndarray) -> None:
        """Fields `(lead, cell)`."""
        for hour, field in zip(hours, fields, strict=True):
            self.sums[hour] = self.sums.get(hour, 0) + field
            self.counts[hour] = self.counts.get(hour, 0) + 1

    def cycle(self) -> np.ndarray:
        """Departures from the mean over the hours, `(hour, cell)`."""
        means = np.stack([self.sums[hour] / self.counts[hour] for hour in sorted(self.sums)])
        return means - means.mean(0)


def _size(cycle: np.ndarray, area: np.ndarray) -> float:
    return float(np.sqrt((cycle**2 @ area).mean()))


def _case(inputs, coarse: _Coarse, names: list[str]) -> xr.Dataset:
    """Coarse fields, those made of them (the first member) and the truth, at the end of the middle interval."""
    alignment, shown = inputs.alignment, []
    ranked = [(v, level) for v in inputs.variables for level in sorted(headline_ranks(v)) if v.name in coarse.dataset]
    for variable, level in sorted(ranked, key=lambda pair: (pair[0].name != RAIN, headline_ranks(pair[0])[pair[1]])):
        if variable.name not in [pair[0].name for pair in shown] and len(shown) < SHOWN:
            shown.append((variable, level))
    known = np.flatnonzero(alignment.truth_valid[:, -1] >= 0)
    if not shown or not len(known):
        return xr.Dataset()
    number, lead = int(known[len(known) // 2]), alignment.lead_time[-1:]
    init, given, made = alignment.init_time[number], [], []
    for variable, level in shown:
        field = coarse.at(variable.at_levels([level]), init, lead)
        if field is None:
            return xr.Dataset()
        given.append(field[0, 0, 0])
        one = variable.at_levels([level])
        own = [one.forecasts[name].forecast(init, lead)[0, 0, 0] for name in names]
        made.append([*own, one.truth.analysis(alignment.truth_valid[number, -1:])[0, 0]])
    channels = [channel_name(variable, level) for variable, level in shown]
    grid = grid_of(coarse.dataset)
    shape = (len(shown), len(names) + 1, *inputs.grid.shape)
    data = {
        "downscaled_case": (
            ("case_channel", "downscaled", *inputs.grid.dims),
            np.array(made, np.float32).reshape(shape),
        ),
        "downscaled_case_coarse": (("case_channel", "coarse_row", "coarse_column"), np.array(given, np.float32)),
        "downscaled_case_time": ((), valid_times(np.array([init]), lead)[0, 0]),
    }
    places = {"coarse_row": grid.latitude, "coarse_column": grid.longitude, "case_channel": channels}
    return xr.Dataset(data, {"downscaled": [*names, "truth"], **places})
