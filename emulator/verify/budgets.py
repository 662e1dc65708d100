"""Global budgets of the registered quantities, audited in float64 from what a store holds.

A quantity's declaration (`emulator.planet.quantities`) says what it is; sums, differences and areas here are written apart
from the conservation schemes on purpose, because an auditor that shares code with the audited finds nothing. With area
mean <.>, layer mass m_k and content x: the total is `<sum_k x_k m_k>`, and a step leaves what its fluxes do not explain.
"""

import numpy as np
import xarray as xr

from emulator.planet.constants import Constants
from emulator.planet.grid import Grid
from emulator.planet.quantities.energy import HYDROSTATIC, EnergyForm
from emulator.planet.quantities.registry import Columns, Quantity, quantities
from emulator.planet.vertical import Levels, vertical_of
from emulator.store.masks import domain_of, mask_is_known
from emulator.store.schema import constants_of, grid_of, levels_of
from emulator.verify.channels import values
from emulator.verify.sea_budgets import SeaLedger

BLOCK_BYTES = 2**27
STATIC = "geopotential_at_surface"  # the one field of a budget that may lie in the truth alone


def audited(medium: str | None = None) -> dict[str, Quantity]:
    """The quantities that are audited, by name: those of a medium, or all."""
    return {n: q for n, q in quantities().items() if q.content is not None and medium in (None, q.medium)}


def units_of(quantity: Quantity) -> str:
    """Of a step's residual: what it leaves, or that per second."""
    return quantity.rate_units if quantity.as_rate else quantity.units


def totals(
    fields: dict[str, np.ndarray], levels: Levels, grid: Grid, constants: Constants, form: EnergyForm = HYDROSTATIC
) -> dict[str, np.ndarray]:
    """Global mean of every quantity, in its units, `(...)`, as far as the fields allow.

    `fields`: name -> `(..., level, *space)`, or `(..., *space)` without levels; geopotential_at_surface `space`.
    """
    possible = {name: q for name, q in audited("air").items() if {"surface_pressure", *q.state} <= set(fields)}
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
    possible = {name: q for name, q in audited("air").items() if q.fluxes and set(q.fluxes) <= set(fields)}
    names = {name for q in possible.values() for name in (*q.fluxes, *q.optional_fluxes) if name in fields}
    mean = {name: grid.mean(fields[name]) for name in names}
    return {name: q.gained(mean, constants) for name, q in possible.items()}


def residuals(total: dict, source: dict, seconds: np.ndarray) -> dict[str, np.ndarray]:
    """What each step leaves unexplained, in `units_of` a quantity, `(..., time - 1)`.

    `total` and `source` `(..., time)` at successive times, `seconds` `(time - 1,)` apart; sources are means over the step
    that ends at their time.
    """
    result, declared = {}, quantities()
    for name, amount in total.items():
        change = np.diff(amount)
        if not declared[name].fluxes:
            result[name] = change / seconds if declared[name].as_rate else change
        elif name in source:
            rate = source[name][..., 1:]
            result[name] = change / seconds - rate if declared[name].as_rate else change - seconds * rate
    return result


class Ledger:
    """Reads the variables of the budgets from one store and reduces them to global means, or to those over a sea.

    Attributes:
      declared: the quantities of the store's air and sea. skipped: those that cannot be audited, with the reason.
    """

    def __init__(self, dataset: xr.Dataset, truth: xr.Dataset, form: EnergyForm = HYDROSTATIC):
        """`truth` gives what `dataset` does not hold: static fields, constants, interface coefficients of equal levels.

        Of a region means are over its area, and what a step leaves unexplained is what its sides let through.
        """
        self._dataset, self._form, self._grid = dataset, form, grid_of(dataset)
        self._levels = levels_of(truth if _borrows_levels(dataset, truth) else dataset)
        self._constants = constants_of(dataset if "constants" in dataset.attrs else truth)
        self.skipped: dict[str, str] = {}
        along = "lead_time" if "lead_time" in dataset.dims else "time"
        known = {str(name) for name, array in dataset.data_vars.items() if along in array.dims}
        known = {name for name in known if mask_is_known(dataset, name, truth)}  # others cannot be summed
        static = truth.get(STATIC, None if STATIC in known else dataset.get(STATIC))
        self.declared = declared = audited("air")
        usable = known - {STATIC} | ({STATIC} if static is not None else set())
        for name, quantity in declared.items():
            if self._levels is None:
                self.skipped[name] = "no column: no levels"
            elif absent := [field for field in quantity.needed if field not in usable]:
                self.skipped[name] = f"missing {', '.join(absent)}"
        wanted = {field for name, q in declared.items() if name not in self.skipped for field in q.needed}
        optional = {field for q in declared.values() for field in (*q.optional, *q.optional_fluxes)}
        wanted |= optional & known if wanted else set()
        self._static = {STATIC: self._field(static)} if STATIC in wanted else {}
        self._names = sorted(wanted - {STATIC})
        exists = {name: domain_of(dataset, name, truth) for name in self._names}
        self._exists = {name: where for name, where in exists.items() if where is not None}
        self._sea = None
        if "depth" in dataset.dims:
            at_sea = audited("sea")
            self._sea = SeaLedger(dataset, truth, self._constants, at_sea)
            self.declared = at_sea if "level" not in dataset.dims else declared | at_sea
            self.skipped = {n: why for n, why in self.skipped.items() if n in self.declared} | self._sea.skipped

    def _field(self, array: xr.DataArray, *before: str) -> np.ndarray:
        """A field's values `(*before, *space)`."""
        return values(array.transpose(*before, *self._grid.dims)).astype(np.float64)

    def read(self, selection: dict, axis: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Totals and sources, `(time or lead,)` each, at `selection` (by position); the first member of an ensemble."""
        air = self._read_air(selection, axis) if self._names else ({}, {})
        sea = self._sea.read(selection, axis) if self._sea else ({}, {})
        return tuple(
            {name: series for name, series in (one | other).items() if name not in self.skipped}
            for one, other in zip(air, sea, strict=True)
        )

    def _read_air(self, selection: dict, axis: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        picked = self._dataset[self._names].isel(selection | {"member": 0}, missing_dims="ignore")
        size = int(np.prod(self._grid.shape)) * 8 * len(self._names) * len(self._levels)
        block, parts = max(1, BLOCK_BYTES // size), []
        for start in range(0, picked.sizes[axis], block):
            piece = picked.isel({axis: slice(start, start + block)})
            fields = dict(self._static)
            for name, array in piece.data_vars.items():
                vertical = vertical_of(array.dims)
                fields[str(name)] = self._field(array, axis, *([vertical] if vertical else []))
                if name in self._exists:  # what does not exist holds nothing, and nothing enters by it
                    fields[str(name)] = np.where(self._exists[name], fields[str(name)], 0.0)
            total = totals(fields, self._levels, self._grid, self._constants, self._form)
            parts.append((total, sources(fields, self._grid, self._constants)))
        return tuple(
            {n: np.concatenate([part[n] for part in each]) for n in each[0]} for each in zip(*parts, strict=True)
        )


def _borrows_levels(dataset: xr.Dataset, truth: xr.Dataset) -> bool:
    """Whether a store of another tool, which does not say what its levels are, has those of the truth."""
    if "vertical_coordinate" in dataset.attrs or "level" not in dataset.dims or "level" not in truth.dims:
        return False
    ours, theirs = dataset["level"].values, truth["level"].values
    return len(ours) == len(theirs) and bool(np.allclose(ours, theirs))
