"""GRIB 1 and 2: headers checked message by message, fields decoded by ecCodes when they are needed.

Headers are read first and in full because a store made from what a tolerant reader leaves would look whole: broken
messages, two fields for one place, missing steps and mixed grids are all refused by name. (cfgrib builds its index ten
times slower, and keeps one of two fields for one place without a word.)
"""

import logging

import numpy as np
import xarray as xr
from xarray.core import indexing

from emulator.planet.grid import GAUSSIAN_TOLERANCE
from emulator.planet.vertical import VERTICAL
from emulator.sources.grib_messages import (
    MODEL_LEVELS,
    POINT_GRIDS,
    GribArray,
    Message,
    geometry,
    mesh,
    read_headers,
)
from emulator.sources.open import Format, Request, register
from emulator.sources.recognise import recognise

SURFACES = (
    "surface",
    "meanSea",
    "heightAboveGround",
    "depthBelowLand",
    "depthBelowLandLayer",
    "nominalTop",
    "entireAtmosphere",
    "atmosphere",
    "atmosphereSingleLayer",
    "oceanSurface",
    "iceTopOnWater",
    "iceLayerOnWater",
    "mixedLayerDepthByDensity",
)
REFUSED_GRIDS = {"sh": "spectral coefficients"}

log = logging.getLogger(__name__)


def opens(location: str, path: str, request: Request) -> list[xr.Dataset]:
    """The variables of the table in a GRIB file, lazily, one dataset for each of them (and kind of level).

    Dimensions are `(number, time, step, level, latitude, longitude)`, `time` being the initial time, and in place of `level`
    another vertical axis (`emulator.planet.vertical`) where the table has the variable on one. Attributes: `GRIB_shortName`,
    `units`, `vertical` (pressure, hybrid, sigma, or surface without an axis), `interval_hours` where the messages are
    accumulations or means over one interval, `from_start` where they run from the initial time, `lead_starts` where what ends
    at each step starts. With `request.points` reduced Gaussian and HEALPix grids are read too, their last dimension `cell`.

    Raises `ValueError` naming the file for broken messages, grids that are neither latitude-longitude nor full Gaussian,
    several grids, two fields for one place, and missing fields.
    """
    try:
        known = [m for m in read_headers(location) if _is_known(m, request)]
    except OSError as error:
        raise ValueError(f"Expected a file that can be read at {path}, got: {error.strerror}") from None
    if not known:
        raise ValueError(f"Expected GRIB messages of variables in the table, got none in {path}")
    _check_grids(known, location, request.points)
    place = geometry(location, known)
    groups: dict[tuple, list[Message]] = {}
    for message in known:
        groups.setdefault((message.short, message.kind), []).append(message)
    for short, kind in list(groups):
        if kind in MODEL_LEVELS and (short, "pressure") in groups:  # GFS: a few sigma levels beside the pressure levels
            log.info("%s is taken on pressure levels; %s has it on %s levels too", short, path, kind)
            del groups[short, kind]
    return [_dataset(location, some, _vertical(some[0], request.own), place) for some in groups.values()]


def _dataset(path, messages, vertical: str | None, place) -> xr.Dataset:
    first = messages[0]
    latitude, longitude, half_levels = place
    axes = [sorted({m.place()[axis] for m in messages}) for axis in range(4)]
    position = [{value: i for i, value in enumerate(axis)} for axis in axes]
    table = np.full([len(axis) for axis in axes], -1)
    for number, message in enumerate(messages):
        where = tuple(lookup[value] for lookup, value in zip(position, message.place(), strict=True))
        if (other := table[where]) >= 0:
            kinds = f" ({messages[other].data_type} and {message.data_type})"
            raise ValueError(f"Expected one field for {message.describe()} in {path}, got two{kinds}")
        table[where] = number
    offsets = np.array([(m.offset, m.index) for m in messages] + [(-1, 0)])[table]
    space = ("cell",) if first.grid in POINT_GRIDS else ("latitude", "longitude")
    size = (len(latitude),) if len(space) == 1 else (len(latitude), len(longitude))
    array = indexing.LazilyIndexedArray(GribArray(path, offsets, size))
    attributes = {
        "GRIB_shortName": first.short,
        "units": first.units,
        "vertical": {"level": first.kind, None: "surface"}.get(vertical, ""),
        **_interval(messages, axes[2]),
    }
    dims = ("number", "time", "step", vertical or "level", *space)
    coordinates = {
        "number": axes[0],
        "time": np.array(axes[1]),
        "step": np.round(np.array(axes[2]) * 3600).astype("timedelta64[s]").astype("timedelta64[ns]"),
        vertical or "level": axes[3],
        "latitude": (space[0], latitude),
        "longitude": (space[-1], longitude),
    }
    dataset = xr.Dataset({first.short: (dims, array, attributes)}, coordinates)
    if vertical is None:
        dataset = dataset.isel(level=0, drop=True)
    elif units := VERTICAL[vertical].grib[first.level_type]:
        dataset[vertical].attrs = {"units": units}
    if half_levels is not None and first.kind in MODEL_LEVELS:
        half_a, half_b = half_levels
        dataset = dataset.assign(half_level_a=("half_level", half_a), half_level_b=("half_level", half_b))
    dataset[first.short].attrs["present"] = (table >= 0).all(axis=(0, 3)).tolist()  # (time, step)
    if (table < 0).any(axis=(0, 3))[(table >= 0).any(axis=(0, 3))].any():
        hole = np.argwhere((table < 0) & (table >= 0).any(axis=(0, 3), keepdims=True))[0]
        number, init, hours, level = (axis[i] for axis, i in zip(axes, hole, strict=True))
        raise ValueError(
            f"Expected every member and level at each time of {path}, got no {first.short} at level {level:g}, member "
            f"{number} from {str(init)[:16]} at {hours:g} h"
        )
    return dataset


