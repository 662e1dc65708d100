"""Fields of one forecast as a dataset: dimensions, coordinates, attributes and static fields as its store has them."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from emulator.forecasting.forecaster import Forecaster
from emulator.forecasting.thinning import thinned
from emulator.planet.regions import REGIONS
from emulator.planet.vertical import VERTICAL
from emulator.store.forecast import lead_attributes
from emulator.store.outflow import PREFIX, attributes_of
from emulator.store.schema import PLACE, time_cell, time_step_seconds, variables_by_role


def dataset_of(
    forecaster: Forecaster,
    fields: Mapping[str, np.ndarray],
    leads: np.ndarray,
    thin=None,
    mean: bool = False,
    rows: np.ndarray | None = None,
) -> xr.Dataset:
    """Fields `(lead, [member,] ..., *space)` of one forecast with the store's coordinates, static fields and attributes.

    `rows`: of the grid, which the fields have alone.
    """
    source = forecaster.dataset if rows is None else forecaster.dataset.isel(latitude=rows)
    front = ("lead_time", "member") if forecaster.ensemble else ("lead_time",)
    data, beside = {}, {} if forecaster.sea is None else forecaster.sea.attributes
    for name, values in fields.items():
        if name in beside:
            method = {"cell_methods": "time: mean"} if mean else {}
            data[name] = ((*front, *forecaster.forcing.grid.dims), values, dict(beside[name]) | method)
        elif name in source:
            dims = (*front, *(d for d in source[name].dims if d not in ("time", "member")))
            attributes = source[name].attrs | ({"cell_methods": "time: mean"} if mean else _over(forecaster, name))
            data[name] = (dims, values, attributes)
        else:
            data[name] = (front, values, _record_attributes(name, source))
    static = ["half_level_a", "half_level_b", "cell_area", *(f"{axis}_bounds" for axis in VERTICAL)]
    static += variables_by_role(source)["static"]
    data |= {n: source[n].variable for n in static if n in source and n not in data}
    used = set(xr.Dataset(data).dims) - {"half_level"}
    kept = (
        n for n, c in source.coords.items() if n in PLACE or (c.dims and "time" not in c.dims and used >= set(c.dims))
    )
    coordinates = {str(name): source[name].variable for name in kept}
    length = next(iter(fields.values())).shape[0]
    coordinates["lead_time"] = xr.Variable("lead_time", leads[:length], lead_attributes(leads))
    if forecaster.ensemble:
        coordinates["member"] = np.arange(forecaster.members)
    dataset = xr.Dataset(data, coordinates)
    if mean:
        dataset.attrs["time_mean"] = 1
    if thin is None:
        return dataset
    inside = cells_in(forecaster.forcing.grid, thin.region)
    if inside is not None and rows is not None:
        inside = np.broadcast_to(inside.any(axis=0), (len(rows), inside.shape[1]))
    kept = thin.variables
    if kept is not None and forecaster.restoring is not None:  # else the audit would take the store's
        kept = (*kept, *(name for name in forecaster.restoring.fluxes if name not in kept))
    return thinned(dataset, kept, thin.levels, inside)


def _over(forecaster: Forecaster, name: str) -> dict[str, str]:
    """What means of a forecast are over where its steps are not those of the store, whose attributes tell its own."""
    step, own = forecaster.forcing.step, time_step_seconds(forecaster.dataset)
    if step.months or abs(step.seconds - own) < 1e-3 or time_cell(forecaster.dataset[name].attrs) != "mean":
        return {}
    return {"cell_methods": f"time: mean (interval: {step.seconds / 3600:g} hours)"}


def _record_attributes(name: str, source: xr.Dataset) -> dict[str, str]:
    """Of what a step records: corrections, in their variable's units, shares, and what left a domain by its sides."""
    if name.startswith(PREFIX):
        return attributes_of(name.removeprefix(PREFIX))
    changed = name.removeprefix("correction_rms_")
    units = source[changed].attrs["units"] if changed != name else "1"
    return {"units": units, "long_name": name.replace("_", " ")}


def cells_in(grid, region: str | None) -> np.ndarray | None:
    if region is None:
        return None
    if region not in REGIONS:
        raise ValueError(f"Expected thin.region among {', '.join(REGIONS)}, got {region!r}")
    inside = REGIONS[region].contains(*grid.mesh())
    if not inside.any():
        raise ValueError(f"Expected cells in the region {region!r}, got none on {grid.describe()}")
    return inside
