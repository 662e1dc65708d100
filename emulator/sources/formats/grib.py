"""GRIB 1 and 2: headers checked message by message, fields decoded by ecCodes when they are needed.

Headers are read first and in full because a store made from what a tolerant reader leaves would look whole: broken
messages, two fields for one place, missing steps and mixed grids are all refused by name. (cfgrib builds its index ten
times slower, and keeps one of two fields for one place without a word.)
"""

import dataclasses
import logging

import numpy as np
import xarray as xr
from xarray.core import indexing

from emulator.planet.grid import GAUSSIAN_TOLERANCE
from emulator.planet.variables import VARIABLES
from emulator.planet.vertical import VERTICAL
from emulator.sources.conventions import time_method
from emulator.sources.grib_messages import (
    MODEL_LEVELS,
    POINT_GRIDS,
    GribArray,
    Message,
    field_values,
    geometry,
    mesh,
    read_headers,
)
from emulator.sources.open import Format, Request, register
from emulator.sources.recognise import LOGARITHMS, ON_THE_FIRST_LEVEL, recognise

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
SPARE = ("prate", "tprate", "cprat")  # rates beside the accumulations that say the same
SHOWN = 12  # names in a message
REFUSED_GRIDS = {"sh": "spectral coefficients"}

log = logging.getLogger(__name__)


def opens(location: str, path: str, request: Request) -> list[xr.Dataset]:
    """The variables of the table in a GRIB file, lazily, one dataset for each of them (and kind of level).

    Dimensions are `(number, time, step, level, latitude, longitude)`, `time` being the initial time, and in place of `level`
    another vertical axis (`emulator.planet.vertical`) where the table has the variable on one. Attributes: `GRIB_shortName`,
    `units`, `vertical` (pressure, hybrid, sigma, or surface without an axis), `intervals` where messages are accumulations
    or means: the hours that each of them covers, `(time, step)`. With `request.points` reduced Gaussian and HEALPix grids
    are read too: their last dimension is `cell`.

    Raises `ValueError` naming the file for broken messages, grids that are neither latitude-longitude nor full Gaussian,
    several grids, two fields for one place, and missing fields.
    """
    try:
        every = _with_surfaces(read_headers(location))
    except OSError as error:
        raise ValueError(f"Expected a file that can be read at {path}, got: {error.strerror}") from None
    known = [m for m in every if _is_known(m, request)]
    known = _without_others_of_own(known, request)
    _tell_unknown(every, known, path, request)
    _check_grids(known, location, request.points)
    place = geometry(location, known)
    groups: dict[tuple, list[Message]] = {}
    over_intervals = {(m.short, m.kind) for m in known if time_method(m.attributes) in ("mean", "sum")}
    for message in known:
        key = message.short, message.kind
        groups.setdefault((*key, _method(message, key in over_intervals)), []).append(message)
    for short, kind, method in list(groups):
        if (
            kind in MODEL_LEVELS and (short, "pressure", method) in groups
        ):  # GFS: a few sigma levels beside the pressure levels
            log.info("%s is taken on pressure levels; %s has it on %s levels too", short, path, kind)
            del groups[short, kind, method]
    _keep_one_method(groups, path, request)
    return [_dataset(location, some, _vertical(some[0], request.own), place, request) for some in groups.values()]


def _with_surfaces(messages: list[Message]) -> list[Message]:
    """Fields that ECMWF has on the first model level and that are the surface's, as such: where no other level has them."""
    levels: dict[str, set[float]] = {}
    for message in messages:
        if message.short in ON_THE_FIRST_LEVEL and message.kind in MODEL_LEVELS:
            levels.setdefault(message.short, set()).add(message.level)
    moved = {short for short, own in levels.items() if own == {1.0} or short in LOGARITHMS}
    return [
        dataclasses.replace(m, level_type="surface", level=0.0) if m.short in moved and m.kind in MODEL_LEVELS else m
        for m in messages
    ]