def _interval(messages, steps) -> dict:
    """The hours that accumulations or means cover, or that they run from the initial time; empty for snapshots.

    And for each of the `steps`, in hours, where what ends there starts (NaN: a snapshot), where that is the same throughout:
    one file of a series does not tell whether 0 to 12 h is a step or a sum since the start.
    """
    spans = {(m.start_hours, m.end_hours) for m in messages if m.end_hours != m.start_hours}
    lengths = {end - start for start, end in spans}
    starts = {end: start for start, end in spans}
    own = {"lead_starts": [starts.get(step, np.nan) for step in steps]} if 0 < len(spans) == len(starts) else {}
    if len(lengths) == 1:
        return {"interval_hours": lengths.pop()} | own
    return {"from_start": 1} if spans and {start for start, _ in spans} == {0.0} else own


def _vertical(message: Message, own: frozenset[str]) -> str | None:
    """The vertical dimension of a field; None of one that is alone, as a layer of the soil with a name of its own."""
    attributes = {"GRIB_shortName": message.short}
    possible = [axis.name for axis in VERTICAL.values() if message.level_type in axis.grib]
    if message.short in own and not any(recognise("", attributes, name) for name in (*possible, None)):
        return next(iter(possible), None)
    return next((name for name in possible if recognise("", attributes, name)), None)


def _is_known(message: Message, request: Request) -> bool:
    if (vertical := _vertical(message, request.own)) is None and message.level_type not in SURFACES:
        return False
    matches = recognise("", {"GRIB_shortName": message.short}, vertical)
    wanted = any(request.names is None or match.name in request.names for match in matches)
    return wanted or message.short in request.own


def _check_grids(known, path, points):
    for message in known:
        if message.grid in POINT_GRIDS:
            if not points:
                raise ValueError(
                    f"Expected a latitude-longitude or full Gaussian grid in {path}, got {POINT_GRIDS[message.grid]} for "
                    f"{message.describe()}; interpolate it first, or take its cells as points (points: true of the source)"
                )
        elif message.grid not in ("regular_ll", "regular_gg"):
            what = REFUSED_GRIDS.get(message.grid, f"the grid type {message.grid}")
            raise ValueError(
                f"Expected a latitude-longitude or full Gaussian grid in {path}, got {what} for {message.describe()}; "
                "interpolate it first"
            )
    first, *others = {m.grid_hash: m for m in known}.values()
    different = [m for m in others if m.grid != first.grid or m.shape != first.shape]
    if others and not different:  # editions 1 and 2, or other shapes of the Earth: the cells may be the same
        latitude, longitude = mesh(path, first)
        for message in others:
            rows, columns = mesh(path, message)
            apart = np.abs((columns - longitude + 180) % 360 - 180)
            if rows.shape != latitude.shape or max(np.abs(rows - latitude).max(), apart.max()) > GAUSSIAN_TOLERANCE:
                different.append(message)
    if different:
        texts = [f"{m.shape[0]} x {m.shape[1]} ({m.describe()})" for m in (first, *different)]
        raise ValueError(f"Expected one grid in {path}, got {len(texts)}: {', '.join(texts[:3])}")


def _begins(start: bytes) -> bool:
    return b"GRIB" in start  # a telecommunication heading may stand before it


register(Format("grib", "GRIB", opens, _begins, suffixes=(".grib", ".grb", ".grib2", ".grb2", ".grib1")))
