"""Budgets of a sea, audited in float64 from what a store holds: contents of the water, and what enters by its surface.

As `emulator.verify.budgets` for air. With thickness h_k, density rho, content x and the mean <.> over the sea's surface the
total is `<rho sum_k x_k h_k>`. Fluxes that were prescribed are not among a forecast's fields: they are the truth's, at the
times that end its steps.
"""

import numpy as np
import xarray as xr

from emulator.planet.calendar import valid_times
from emulator.planet.constants import Constants
from emulator.planet.quantities.registry import Columns, Quantity
from emulator.store.masks import domain_of, is_closed, mask_is_known
from emulator.store.schema import grid_of
from emulator.verify.channels import values

BOUNDS = "depth_bounds"
TIMES = 64  # read at a time


class SeaLedger:
    """Reads what budgets of a sea need from one store and reduces it to means over the surface; as `budgets.Ledger`.

    Attributes:
      skipped: budgets that cannot be audited, with the reason.
    """

    def __init__(self, dataset: xr.Dataset, truth: xr.Dataset, constants: Constants, declared: dict[str, Quantity]):
        self._dataset, self._truth, self._constants = dataset, truth, constants
        self._grid, self._along = grid_of(dataset), "lead_time" if "lead_time" in dataset.dims else "time"
        bounds = next((store[BOUNDS] for store in (dataset, truth) if BOUNDS in store), None)
        own, given = _moving(dataset, truth, self._along), _moving(truth, truth, "time")
        self._from_truth = given - own if self._along == "lead_time" else set()
        self._parts: dict[str, tuple[Quantity, np.ndarray]] = {}
        self.skipped: dict[str, str] = {}
        for name, quantity in declared.items():
            fluxes = set(quantity.fluxes) - own - self._from_truth
            if bounds is None:
                self.skipped[name] = f"no column: no {BOUNDS}"
            elif absent := [*(field for field in quantity.state if field not in own), *sorted(fluxes)]:
                self.skipped[name] = f"missing {', '.join(absent)}"
            elif (wet := self._wet(quantity)) is None:
                self.skipped[name] = "the sides of the sea are open"
            else:
                edges = np.asarray(bounds.values, np.float64)
                mass = constants.sea_water_density * np.abs(edges[:, 1] - edges[:, 0])
                self._parts[name] = quantity, mass.reshape(-1, *[1] * len(self._grid.shape)) * wet

    def _wet(self, quantity: Quantity) -> np.ndarray | None:
        """Where there is water, `(level, *space)`; None of a sea with open sides."""
        where = domain_of(self._dataset, quantity.state[0], self._truth)
        wet = np.ones((self._dataset.sizes["depth"], *self._grid.shape), bool) if where is None else where
        return wet if is_closed(self._dataset, self._grid, wet, self._truth) else None

    def read(self, selection: dict, axis: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Totals and sources, `(time or lead,)` each, as `budgets.Ledger.read`."""
        totals, sources = {}, {}
        for name, (quantity, layer) in self._parts.items():
            area = np.where(layer[0] > 0, self._grid.area, 0.0) / np.sum(self._grid.area, where=layer[0] > 0)
            totals[name] = np.concatenate(list(self._totals(quantity, layer, area, selection, axis)))
            fluxes = {flux: self._mean_flux(flux, area, selection, axis) for flux in quantity.fluxes}
            sources[name] = quantity.gained(fluxes, self._constants)
        return totals, sources

    def _totals(self, quantity: Quantity, layer: np.ndarray, area: np.ndarray, selection: dict, axis: str):
        picked = self._dataset[list(quantity.state)].isel(selection | {"member": 0}, missing_dims="ignore")
        for start in range(0, picked.sizes[axis], TIMES):
            piece = picked.isel({axis: slice(start, start + TIMES)})
            fields = {str(n): _values(array, axis, "depth", *self._grid.dims) for n, array in piece.data_vars.items()}
            content = np.where(layer > 0, quantity.content(fields, self._constants), 0.0)
            columns = Columns(fields, layer, None, self._constants, None).integral(content, len(self._grid.shape))
            yield (columns * area).reshape(len(columns), -1).sum(-1)

    def _mean_flux(self, name: str, area: np.ndarray, selection: dict, axis: str) -> np.ndarray:
        """Mean of a flux over the surface; NaN at times that the truth lacks."""
        known = None
        if name in self._from_truth:
            times = self._dataset["init_time"].values[selection["init_time"]], self._dataset["lead_time"].values
            found = self._truth.indexes["time"].get_indexer(valid_times(np.atleast_1d(times[0]), times[1])[0])
            known, array = found >= 0, self._truth[name].isel(time=np.maximum(found, 0))
            field = _values(array, "time", *self._grid.dims)
        else:
            array = self._dataset[name].isel(selection | {"member": 0}, missing_dims="ignore")
            field = _values(array, axis, *self._grid.dims)
        mean = (np.where(area > 0, field, 0.0) * area).reshape(len(field), -1).sum(-1)
        return mean if known is None else np.where(known, mean, np.nan)


def _moving(dataset: xr.Dataset, truth: xr.Dataset, along: str) -> set[str]:
    """Fields with times whose masks are known."""
    names = {str(name) for name, array in dataset.data_vars.items() if along in array.dims}
    return {name for name in names if mask_is_known(dataset, name, truth)}


def _values(array: xr.DataArray, *dims: str) -> np.ndarray:
    return values(array.transpose(*dims)).astype(np.float64)
