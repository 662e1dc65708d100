"""Variables of a source as pieces of canonical fields: names, units, signs, and the order of every dimension, by name.

A `Piece` says where its values go and how they change; `Piece.read` does it for some times, and nothing is read before.
"""

import dataclasses
import os

import numpy as np
import xarray as xr

from emulator.planet.units import conversion, is_rate, linear
from emulator.planet.variables import Variable, variable
from emulator.planet.vertical import VERTICAL
from emulator.sources.axes import (
    TIME_NAMES,
    Axes,
    add_member,
    add_times,
    add_vertical,
    as_recorded,
    time_coordinates,
    vertical_coordinate,
)
from emulator.sources.combinations import by_initial_time, present
from emulator.sources.conventions import is_its_mean, time_method, with_centre, with_methods_of_terms
from emulator.sources.horizontal import add_horizontal, on_the_sphere
from emulator.sources.intervals import (
    bound_hours,
    interval_hours,
    interval_lengths,
    is_running,
    of_one_interval,
    recorded_hours,
)
from emulator.sources.open import Source
from emulator.sources.options import SourceOptions
from emulator.sources.piece import Piece, as_slice
from emulator.sources.recognise import LOGARITHMS, ON_THE_FIRST_LEVEL, Match, recognise
from emulator.sources.selection import canonical_dimension, is_of_other_members, selected
from emulator.store.forecast import FORECAST_NAMES

ALIGNED = tuple(n for d in ("init_time", "lead_time", "latitude", "longitude") for n in (d, *FORECAST_NAMES[d]))

EXPERIMENT = "expver"  # of CDS's older files: 1 is ERA5, 5 is ERA5T, its preliminary continuation

COORDINATES = (*TIME_NAMES, *VERTICAL, *FORECAST_NAMES, *(name for names in FORECAST_NAMES.values() for name in names))
OURS = ("cell_area",)  # what our stores hold beside fields, and make anew


def pieces(source: Source, options: SourceOptions) -> list[Piece]:
    """All pieces of canonical fields in a source. Raises `ValueError` naming the file (units, dimensions, coordinates)."""
    dataset = renamed(source, options)
    for name in options.rename.values():
        if name not in COORDINATES:
            meaning(name, options)
    matched = []
    for name, array in dataset.data_vars.items():
        if array.dtype.kind not in "fiu" or not on_the_sphere(array):
            continue
        own = name in options.entries or name in options.rename.values()
        for match in [Match(str(name))] if own else matches(str(name), array):
            if (options.wanted is None or match.name in options.wanted) and (
                own or is_its_mean(match.name, array, source.path)
            ):
                try:
                    for part in by_initial_time(array, options.forecast):
                        matched += _pieces_of(dataset, part, match, source.path, options)
                except ValueError as error:
                    text = str(error)
                    raise ValueError(text if source.path in text else f"{text} ({name} in {source.path})") from None
    return of_one_interval(matched, source.path, options)


def renamed(source: Source, options: SourceOptions) -> xr.Dataset:
    """A source with names, and units of coordinates, as its options have them. Raises `ValueError` where they do not fit."""
    dataset = source.dataset
    for name in options.select:
        if canonical_dimension(name) not in (*VERTICAL, "member", "lead_time") and (
            name in ALIGNED or name not in {*dataset.variables, *dataset.dims}
        ):
            raise ValueError(
                f"Expected level, member, lead time or a dimension other than place to select from in {source.path}, got "
                f"{name!r} (times are chosen by period)"
            )
    present = {old: new for old, new in options.rename.items() if old in dataset and old != new}
    if twice := sorted({new for new in present.values() if list(present.values()).count(new) > 1}):
        both = " and ".join(old for old, new in present.items() if new == twice[0])
        raise ValueError(f"Expected one variable to rename to {twice[0]} in {source.path}, got {both}")
    clash = [new for new in present.values() if new in dataset.variables]
    for name in {*options.units} & {*map(str, dataset.coords)}:
        dataset = dataset.assign_coords({name: dataset[name].assign_attrs(units=options.units[name])})
    dataset = dataset.drop_vars(clash).rename(present) if present else dataset
    return with_methods_of_terms(with_centre(dataset))


def matches(name: str, array: xr.DataArray) -> list[Match]:
    """The canonical variables that a variable of a source is or belongs to, by its name, attributes, levels and height."""
    heights = [c for c in array.coords.values() if c.ndim == 0 and c.attrs.get("standard_name") == "height"]
    height = _metres(heights[0]) if heights else None
    found = vertical_coordinate(array)
    for vertical in [None] if _is_of_the_surface(name, array, found) else _possible(found):
        if found := recognise(name, array.attrs, vertical, height):
            return found
    return []


