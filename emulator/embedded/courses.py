"""Courses in time of what drives an embedded model: concentrations, and sea temperatures from a file on its grid."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from emulator.embedded.options import CO2_LIMITS, Growth
from emulator.ingestion.series import at_times
from emulator.planet.grid import Grid
from emulator.sources.harmonise import pieces
from emulator.sources.open import Request, open_source
from emulator.sources.options import SourceOptions
from emulator.sources.piece import Piece
from emulator.sources.series import joined, series

CO2, SST = "carbon_dioxide_mole_fraction", "sea_surface_temperature"
PPMV = 1e-6
SST_LIMITS = 220.0, 320.0  # K, what SPEEDY takes; a file in degrees Celsius that does not say so lies below
DAYS_A_YEAR = 365.25
LEAST_SEA = 0.5  # of the model's sea that a file must have values for

Concentration = Callable[[np.ndarray], np.ndarray]


def concentration(co2: float | Growth | Path, start: np.datetime64) -> Concentration:
    """From times `(n,)`, datetime64, to ppmv `(n,)`, float64. Raises `ValueError` naming a file that has no such series.

    The function raises `ValueError` for times that a file does not reach, and for values outside `CO2_LIMITS`.
    """
    if isinstance(co2, Path):
        course = joined(_series(co2))

        def values(times):
            return at_times(course, times.astype("datetime64[ns]")) / PPMV
    elif isinstance(co2, Growth):

        def values(times):
            return co2.start * (1 + co2.yearly_rate) ** ((times - start) / np.timedelta64(1, "D") / DAYS_A_YEAR)
    else:

        def values(times):
            return np.full(len(times), float(co2))

    def checked(times):
        found, (low, high) = values(times), CO2_LIMITS
        if (outside := ~((found >= low) & (found <= high))).any():
            at = int(np.argmax(outside))
            where = f" ({co2})" if isinstance(co2, Path) else ""
            raise ValueError(
                f"Expected co2 between {low:g} and {high:g} ppmv, got {found[at]:.6g} at {_day(times[at])}{where}"
            )
        return found

    return checked


def _series(path: Path) -> list:
    options = SourceOptions(str(path), wanted=(CO2,), interpolate="linear")
    found = [part for source in open_source(str(path)) for part in series(source, options)]
    if not found:
        raise ValueError(f"Expected a series of {CO2} (co2), a value for each time, in {path}, got none")
    return found


class SeaTemperatures:
    """Sea temperatures of a file, linear in time between its own (of means with bounds between the middles).

    Raises `ValueError` naming the file that has none, or several, and for times of other calendars than the standard one.
    """

    def __init__(self, path: Path):
        self.path = path
        options = SourceOptions(str(path), wanted=(SST,))
        sources = open_source(str(path), request=Request(names=(SST,)))
        found = [piece for source in sources for piece in pieces(source, options)]
        if len(found) != 1 or "time" not in found[0].dims or len(found[0].coordinates.get("member", [0])) > 1:
            names = ", ".join(str(name) for source in sources for name in source.dataset.data_vars)
            raise ValueError(
                f"Expected {SST} (sst, tos) once, with times, latitudes and longitudes, in {path}, got {names}"
            )
        self.piece: Piece = found[0]
        ends, starts = self.piece.coordinates["time"], self.piece.starts
        if ends.dtype == object:
            raise ValueError(f"Expected {SST} in the standard calendar in {path}, got {ends[0].calendar}")
        times = (ends if starts is None else starts + (ends - starts) / 2).astype("datetime64[ns]")
        self._order = np.argsort(times, kind="stable")
        self.times = times[self._order]
        self._fields: dict[int, np.ndarray] = {}

    def check(self, first: np.datetime64, last: np.datetime64) -> None:
        """Raises `ValueError` when the file does not reach from the first to the last time."""
        if first < self.times[0] or last > self.times[-1]:
            raise ValueError(
                f"Expected {SST} from {_day(first)} to {_day(last)} in {self.path}, got {_day(self.times[0])} to "
                f"{_day(self.times[-1])}"
            )

    def on(self, grid: Grid, sea: np.ndarray) -> "SeaTemperatures":
        """The same on a grid, `sea` `(latitude, longitude)` being the share of water in each of its cells.

        Raises `ValueError` for files on points, those that do not cover the grid or less than half of its sea.
        """
        self.piece, self._fields = self.piece.on(grid, "conservative"), {}
        self._grid, self._sea = grid, sea
        self._field(0)
        return self

    def at(self, moment: np.datetime64) -> np.ndarray:
        """K, `(latitude, longitude)`, float64: every cell has a value, those without one of their own the nearest's."""
        self.check(moment, moment)
        before = min(int(np.searchsorted(self.times, moment, side="right")) - 1, len(self.times) - 1)
        after = min(before + 1, len(self.times) - 1)
        if after == before or moment == self.times[before]:
            return self._field(before)
        share = (moment - self.times[before]) / (self.times[after] - self.times[before])
        return (1 - share) * self._field(before) + share * self._field(after)

    def _field(self, number: int) -> np.ndarray:
        if number not in self._fields:
            values = self.piece.read(self._order[[number]]).reshape(self._grid.shape).astype(np.float64)
            kept = {n: field for n, field in self._fields.items() if abs(n - number) <= 1}
            self._fields = kept | {number: self._filled(values, number)}
        return self._fields[number]

    def _filled(self, values: np.ndarray, number: int) -> np.ndarray:
        good, weight = np.isfinite(values), self._sea * self._grid.cell_area
        share = float((weight * good).sum() / weight.sum())
        moment = _day(self.times[number])
        if share < LEAST_SEA:
            raise ValueError(
                f"Expected {SST} for half of the model's sea or more in {self.path}, got {share:.0%} at {moment}"
            )
        low, high = values[good].min(), values[good].max()
        if low < SST_LIMITS[0] or high > SST_LIMITS[1]:
            raise ValueError(
                f"Expected {SST} between {SST_LIMITS[0]:g} and {SST_LIMITS[1]:g} K in {self.path}, got {low:.6g} to "
                f"{high:.6g} at {moment}; are its units others?"
            )
        if good.all():
            return values
        lat, lon = np.radians(self._grid.latitude)[:, None], np.radians(self._grid.longitude)
        places = np.stack(np.broadcast_arrays(np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)), -1)
        nearest = (places[~good] @ places[good].T).argmax(axis=1)
        values = values.copy()
        values[~good] = values[good][nearest]
        return values


def _day(moment: np.datetime64) -> str:
    return str(np.datetime64(moment, "h"))
