"""BUFR messages by ecCodes: surface reports (SYNOP, SHIP, METAR) and soundings (TEMP, PILOT) as observations.

A report with one pressure or none is of the surface; one with several is a sounding, whose values lie at those pressures.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from emulator.assimilation.observations import Observations

# ERA5's name by ecCodes' keys: near the ground, and in soundings. Winds come from speed and direction.
SURFACE = {
    "2m_temperature": ("airTemperatureAt2M", "airTemperature"),
    "2m_dewpoint_temperature": ("dewpointTemperatureAt2M", "dewpointTemperature"),
    "surface_pressure": ("nonCoordinatePressure", "pressure"),
    "mean_sea_level_pressure": ("pressureReducedToMeanSeaLevel",),
}
ALOFT = {"temperature": ("airTemperature",), "geopotential": ("nonCoordinateGeopotential",)}
WINDS = {
    "10m_u_component_of_wind": ("windSpeedAt10M", "windSpeed"),
    "10m_v_component_of_wind": ("windSpeedAt10M", "windSpeed"),
}
WINDS_ALOFT = ("u_component_of_wind", "v_component_of_wind")
GROUND = ("heightOfStationGroundAboveMeanSeaLevel", "heightOfStation")
MISSING_DOUBLE, MISSING_LONG = -1e100, 2147483647  # ecCodes' marks


def read_bufr(path: Path, variables: Sequence[str], vertical: str = "pressure") -> Observations:
    """Values of some variables of all messages of a file; `error` is NaN and `system` empty.

    Args:
      vertical: "pressure", levels of soundings in hPa, or "sigma", as shares of the sounding's highest pressure.
    Raises `ValueError` in one sentence for a file that is none of BUFR, and without ecCodes.
    """
    eccodes = _eccodes(path)
    if not path.is_file():
        raise ValueError(f"Expected observations at {path}, got nothing there")
    rows: list[dict] = []
    with open(path, "rb") as stream:
        while (message := _next(eccodes, stream, path)) is not None:
            try:
                eccodes.codes_set(message, "unpack", 1)
                count = eccodes.codes_get(message, "numberOfSubsets")
                for subset in range(count):
                    report = _Report(eccodes, message, subset, count)
                    rows += [report.place | row for row in _values(report, set(variables), vertical)]
            except eccodes.CodesInternalError as error:
                raise ValueError(f"Expected BUFR that ecCodes decodes at {path}, got: {error}") from None
            finally:
                eccodes.codes_release(message)
    if not rows:
        return Observations.concat([])
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return Observations(operator=np.full(len(rows), "point"), error=np.full(len(rows), np.nan), **columns)


class _Report:
    """Keys of one subset, counted from 0, of a message."""

    def __init__(self, eccodes, message, subset: int, count: int):
        self._eccodes, self._message, self._subset, self._count = eccodes, message, subset, count
        self._compressed = count > 1 and bool(eccodes.codes_get(message, "compressedData"))
        date = [self.first(key) for key in ("year", "month", "day", "hour", "minute")]
        date[4] = date[4] if np.isfinite(date[4]) else 0.0
        known = np.isfinite(date).all()
        time = "{:04.0f}-{:02.0f}-{:02.0f}T{:02.0f}:{:02.0f}".format(*date) if known else "NaT"
        self.place = {
            "time": np.datetime64(time, "ns"),
            "latitude": self.first("latitude"),
            "longitude": self.first("longitude"),
            "elevation": self.first(*GROUND),
            "station": self._station(),
        }

    def all(self, *keys: str) -> np.ndarray:
        """Values of the first of some keys that the report has any of, NaN where one is missing; none without such a key."""
        found = np.zeros(0)
        for key in keys:
            values = np.asarray(self._entries(key), np.float64)
            values = np.where((values == MISSING_DOUBLE) | (values == MISSING_LONG), np.nan, values)
            if np.isfinite(values).any():
                return values
            found = found if len(found) else values
        return found

    def first(self, *keys: str) -> float:
        """The first value of `all`; NaN without one."""
        values = self.all(*keys)
        return float(values[0]) if len(values) else np.nan

    def _entries(self, key: str) -> list:
        """All values of a key in the subset, in order; a compressed message has each of them for all its subsets."""
        if not self._compressed:
            return list(self._get(f"/subsetNumber={self._subset + 1}/{key}" if self._count > 1 else key))
        found: list = []
        while len(every := self._get(f"#{len(found) + 1}#{key}")):
            found.append(every[self._subset if len(every) > 1 else 0])
        return found

    def _get(self, key: str):
        try:
            return self._eccodes.codes_get_array(self._message, key)
        except self._eccodes.KeyValueNotFoundError:
            return []

    def _station(self) -> str:
        block, number = self.first("blockNumber"), self.first("stationNumber")
        if np.isfinite(block) and np.isfinite(number):
            return f"{block:02.0f}{number:03.0f}"
        for key in ("shipOrMobileLandStationIdentifier", "longStationName", "icaoLocationIndicator"):
            if found := self._entries(key):
                return str(found[0]).strip()
        return ""


def _values(report: _Report, wanted: set[str], vertical: str) -> Iterator[dict]:
    """Rows of one report: variable, level and value."""
    pressure = report.all("pressure")
    if len(pressure) > 1:
        level = pressure / (100 if vertical == "pressure" else np.nanmax(pressure))
        found = {name: report.all(*keys) for name, keys in ALOFT.items()}
        found |= dict(zip(WINDS_ALOFT, _wind(report.all("windSpeed"), report.all("windDirection")), strict=True))
    else:
        level = np.array([np.nan])
        found = {name: report.all(*keys)[:1] for name, keys in SURFACE.items()}
        speed = report.all("windSpeedAt10M", "windSpeed")[:1]
        found |= dict(zip(WINDS, _wind(speed, report.all("windDirectionAt10M", "windDirection")[:1]), strict=True))
    for name in sorted(wanted & set(found)):
        for at, value in zip(level, found[name], strict=False):
            if np.isfinite(value):
                yield {"variable": name, "level": float(at), "value": float(value)}


def _wind(speed: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Components from speed and the direction in degrees from which it blows; a calm has any direction or none."""
    if len(speed) != len(direction):
        return speed[:0], speed[:0]
    angle = np.radians(np.where(speed == 0, 0.0, direction))
    return -speed * np.sin(angle), -speed * np.cos(angle)


def _next(eccodes, stream, path):
    try:
        return eccodes.codes_bufr_new_from_file(stream)
    except eccodes.CodesInternalError as error:
        raise ValueError(f"Expected BUFR messages in {path}, got: {error}") from None


def _eccodes(path):
    try:
        import eccodes
    except ImportError:
        raise ValueError(f"Expected ecCodes to read {path}, it is not installed: the extra grib") from None
    return eccodes