def _metres(height: xr.DataArray) -> float:
    units = str(height.attrs.get("units", "m"))
    try:
        scale, _ = linear(units, "m") or (1.0, 0.0)
    except ValueError:
        scale = 1.0
    return float(height) * scale


def _is_of_the_surface(name: str, array: xr.DataArray, found) -> bool:
    """Whether a field is on the first model level alone and is the surface's: ECMWF's `z` and `lnsp`."""
    if found is None or found[0].name != "level" or found[1].size != 1:
        return False
    short = array.attrs.get("GRIB_shortName", name.lower())
    values, kind = found[0].read(as_recorded(found[1], array))
    return short in ON_THE_FIRST_LEVEL and (kind == "hybrid" or short in LOGARITHMS) and values[0] == 1


def _possible(found) -> list[str | None]:
    """Vertical dimensions of the table's entries that a field may be, the likeliest first: states of the air on heights are
    those on levels, and one height, depth or layer may be a surface's."""
    if found is None:
        return [None]
    axis, coordinate = found
    return [axis.name, *["level"] * (axis.name == "height"), *[None] * (axis.name != "level" and coordinate.size == 1)]


def meaning(name: str, options: SourceOptions) -> Variable:
    """Raises `ValueError` for a name that neither the table knows nor ingest has an entry of, with the nearest names."""
    return options.entries[name] if name in options.entries else variable(name)


def _pieces_of(dataset, array, match, path, options) -> list[Piece]:
    entry = meaning(match.name, options)
    axes = Axes()
    method = time_method(array.attrs)
    averaged = method == "mean" or (options.time_stamp is not None and method != "point")
    if not entry.levels and (found := vertical_coordinate(array)) and found[0].name == "level" and found[1].size == 1:
        array = array.squeeze(found[1].dims, drop=True)
    add_horizontal(axes, dataset, array)
    if entry.levels:
        add_vertical(axes, dataset, array)
        if axes.axis is None:
            raise ValueError(f"Expected {entry.name} on levels, got no vertical coordinate")
        if match.name in options.entries and axes.axis != entry.vertical:
            raise ValueError(f"Expected {entry.name} on the dimension {entry.vertical}, got it on {axes.axis}")
    add_member(axes, array)
    if is_of_other_members(options, axes):
        return []
    if static := entry.name in options.static:
        moving = {d for c in time_coordinates(array, options.forecast) if c is not None for d in c.dims}
        first, *later = ({d: at % n for d, n in array.sizes.items() if d in moving} for at in (0, 1, -1))
        moments = tuple(array.isel(at).variable for at in (first, *later)) if first else ()
        array = array.isel(first)
    else:
        add_times(axes, dataset, array, options.forecast, averaged or entry.cell == "mean")
    array = selected(array, options, axes)
    others = [d for d in array.dims if d not in axes.dims.values()]
    otherwise = ()
    if EXPERIMENT in others and array.dtype.kind == "f":
        array, *rest = (array.isel({EXPERIMENT: n}) for n in range(array.sizes[EXPERIMENT]))
        others.remove(EXPERIMENT)
        otherwise = tuple(other.squeeze(others, drop=True).variable for other in rest)
    if large := [d for d in others if array.sizes[d] > 1]:
        raise ValueError(
            f"Expected dimensions that are known, got {large[0]} of size {array.sizes[large[0]]}; see select"
        )
    array = array.squeeze(others, drop=True)
    told = [] if static else bound_hours(axes)
    scale, offset, totals = change(array, match, entry, options, told)
    runs = totals and is_running(array, match, options)  # from its beginning, whatever stamps and bounds make of it
    piece = Piece(
        name=entry.name,
        term=match.term,
        path=path,
        array=array.variable,
        dims=axes.dims,
        coordinates=axes.coordinates,
        order=axes.order,
        scale=scale,
        offset=offset,
        axis=axes.axis,
        vertical=axes.vertical,
        bounds=axes.bounds,
        domain=_domain(array, entry),
        averaged=averaged,
        lengths=interval_lengths(array, match, axes, options, totals),
        totals=totals,
        assumed=not runs and is_assumed(array, match, entry, options, told),
        logarithm=match.logarithm,
        otherwise=otherwise,
        entry=options.entries.get(entry.name),
        stamp=None if runs else options.time_stamp,
        starts=None if runs else axes.starts,
    )
    piece = dataclasses.replace(piece, moments=moments) if static else piece
    tables = (
        not options.forecast and not otherwise and "://" not in path and not os.path.isdir(path)
    )  # no Zarr: a look is dear
    there = present(array, axes) if tables else array.attrs.get("present")
    return [piece] if static else _by_step(piece, entry, there, options)


def _domain(array, entry) -> str | None:
    """Where a field exists: as its entry says, or its file as our stores do; None for everywhere."""
    own = str(array.attrs.get("domain", "all"))
    if "all" not in (own, entry.domain) and own != entry.domain:
        raise ValueError(
            f"Expected one domain of {entry.name}, got {entry.domain!r} (define, or another file) and {own!r} here"
        )
    domain = own if entry.domain == "all" else entry.domain
    return None if domain == "all" else domain


