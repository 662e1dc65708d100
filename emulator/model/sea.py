"""The sea that a store's budgets are of: its layers, its water and whether anything passes its sides."""

from collections.abc import Iterable

import numpy as np
import xarray as xr

from emulator.conservation.options import BudgetOptions
from emulator.conservation.sea import Sea
from emulator.data.channels import Channels
from emulator.planet.grid import CLOSED
from emulator.planet.quantities.registry import quantities, quantity
from emulator.store.masks import domain_of, is_closed
from emulator.store.schema import constants_of, grid_of, time_step_seconds

BOUNDS = "depth_bounds"


def at_sea(options: BudgetOptions) -> bool:
    """Whether budgets are of the sea alone; some of the sea and some of the air are refused where they are made."""
    return bool(options.budgets) and all(quantity(name).medium == "sea" for name in options.budgets)


def sea_budgets(dataset: xr.Dataset) -> list[str]:
    """The quantities of the sea that a store has the fields of."""
    return [n for n, q in quantities().items() if q.medium == "sea" and {*q.state, *q.fluxes} <= set(dataset.data_vars)]


def sea_of(dataset: xr.Dataset, options: BudgetOptions) -> Sea:
    """The sea of a store. Raises `ValueError` where its layers or its water are not known, and where its sides are open."""
    names = [name for each in options.budgets for name in quantity(each).state]
    if lacking := [name for name in names if name not in dataset]:
        raise ValueError(f"Expected {', '.join(lacking)} among the variables, which budgets of the sea need")
    if BOUNDS not in dataset or any("depth" not in dataset[name].dims for name in names):
        raise ValueError(f"Expected depths with {BOUNDS}, the edges of layers that make up columns, the store has none")
    grid, first = grid_of(dataset), dataset[names[0]]
    shape = (first.sizes["depth"], *grid.shape)
    wet = [np.ones(shape, bool) if (own := domain_of(dataset, name)) is None else own for name in names]
    if any((own != wet[0]).any() for own in wet):
        raise ValueError(f"Expected one domain of {', '.join(names)}, got several")
    if not is_closed(dataset, grid, wet[0]):
        raise ValueError(
            f"Expected a sea with closed sides, got {grid.describe()} with water at its edge, and no attribute {CLOSED} of "
            "the store"
        )
    edges = np.asarray(dataset[BOUNDS].values, np.float64)
    thickness = np.abs(edges[:, 1] - edges[:, 0])
    return Sea.of(grid.area, thickness, wet[0], constants_of(dataset), time_step_seconds(dataset))


def given_fluxes(options: BudgetOptions, forcing: Channels, moments: Iterable[str]) -> tuple[str, ...]:
    """Fluxes of the sea's budgets that a step is given, as means over itself, and does not predict."""
    ending = {name for name, moment in zip(forcing.names, moments, strict=True) if moment == "end"}
    wanted = [name for each in options.budgets if quantity(each).medium == "sea" for name in quantity(each).fluxes]
    return tuple(dict.fromkeys(name for name in wanted if name in ending))