def _dataset(path, messages, vertical: str | None, place, request: Request) -> xr.Dataset:
    first = messages[0]
    latitude, longitude, half_levels = place
    axes = [sorted({m.place()[axis] for m in messages}) for axis in range(4)]
    position = [{value: i for i, value in enumerate(axis)} for axis in axes]
    table = np.full([len(axis) for axis in axes], -1)
    for number, message in enumerate(messages):
        where = tuple(lookup[value] for lookup, value in zip(position, message.place(), strict=True))
        if (other := table[where]) >= 0 and _twice(path, messages[other], message, request) is not message:
            continue
        table[where] = number
    offsets = np.array([(m.offset, m.index) for m in messages] + [(-1, 0)])[table]
    space = ("cell",) if first.grid in POINT_GRIDS else ("latitude", "longitude")
    size = (len(latitude),) if len(space) == 1 else (len(latitude), len(longitude))
    dtype = np.float64 if first.short in LOGARITHMS else np.float32
    array = indexing.LazilyIndexedArray(GribArray(path, offsets, size, dtype))
    attributes = {
        **first.attributes,
        "vertical": {"level": first.kind, None: "surface"}.get(vertical, ""),
        **_intervals(messages, table),
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


def _intervals(messages, table) -> dict:
    """Hours that the value at each time and step covers, NaN for snapshots: `(time, step)`; nothing where all are."""
    hours = np.array([_hours(message) for message in messages] + [np.nan])[table]
    return {"intervals": np.fmax.reduce(hours, axis=(0, 3)).tolist()} if np.isfinite(hours).any() else {}


def _hours(message: Message) -> float:
    return message.end_hours - message.start_hours if message.end_hours != message.start_hours else np.nan


def _twice(path: str, one: Message, other: Message, request: Request) -> Message:
    """Of two fields for one place that of the interval that is asked for, or either where they are the same.

    Raises `ValueError` naming both.
    """
    hours = {_hours(one): one, _hours(other): other}
    if len(hours) == 2 and np.isfinite([*hours]).all():
        if request.interval_hours in hours:
            return hours[request.interval_hours]
        spans = " and ".join(f"{m.start_hours:g} to {m.end_hours:g} h" for m in (one, other))
        choices = " or ".join(f"{h:g}" for h in sorted(hours))
        raise ValueError(
            f"Expected one field for {one.describe()} in {path}, got two, over {spans}; choose with interval_hours: {choices}"
        )
    alike = one.grid_hash == other.grid_hash and one.data_type == other.data_type and np.isfinite(_hours(one))
    if alike and np.array_equal(*(field_values(path, m.offset, m.index) for m in (one, other)), equal_nan=True):
        return one  # GFS has its first total twice, as that of the step and that from the start
    kinds = f" ({one.data_type} and {other.data_type})"
    raise ValueError(f"Expected one field for {one.describe()} in {path}, got two{kinds}")


def _vertical(message: Message, own: frozenset[str]) -> str | None:
    """The vertical dimension of a field; None of one that is alone, as a layer of the soil with a name of its own."""
    attributes = {"GRIB_shortName": message.short}
    possible = [axis.name for axis in VERTICAL.values() if message.level_type in axis.grib]
    if message.short in own and not any(recognise("", attributes, name) for name in (*possible, None)):
        return next(iter(possible), None)
    return next((name for name in possible if recognise("", attributes, name)), None)


def _is_known(message: Message, request: Request) -> bool:
    if message.short in request.own:
        return True
    if (vertical := _vertical(message, request.own)) is None and message.level_type not in SURFACES:
        return False
    matches = recognise("", message.attributes, vertical)
    return any(request.names is None or match.name in request.names for match in matches)


def _without_others_of_own(known: list[Message], request: Request) -> list[Message]:
    """Fields that are asked for by their own names, on a vertical axis or at a usual surface where there are such."""
    usual = {m.short for m in known if m.level_type in SURFACES or _vertical(m, request.own) is not None}
    return [
        m for m in known if m.short not in usual or m.level_type in SURFACES or _vertical(m, request.own) is not None
    ]


def _tell_unknown(every: list[Message], known: list[Message], path: str, request: Request) -> None:
    """Names the fields that are left out. Raises `ValueError` where all of them are."""
    kept = {(m.short, m.level_type) for m in known}
    names = list(
        dict.fromkeys(_label(m) for m in every if (m.short, m.level_type) not in kept or not _is_known(m, request))
    )
    text = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    first = next((m.short for m in every if m.short != "unknown"), "NAME")
    way = f"define it, as in define: {{{first}: {{}}}}, or rename it to a name of the table, as in rename: {{{first}: NAME}}"
    if not known and request.names is not None:
        raise ValueError(
            f"Expected fields of {', '.join(request.names[:SHOWN])} in {path}, got {text}; to take one, {way}"
        )
    if not known:
        raise ValueError(f"Expected GRIB fields of the variable table in {path}, got {text}; to ingest one, {way}")
    if names and request.names is None:
        log.warning("The variable table has no entry for %s (%s): left out; to ingest one, %s", text, path, way)


def _method(message: Message, over_intervals: bool) -> str:
    """What a field is of its interval: "point", "interval" (a mean or sum), or a statistic.

    At step 0 an accumulation (the variable is one elsewhere in the file) is an instant by name alone.
    """
    method = time_method(message.attributes)
    if method is None or (method == "point" and message.end_hours == 0):
        return "interval" if over_intervals and recognise("", message.attributes, None) else method or "point"
    return "interval" if method in ("mean", "sum") else method


def _label(message: Message) -> str:
    method = time_method(message.attributes)
    statistic = f", {method}" if method not in (None, "point", "mean", "sum") else ""
    return f"{message.short} ({message.level_type}{statistic})"


def _keep_one_method(groups: dict, path: str, request: Request) -> None:
    """Of what a file has as a snapshot and as a mean, what the variable is; and one of two names for the same."""
    found: dict[tuple, list] = {}
    for key, (message, *_) in groups.items():
        if message.short not in request.own:
            for match in recognise("", message.attributes, _vertical(message, request.own)):
                found.setdefault((match.name, message.kind), []).append((key, match))
    for (name, _), several in found.items():
        is_mean = VARIABLES[name].cell == "mean"
        fitting = [key for key, _ in several if (key[2] == "point") != is_mean]
        usual = [key for key in fitting if key[0] not in SPARE] or fitting
        if usual and len(several) > 1:
            for key in {key for key, _ in several} - set(usual):
                log.info("%s is taken from %s; %s has it as %s (%s) too", name, usual[0][0], path, key[0], key[2])
                groups.pop(key, None)


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
