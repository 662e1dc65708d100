"""Fields of sources that ingest leaves out because nothing says what they are, and what hinders that it is known."""

import xarray as xr

from emulator.planet.variables import VARIABLES
from emulator.planet.vertical import VERTICAL
from emulator.sources.axes import named, time_coordinates, vertical_coordinate
from emulator.sources.harmonise import EXPERIMENT, OURS, matches, renamed
from emulator.sources.horizontal import on_the_sphere
from emulator.sources.open import Source
from emulator.sources.options import SourceOptions
from emulator.sources.recognise import recognise
from emulator.store.forecast import FORECAST_NAMES


def unknown(source: Source, options: SourceOptions) -> dict[str, str]:
    """Fields on the sphere in a source of which nothing says what they are, by the names that the source writes.

    With each why it is not the variable of the table that its name or standard name would make it: the vertical axis that it
    has or lacks; "" for one that the table does not know at all.
    """
    dataset = renamed(source, options)
    known = {*OURS, *bounds_in(dataset), *options.rename.values(), *options.entries}
    fields = {str(name): array for name, array in dataset.data_vars.items() if str(name) not in known}
    unmatched = {n: a for n, a in fields.items() if a.dtype.kind in "fiu" and on_the_sphere(a) and not matches(n, a)}
    return {name: _hindrance(name, array) for name, array in unmatched.items()}


def bounds_in(dataset: xr.Dataset) -> set[str]:
    """Names of the variables that are bounds of others."""
    return {str(variable.attrs["bounds"]) for variable in dataset.variables.values() if "bounds" in variable.attrs}


def _hindrance(name: str, array: xr.DataArray) -> str:
    likely = [found[0].name for axis in (*VERTICAL, None) if (found := recognise(name, array.attrs, axis))]
    if not likely:
        return ""
    axis = VARIABLES[likely[0]].vertical
    wanted = f"{likely[0]} lies on the dimension {axis}" if axis else f"{likely[0]} has no vertical dimension"
    if (found := vertical_coordinate(array)) is not None:
        return f"{wanted}, and {found[1].name} of {name}, {_said(array, found[1].name)}, is taken for {found[0].name}"
    if other := [str(dim) for dim in array.dims if dim not in _not_vertical(array)]:
        return f"{wanted}, and {other[0]} of {name}, {_said(array, other[0])}, does not tell that it is one"
    return f"{wanted}, and {name} has none"


def _said(array: xr.DataArray, name) -> str:
    given = array.coords[name].attrs if name in array.coords else {}
    said = [f"{key} {given[key]}" for key in ("standard_name", "units") if key in given]
    return "with " + " and ".join(said) if said else "without standard_name and units"


def _not_vertical(array: xr.DataArray) -> set:
    """Dimensions of places, times and members."""
    place = [named(array, FORECAST_NAMES[n], (n,)) for n in ("latitude", "longitude")]
    coordinates = [*place, *time_coordinates(array, True), named(array, FORECAST_NAMES["member"], ("realization",))]
    other = {name for dim, names in FORECAST_NAMES.items() if dim != "level" for name in (dim, *names)}
    return {dim for c in coordinates if c is not None for dim in c.dims} | other | {"y", "x", EXPERIMENT}
