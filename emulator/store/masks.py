"""Where fields exist: the attribute `domain` of a field, and the masks behind it.

`all` (or no attribute): everywhere. `land` and `ocean`: where the static field `land_sea_mask` is at least, or below, a half.
Anything else is the name of a static field, at least a half where the field exists. Outside a field's domain its values are
missing (NaN) and mean nothing; inside, a missing value is one that ought to be there.
"""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from emulator.planet.grid import CLOSED, Grid
from emulator.planet.slab import SEA_TEMPERATURE
from emulator.planet.vertical import VERTICAL

LAND_SEA_MASK = "land_sea_mask"
HALF = 0.5


def domain_name(dataset: xr.Dataset, name: str) -> str | None:
    """The domain of a field as its attribute has it; None for everywhere."""
    domain = str(dataset[name].attrs.get("domain", "all"))
    return None if domain == "all" else domain


def mask_name(domain: str) -> str:
    """The static field that says where a domain is."""
    return LAND_SEA_MASK if domain in ("land", "ocean") else domain


def mask_of(name: str) -> str:
    """The static field that ingest makes of where a field has values at its first time."""
    return f"{name}_mask"


def inside(domain: str, mask: np.ndarray) -> np.ndarray:
    """Where a domain is, by the values of its mask: bool of their shape. A missing value is in neither land nor ocean."""
    mask = np.asarray(mask)
    return mask < HALF if domain == "ocean" else mask >= HALF


def domain_of(dataset: xr.Dataset, name: str, beside: xr.Dataset | None = None) -> np.ndarray | None:
    """Where a field of a store exists: bool on its own dimensions without times and members, `([vertical,] *space)`.

    A mask without levels holds for all of the field's. None for everywhere. `beside`: another store of the same grid and
    levels that may have the mask where this one lacks it, as the truth for a forecast.

    Raises `ValueError` naming the field where the mask is not in the dataset, changes in time, or lies on dimensions that the
    field has not.
    """
    domain = domain_name(dataset, name)
    if domain is None:
        return None
    what, field = mask_name(domain), dataset[name]
    if what not in dataset and beside is not None and what in beside:
        dataset = beside
    if what not in dataset:
        raise ValueError(f"Expected the static field {what} for the domain {domain!r} of {name}, got none of that name")
    return where_inside(domain, dataset[what].variable, name, _own_sizes(field))


def counted(dataset: xr.Dataset, name: str) -> np.ndarray | None:
    """Where a field is averaged over: bool on its own dimensions, `([vertical,] *space)`, None for everywhere.

    As `domain_of`; and the sea's temperature that a store holds over land too, where there is sea by `land_sea_mask`. What
    models prescribe is filled in over land, where nothing ever warms it: a mean over the globe would be too small by the
    share of land. Without that mask it counts everywhere.
    """
    if name != SEA_TEMPERATURE or domain_name(dataset, name) is not None:
        return domain_of(dataset, name)
    if LAND_SEA_MASK not in dataset:
        return None
    return where_inside("ocean", dataset[LAND_SEA_MASK].variable, name, _own_sizes(dataset[name]))


def with_land_sea_mask(dataset: xr.Dataset, beside: xr.Dataset | None) -> xr.Dataset:
    """A store with `land_sea_mask`: its own, or that of another store of the same grid where it has none and that has one."""
    if beside is None or LAND_SEA_MASK not in beside or LAND_SEA_MASK in dataset:
        return dataset
    return dataset.assign({LAND_SEA_MASK: beside[LAND_SEA_MASK].variable})


def _own_sizes(field: xr.DataArray) -> dict:
    return {d: n for d, n in field.sizes.items() if d not in ("time", "init_time", "lead_time", "member")}


def mask_is_known(dataset: xr.Dataset, name: str, beside: xr.Dataset | None = None) -> bool:
    """Whether a store, or the one beside it, has the mask of a field's domain; a field without a domain needs none."""
    domain = domain_name(dataset, name)
    return domain is None or any(mask_name(domain) in store for store in (dataset, beside) if store is not None)


def existing(field: xr.DataArray, dataset: xr.Dataset, beside: xr.Dataset | None = None) -> xr.DataArray:
    """A field of a store, or some of its times, members and levels, missing outside its domain; as `domain_of`.

    It stays as it is where no store has the mask. What is not loaded and no Dask array is loaded: select first.
    """
    name = str(field.name)
    if domain_name(dataset, name) is None or not mask_is_known(dataset, name, beside):
        return field
    exists = domain_of(dataset, name, beside)
    own = [d for d in dataset[field.name].dims if d not in ("time", "init_time", "lead_time", "member")]
    where = xr.DataArray(exists, {d: dataset[d].variable for d in own if d in VERTICAL}, own)
    for axis in (d for d in own if d in VERTICAL):
        where = where.sel({axis: field[axis]}) if axis in field.coords else where
    kept = field.where(where.drop_vars([n for n in where.coords if n not in where.dims]))
    return kept.transpose(*field.dims)


def where_inside(domain: str, mask: xr.Variable, name: str, sizes: Mapping) -> np.ndarray:
    """Where a domain is, on dimensions of some sizes, those of the field `name`. Raises `ValueError` for a mask on others."""
    if other := [f"{d} ({n})" for d, n in mask.sizes.items() if sizes.get(d) != n]:
        have = ", ".join(f"{d} ({n})" for d, n in sizes.items())
        raise ValueError(f"Expected the mask {mask_name(domain)} of {name} on {have}, got {', '.join(other)}")
    here = inside(domain, mask.transpose(*[d for d in sizes if d in mask.dims]).values)
    shape = [n if d in mask.dims else 1 for d, n in sizes.items()]
    return np.broadcast_to(here.reshape(shape), tuple(sizes.values()))


def is_closed(dataset: xr.Dataset, grid: Grid, wet: np.ndarray, beside: xr.Dataset | None = None) -> bool:
    """Whether nothing passes the sides of a sea: on a globe, where a store says so, and where no water lies at the edge.

    `wet`: bool, `(..., *space)`. `beside`: another store of the same grid that may say so.
    """
    said = any(store.attrs.get(CLOSED) for store in (dataset, beside) if store is not None)
    if said or grid.is_global() or grid.is_points:
        return bool(said) or grid.is_global()
    return not any(side.any() for side in (wet[..., 0, :], wet[..., -1, :], wet[..., 0], wet[..., -1]))


def cut(values: np.ndarray, exists: np.ndarray | None) -> np.ndarray:
    """Float values `(..., [vertical,] *space)` where a field exists, NaN elsewhere; `exists` None: everywhere."""
    return values if exists is None else np.where(exists, values, np.float32(np.nan))
