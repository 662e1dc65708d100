"""Initial times and lead times that a source has in combination: pairs along one dimension, and tables with gaps."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from emulator.planet.lead_times import as_timedelta
from emulator.sources.axes import Axes, named, time_coordinates
from emulator.store.forecast import FORECAST_NAMES

INITIAL = "forecast_reference_time"
VALID = ("time", "valid_time")


def by_initial_time(array: xr.DataArray, forecast: bool) -> Iterator[xr.DataArray]:
    """A variable whose leads lie along its valid times, as CF writes forecasts one after the other, by initial time.

    Each then has its one initial time, and its leads as a dimension. Any other variable as it is.
    """
    lead = time_coordinates(array, forecast)[1]
    valid = next((array.coords[n] for n in VALID if n in array.coords and array.coords[n].ndim == 1), None)
    if lead is None or valid is None or lead.ndim != 1 or lead.dims != valid.dims or lead.dims[0] not in array.dims:
        yield array
        return
    (along,) = lead.dims
    start = named(array, [name for name in FORECAST_NAMES["init_time"] if name != valid.name], (INITIAL,))
    if start is not None and start.ndim == 0:
        inits = np.full(lead.shape, start.values)
    elif start is not None:
        inits = start.values
    elif np.issubdtype(valid.dtype, np.datetime64):
        inits = valid.values - as_timedelta(lead.values, lead.attrs.get("units"))
    else:
        yield array
        return
    dropped = [
        name for name, c in array.coords.items() if along in c.dims or (start is not None and name == start.name)
    ]
    for init in np.unique(inits):
        at = np.flatnonzero(inits == init)
        own = array.drop_vars(dropped).isel({along: at}).rename({along: "step"})
        own = own.assign_coords(step=("step", lead.values[at], lead.attrs))
        yield own.assign_coords({INITIAL: ((), init, {"standard_name": INITIAL})})


def present(array: xr.DataArray, axes: Axes) -> list[list[bool]] | None:
    """Which combinations of initial times and leads a table of both has, `(time, lead)`; None for all.

    cfgrib fills those without a message with NaN. A few cells tell where that may be so, and then all of the field is looked
    at.
    """
    dims = [axes.dims.get(name) for name in ("time", "lead_time")]
    if "present" in array.attrs:
        return array.attrs["present"]
    if array.dtype.kind != "f" or any(dim is None or array.sizes[dim] < 2 for dim in dims) or dims[0] == dims[1]:
        return None
    others = [dim for dim in array.dims if dim not in dims]
    cells = [{dim: (array.sizes[dim] - 1) * share // 4 for dim in others} for share in (0, 2, 3)]
    there = np.any([np.isfinite(array.isel(cell).transpose(*dims).values) for cell in cells], axis=0)
    for init, lead in np.argwhere(~there):
        there[init, lead] = bool(np.isfinite(array.isel({dims[0]: init, dims[1]: lead}).values).any())
    return None if there.all() else there.tolist()