def change(array, match, entry, options, bounds: list[float] | None = None) -> tuple[float, float, bool]:
    """Scale and offset to the table's units and ECMWF's sign, and whether values are totals over several intervals.

    Those are divided by their steps when they are added up (`emulator.ingestion.intervals`). `bounds`: the hours that bounds
    tell, as `bound_hours` has them.
    """
    name = str(array.name)
    if match.logarithm:
        return 1.0, 0.0, False
    units = options.units.get(name, options.units.get(entry.name, array.attrs.get("units")))
    if units is None:
        raise ValueError(f"Expected units of {name}, got none; give them under units")
    several = array.attrs.get("from_start") or len(recorded_hours(array)) > 1 or is_running(array, match, options)
    several = several or (len(bounds or ()) > 1 and not match.interval_hours and not recorded_hours(array))
    totals = bool(several) and linear(units, entry.units) is None
    hours = interval_hours(array, match, options, bounds)
    if "GRIB_shortName" not in array.attrs and time_method(array.attrs) == "sum" and is_rate(units, entry):
        raise ValueError(
            f"Expected sums over time of {name} in units of an amount, got {units!r}, those of a rate; average rates instead "
            f"of adding them up, or give the units of the sum, as in units: {{{name}: kg m-2}}"
        )
    scale, offset = conversion(units, entry, 1.0 if totals else hours and hours * 3600.0)
    sign = match.sign * (-1 if {name, entry.name} & set(options.negate) else 1)
    return sign * scale, sign * offset, totals


def is_assumed(array, match, entry, options, bounds) -> bool:
    """Whether the options or bounds alone say what the amounts of a mean are over; bounds may be those of the times alone."""
    told = match.interval_hours or recorded_hours(array) or array.attrs.get("from_start")
    units = options.units.get(str(array.name), options.units.get(entry.name, array.attrs.get("units")))
    amounts = entry.cell == "mean" and not match.logarithm and linear(units, entry.units) is None
    return (options.interval_hours is not None or bool(bounds)) and not told and amounts


def _by_step(piece: Piece, entry, present, options) -> list[Piece]:
    """In an analysis a piece for each step of short forecasts (ERA5's fluxes come so), placed at its valid time.

    In a forecast the same where steps are missing after some of the initial times, so that none is claimed. Where the
    options select lead times (in hours), the others are left out: `0` makes an analysis of forecasts' initial states.
    """
    leads, forecast = piece.coordinates.get("lead_time"), options.forecast
    wanted = next((v for name, v in options.select.items() if canonical_dimension(name) == "lead_time"), None)
    if leads is None or (forecast and wanted is None and (present is None or np.all(present))):
        return [piece]
    chosen = np.ones(len(leads), bool) if wanted is None else np.isin(leads / np.timedelta64(1, "h"), wanted)
    if not chosen.any():
        have = ", ".join(f"{lead / np.timedelta64(1, 'h'):g}" for lead in leads)
        raise ValueError(f"Expected a lead time of {wanted} h of {piece.name}, got {have}")
    if not forecast and entry.cell == "point" and np.any(leads[chosen] != np.timedelta64(0)):
        raise ValueError(
            f"Expected an analysis of {piece.name}, got a forecast up to {leads.max() / np.timedelta64(1, 'h'):g} h; set "
            "kind: forecast, or select: {lead_time: 0} for the initial states alone"
        )
    steps = []
    inits = piece.coordinates["time"]
    for step, lead in enumerate(leads):
        kept = np.array([n for n in range(len(inits)) if present is None or present[n][step]], int)
        if not len(kept) or not chosen[step]:
            continue
        index = {piece.dims["time"]: as_slice(kept)} if "time" in piece.dims else {}
        if forecast:
            index |= {piece.dims["lead_time"]: slice(step, step + 1)} if "lead_time" in piece.dims else {}
            coordinates = piece.coordinates | {"time": inits[kept], "lead_time": leads[step : step + 1]}
            dims = piece.dims
        else:
            index |= {piece.dims["lead_time"]: step} if "lead_time" in piece.dims else {}
            coordinates = {d: c for d, c in piece.coordinates.items() if d != "lead_time"} | {
                "time": inits[kept] + lead
            }
            dims = {d: raw for d, raw in piece.dims.items() if d != "lead_time"}
        parts = {"array": piece.array.isel(index), "otherwise": tuple(other.isel(index) for other in piece.otherwise)}
        if piece.lengths is not None:
            parts["lengths"] = piece.lengths[kept][:, step : step + 1]
        steps.append(dataclasses.replace(piece, dims=dims, coordinates=coordinates, **parts))
    return steps
