"""Global budgets of the registered quantities, audited in float64 from what a store holds.

A quantity's declaration (`emulator.planet.quantities`) says what it is; sums, differences and areas here are written apart
from the conservation schemes on purpose, because an auditor that shares code with the audited finds nothing. With area
mean <.>, layer mass m_k and content x: the total is `<sum_k x_k m_k>`, and a step leaves what its fluxes do not explain.
"""

import numpy as np

from emulator.planet.constants import Constants
from emulator.planet.grid import Grid
from emulator.planet.quantities import Columns, Quantity, quantities
from emulator.planet.quantities.energy import HYDROSTATIC, EnergyForm
from emulator.planet.vertical import Levels


def audited() -> dict[str, Quantity]:
    """The quantities that are audited, by name."""
    return {name: quantity for name, quantity in quantities().items() if quantity.content is not None}


def units_of(quantity: Quantity) -> str:
    """Of a step's residual: what it leaves, or that per second."""
    return quantity.rate_units if quantity.as_rate else quantity.units


def totals(
    fields: dict[str, np.ndarray], levels: Levels, grid: Grid, constants: Constants, form: EnergyForm = HYDROSTATIC
) -> dict[str, np.ndarray]:
    """Global mean of every quantity, in its units, `(...)`, as far as the fields allow.

    `fields`: name -> `(..., level, *space)`, or `(..., *space)` without levels; geopotential_at_surface `space`.
    """
    possible = {name: q for name, q in audited().items() if {"surface_pressure", *q.state} <= set(fields)}
    if not possible:
        return {}
    fields = {name: np.asarray(field, np.float64) for name, field in fields.items()}
    pressure, space = fields["surface_pressure"], len(grid.shape)
    thickness = np.stack(levels.thickness(pressure), axis=pressure.ndim - space)
    columns = Columns(fields, thickness / constants.gravity, levels, constants, form)
    return {
        name: grid.mean(q.column(columns) if q.column else columns.integral(q.content(fields, constants), space))
        for name, q in possible.items()
    }


def sources(fields: dict[str, np.ndarray], grid: Grid, constants: Constants) -> dict[str, np.ndarray]:
    """Global mean rate at which each quantity with fluxes enters the atmosphere, per second: `(..., *space)` -> `(...)`."""
    possible = {name: q for name, q in audited().items() if q.fluxes and set(q.fluxes) <= set(fields)}
    names = {name for q in possible.values() for name in (*q.fluxes, *q.optional_fluxes) if name in fields}
    mean = {name: grid.mean(fields[name]) for name in names}
    return {name: q.gained(mean, constants) for name, q in possible.items()}


def residuals(total: dict, source: dict, seconds: np.ndarray, axis: int = -1) -> dict[str, np.ndarray]:
    """What each step leaves unexplained, in `units_of` a quantity.

    `total` and `source` along `axis` at successive times, `seconds` `(time - 1,)` apart; sources are means over the step
    that ends at their time. Returns arrays one shorter along `axis`.
    """
    shape = [1] * np.ndim(next(iter(total.values()))) if total else []
    if shape:
        shape[axis] = -1
        seconds = np.reshape(seconds, shape)
    result, declared = {}, audited()
    for name, amount in total.items():
        change = np.diff(amount, axis=axis)
        if not declared[name].fluxes:
            result[name] = change / seconds if declared[name].as_rate else change
        elif name in source:
            rate = np.delete(source[name], 0, axis=axis)
            result[name] = change / seconds - rate if declared[name].as_rate else change - seconds * rate
    return result
