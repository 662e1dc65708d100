"""One store's variables of the budgets, reduced to global means."""

import numpy as np
import xarray as xr

from emulator.store.schema import constants_of, grid_of, levels_of
from emulator.verify import budgets
from emulator.verify.fields import values

BLOCK_BYTES = 2**27


class Ledger:
    """Reads the variables of the budgets from one store and reduces them to global means.

    `skipped` names the budgets that cannot be audited, with the reason.
    """

    def __init__(self, dataset: xr.Dataset, truth: xr.Dataset, form: budgets.EnergyForm = budgets.HYDROSTATIC):
        """`truth` gives what `dataset` does not hold: static fields, constants, interface coefficients of equal levels."""
        self._dataset, self._form, self._grid = dataset, form, grid_of(dataset)
        self._levels = levels = levels_of(truth if _borrows_levels(dataset, truth) else dataset)
        self._constants = constants_of(dataset if "constants" in dataset.attrs else truth)
        grid, static = self._grid, truth
        self.skipped: dict[str, str] = {}
        along = "lead_time" if "lead_time" in dataset.dims else "time"
        declared = budgets.audited()
        for name, quantity in declared.items():
            if levels is None or not grid.is_global():
                self.skipped[name] = "no column: no levels" if levels is None else "the grid does not cover the sphere"
            elif absent := [field for field in quantity.needed if not _usable(field, dataset, static, along)]:
                self.skipped[name] = f"missing {', '.join(absent)}"
        wanted = {field for name, q in declared.items() if name not in self.skipped for field in q.needed}
        optional = {field for q in declared.values() for field in (*q.optional, *q.optional_fluxes)}
        wanted |= {name for name in optional if wanted and name in dataset and along in dataset[name].dims}
        self._static = {
            name: values(source[name].transpose(*grid.dims)).astype(np.float64)
            for name in ("geopotential_at_surface",)
            if name in wanted
            for source in (static if name in static else dataset,)
        }
        self._names = sorted(wanted - set(self._static))

    def read(self, selection: dict, axis: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Totals and sources, `(time or lead,)` each, at `selection` (by position); the first member of an ensemble."""
        if not self._names:
            return {}, {}
        picked = self._dataset[self._names].isel(selection)
        if "member" in picked.dims:
            picked = picked.isel(member=0)
        count = picked.sizes[axis]
        size = int(np.prod(self._grid.shape)) * 8 * max(len(self._names), 1) * (len(self._levels or ()) or 1)
        block = max(1, BLOCK_BYTES // size)
        parts = []
        for start in range(0, count, block):
            piece = picked.isel({axis: slice(start, start + block)})
            fields = {name: _ordered(piece[name], axis, self._grid) for name in self._names} | self._static
            parts.append(
                (
                    budgets.totals(fields, self._levels, self._grid, self._constants, self._form)
                    if self._levels
                    else {},
                    budgets.sources(fields, self._grid, self._constants),
                )
            )
        return tuple(
            {
                name: np.concatenate([part[index][name] for part in parts])
                for name in parts[0][index]
                if self._known(name)
            }
            for index in (0, 1)
        )

    def _known(self, budget):
        return budget not in self.skipped


def _usable(name, dataset, static, along):
    if name == "geopotential_at_surface":
        return name in static or (name in dataset and along not in dataset[name].dims)
    return name in dataset and along in dataset[name].dims


def _ordered(array, axis, grid):
    order = [axis, *(["level"] if "level" in array.dims else []), *grid.dims]
    return values(array.transpose(*order)).astype(np.float64)


def _borrows_levels(dataset, truth) -> bool:
    """Whether a store of another tool, which does not say what its levels are, has those of the truth."""
    if "vertical_coordinate" in dataset.attrs or "level" not in dataset.dims or "level" not in truth.dims:
        return False
    ours, theirs = dataset["level"].values, truth["level"].values
    return len(ours) == len(theirs) and bool(np.allclose(ours, theirs))
