"""Observations of a nature run: what stations, soundings and orbiters would report of it, with errors, gaps and delays.

What is reported at a time is a function of the seed, the observing system and that time, whichever times are asked for.
"""

import zlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from emulator.assimilation.geometry import Geometry
from emulator.assimilation.observations import Observations
from emulator.assimilation.operators import OPERATORS, equivalents
from emulator.assimilation.options import NetworkOptions, ObserveOptions
from emulator.assimilation.tracks import scattered, spacing_of, swath
from emulator.assimilation.weights import seen
from emulator.planet.vertical import vertical_of

GROSS = 10.0  # a gross error in units of the usual one
DOWNWARD = ("depth", "soil_layer")  # axes whose first value is the nearest to the ground or the sea's surface


def simulated(nature, options: ObserveOptions, times=None) -> Iterator[Observations]:
    """Observations of an analysis store's states at some of its times (none: all) by the networks of the options, one by one.

    Times at which nothing reports are left out. Raises `ValueError` in a sentence for a variable, an operator or levels that
    the store lacks, and times outside it.
    """
    geometry = Geometry.of(nature, sorted({name for network in options.networks for name in network.errors}))
    known = nature["time"].values
    times = known if times is None else np.atleast_1d(np.asarray(times, "datetime64[ns]"))
    if not np.isin(times, known).all():
        absent = times[~np.isin(times, known)][0]
        raise ValueError(f"Expected times of the nature run, {known[0]} to {known[-1]}, got {absent}")
    networks = [_Network(nature, geometry, network, options) for network in options.networks]
    for time in times:
        reporting = [network for network in networks if network.reports_at(time)]
        if reporting:
            state = _state(nature, geometry, time)
            yield Observations.concat([network.at(time, state) for network in reporting])


def _state(nature, geometry: Geometry, time) -> Tensor:
    now = nature.sel(time=time)
    fields = {name: torch.as_tensor(now[name].values.astype(np.float64))[None] for name in geometry.channels.names}
    return geometry.channels.pack(fields)


class _Network:
    """One observing system over one geometry; the places of stations and profiles are found once."""

    def __init__(self, nature, geometry: Geometry, options: NetworkOptions, whole: ObserveOptions):
        self.geometry, self.options, self.whole = geometry, options, whole
        self.operator = options.operator or ("radiance" if options.kind == "swath" else "point")
        self.kind = OPERATORS[self.operator]
        self.levels = {name: self._levels(nature, name) for name in options.errors}
        self._fixed = None if options.kind == "swath" else self._rows(*self._places(), np.datetime64("NaT"))

    def _levels(self, nature, name: str) -> np.ndarray:
        at = self.geometry.at.get(name)
        if at is None:
            return np.array([np.nan])
        if self.options.levels:
            return np.array(self.options.levels)
        if self.options.kind != "stations":
            return at
        return at[:1] if vertical_of(nature[name].dims) in DOWNWARD else at[-1:]

    def reports_at(self, time) -> bool:
        """Whether it reports at a time: one that is a multiple of its interval since the start of 1970."""
        step = round(self.options.every_hours * 3600e9)
        return np.datetime64(time, "ns").astype(np.int64) % step == 0

    def at(self, time, state: Tensor) -> Observations:
        """Its reports of one state `(1, channel, *space)`."""
        rows, h = self._fixed or self._rows(*self._places(time), time)
        options, rows = self.options, rows.replace(time=np.full(len(rows), np.datetime64(time, "ns")))
        value, kept = h(state)[0].numpy().copy(), np.ones(len(rows), bool)
        place = np.unique(rows.station, return_inverse=True)[1]
        for name, error in options.errors.items():
            here = rows.variable == name
            value[here] += options.biases.get(name, 0.0) + error * self._rng(name, time).standard_normal(here.sum())
        wrong = self._rng("gross", time).uniform(size=len(rows)) < options.gross
        value[wrong] += GROSS * rows.error[wrong] * self._rng("sign", time).choice([-1.0, 1.0], len(rows))[wrong]
        if len(rows):
            reported = self._rng("missing", time).uniform(size=place.max() + 1) >= options.missing
            late = self._rng("delay", time).exponential(options.delay_hours, place.max() + 1)
            limit = np.inf if self.whole.cut_off_hours is None else self.whole.cut_off_hours
            kept = (reported & (late <= limit))[place] & np.isfinite(value)
        return rows.replace(value=value).where(kept)

    def _places(self, time=None):
        options, grid = self.options, self.geometry.grid
        radius = self.geometry.constants.earth_radius
        if options.kind != "swath":
            return scattered(grid, max(1, round(options.share * grid.area.size)), self._rng("places"))
        step, turn = np.timedelta64(round(options.every_hours * 3600e9), "ns"), self._rng("orbit").uniform()
        latitude, longitude = swath(time - step, time, spacing_of(grid, radius), radius, turn)
        kept = self._rng("thinning", time).uniform(size=len(latitude)) < options.share
        kept[kept] &= self.geometry.inside(latitude[kept], longitude[kept])
        return latitude[kept], longitude[kept]

    def _rows(self, latitude, longitude, time):
        """Rows of all variables and levels at places, without values, and H; rows where the field does not exist are none."""
        options, count = self.options, len(latitude)
        parts = []
        for name, error in options.errors.items():
            for level in self.levels[name]:
                columns = {
                    "latitude": latitude,
                    "longitude": longitude,
                    "value": np.zeros(count),
                    "time": np.full(count, time),
                }
                texts = {"operator": self.operator, "variable": name, "system": options.name}
                station = [f"{options.name}{n}" for n in range(count)]
                columns |= {key: np.full(count, text) for key, text in texts.items()}
                columns |= {"level": np.full(count, level), "error": np.full(count, error)}
                columns["width"] = np.full(count, np.nan if options.width is None else options.width)
                parts.append(Observations(**columns, station=np.array(station, str)))
        rows = Observations.concat(parts)
        rows = rows.where(seen(self.geometry, rows, *self.kind.channels(self.geometry, rows)))
        return rows, equivalents(self.geometry, rows)

    def _rng(self, what: str, time=None) -> np.random.Generator:
        """Random numbers of one purpose, of this system and a time."""
        second = 0 if time is None else int(np.datetime64(time, "s").astype(np.int64)) % (1 << 63)
        return np.random.default_rng(
            [self.whole.seed, zlib.crc32(self.options.name.encode()), zlib.crc32(what.encode()), second]
        )
