"""Less output: some variables, levels or a region."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from emulator.store.masks import domain_name, mask_name
from emulator.store.outflow import PREFIX
from emulator.store.schema import ROWS, in_order


def thinned(
    dataset: xr.Dataset,
    variables: Sequence[str] | None = None,
    levels: Sequence[float] | None = None,
    inside: np.ndarray | None = None,
) -> xr.Dataset:
    """The dataset with some variables (their masks, and everything that is recorded by time alone), levels and cells.

    `levels` are the nearest in the store's own unit; `inside`, of the shape of a field, marks the region, of
    which the smallest box of rows and columns is kept. Raises `ValueError` for a variable that the dataset lacks.
    """
    if variables is not None:
        if absent := [name for name in variables if name not in dataset]:
            raise ValueError(f"Expected variables of the forecast to write, it has none named {', '.join(absent)}")
        kept = [n for n, v in dataset.data_vars.items() if n in variables or not ROWS & set(v.dims)]
        domains = (domain_name(dataset, name) for name in variables)
        needed = ["cell_area", *(mask_name(domain) for domain in domains if domain is not None)]
        dataset = dataset[[*kept, *(n for n in dict.fromkeys(needed) if n in dataset and n not in kept)]]
    if levels is not None and "level" in dataset.dims:
        stored = np.asarray(dataset["level"].values, np.float64)
        index = np.unique([int(np.abs(stored - value).argmin()) for value in levels])
        dataset = dataset.isel(level=index).assign_attrs(levels_selected=1)
    if inside is not None and not inside.all():
        # what leaves the whole domain by its sides is not what leaves a part of it
        dataset = dataset.drop_vars(
            [n for n, v in dataset.data_vars.items() if str(n).startswith(PREFIX) and not ROWS & set(v.dims)]
        )
        if "cell" in dataset.dims:
            dataset = dataset.isel(cell=np.flatnonzero(inside))
        else:
            rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
            along = ("y", "x") if "x" in dataset.dims else ("latitude", "longitude")
            dataset = in_order(dataset.isel(dict(zip(along, (rows, columns), strict=True))))
    return dataset
