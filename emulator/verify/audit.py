"""The audit of a forecast store and of the truth over the same times: what each step leaves of every budget."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from emulator.constants import Constants
from emulator.grid import Grid
from emulator.verify import budgets
from emulator.verify.align import valid_times
from emulator.verify.fields import values
from emulator.vertical import Levels

BLOCK_BYTES = 2**27


class Ledger:
    """Reads the variables of the budgets from one store and reduces them to global means.

    `skipped` names the budgets that cannot be audited, with the reason.
    """

    def __init__(
        self, dataset: xr.Dataset, static: xr.Dataset, levels: Levels | None, grid: Grid, constants: Constants
    ):
        self._levels, self._grid, self._constants = levels, grid, constants
        self._dataset = dataset
        along = "lead_time" if "lead_time" in dataset.dims else "time"
        self.skipped = {}
        for budget in budgets.BUDGETS:
            held = {name for name in budgets.needed(budget) if _usable(name, dataset, static, along)}
            if levels is None or not grid.is_global():
                self.skipped[budget] = (
                    "no column: no levels" if levels is None else "the grid does not cover the sphere"
                )
            elif absent := [name for name in budgets.needed(budget) if name not in held]:
                self.skipped[budget] = f"missing {', '.join(absent)}"
        wanted = {name for budget in budgets.BUDGETS if budget not in self.skipped for name in budgets.needed(budget)}
        wanted |= {name for name in budgets.OPTIONAL if wanted and name in dataset and along in dataset[name].dims}
        self._static = {
            name: values(source[name].transpose(*grid.dims)).astype(np.float64)
            for name in ("geopotential_at_surface",)
            if name in wanted
            for source in (static if name in static else dataset,)
        }
        self._names = sorted(wanted - set(self._static))

    def read(self, selection: dict, axis: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Totals and sources, `(time or lead,)` each, at `selection` (by position); the first member of an ensemble."""
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
                    budgets.totals(fields, self._levels, self._grid, self._constants) if self._levels else {},
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


def audit_forecast(ledger: Ledger, dataset: xr.Dataset, step_seconds: float) -> xr.Dataset:
    """Totals and residuals of every forecast of a store: `total_<budget>`, `residual_<budget>` `(init_time, lead_time)`.

    Residuals stand at the lead that ends their step, NaN at lead 0. The stored fluxes are means over the model's step,
    so water and energy need leads that are one such step apart; otherwise they are skipped.
    """
    lead = dataset["lead_time"].values
    seconds = np.diff(lead) / np.timedelta64(1, "s")
    if not np.allclose(seconds, step_seconds):
        for budget in ("water", "energy"):
            ledger.skipped.setdefault(
                budget, f"leads {seconds.min() / 3600:g} h apart, fluxes are means over {step_seconds / 3600:g} h"
            )
    rows = [
        _steps(*ledger.read({"init_time": index}, "lead_time"), seconds) for index in range(dataset.sizes["init_time"])
    ]
    return _dataset(rows, dataset["init_time"].values, lead)


def audit_truth(ledger: Ledger, dataset: xr.Dataset, init_time: np.ndarray, lead_time: np.ndarray) -> xr.Dataset:
    """As `audit_forecast`, of the truth along the valid times of the given forecasts; NaN where it lacks a time."""
    position = {time: index for index, time in enumerate(dataset["time"].values)}
    where = np.array([[position.get(time, -1) for time in row] for row in valid_times(init_time, lead_time)])
    needed = np.unique(where[where >= 0])
    if not len(needed):
        return xr.Dataset()
    total, source = ledger.read({"time": needed}, "time")
    seconds = np.diff(lead_time) / np.timedelta64(1, "s")
    place = np.searchsorted(needed, np.maximum(where, 0))
    rows = []
    for row, found in zip(place, where >= 0, strict=True):
        along = [
            {name: np.where(found, series[np.minimum(row, len(needed) - 1)], np.nan) for name, series in part.items()}
            for part in (total, source)
        ]
        rows.append(_steps(*along, seconds))
    return _dataset(rows, init_time, lead_time)


def unaccounted(attributes: Mapping) -> dict[str, float]:
    """The constants that a scheme lets stand, by budget, from a store's attributes.

    `unaccounted_heating` in W m-2; `unaccounted_moistening` in kg m-2 s-1, per second here as there.
    """
    names = {"energy": "unaccounted_heating", "water": "unaccounted_moistening"}
    return {budget: float(attributes[name]) for budget, name in names.items() if name in attributes}


def combine(audits: dict[str, xr.Dataset], unaccounted: dict[str, dict[str, float]]) -> xr.Dataset:
    """One dataset of the audits of all sources, over the union of their initial times and leads.

    `unaccounted`: source -> budget -> constant part of the residual that its scheme lets stand (as estimated from the
    training data), a rate in W m-2 or kg m-2 s-1; it is taken out of the relative residual alone. Returns, over
    `(source, budget, audit_init_time, audit_lead_time)`, `budget_total`, `budget_residual` and `budget_relative`.
    """
    held = {name: audit for name, audit in audits.items() if audit.data_vars}
    if not held:
        return xr.Dataset()
    names = [budget for budget in budgets.BUDGETS if any(f"total_{budget}" in audit for audit in held.values())]
    stacked = {}
    for what in ("total", "residual"):
        per_source = [
            xr.concat([_or_missing(audit, f"{what}_{budget}") for budget in names], "budget") for audit in held.values()
        ]
        stacked[what] = xr.concat(xr.align(*per_source, join="outer"), "source")
    result = xr.Dataset({f"budget_{what}": array for what, array in stacked.items()})
    result = result.assign_coords(source=list(held), budget=names)
    lead = result["lead_time"].values
    seconds = np.concatenate([[np.nan], np.diff(lead) / np.timedelta64(1, "s")])
    constant = np.array([[unaccounted.get(source, {}).get(budget, 0.0) for budget in names] for source in held])
    # Per step: energy residuals are rates, those of water are amounts.
    one, step = np.ones_like(seconds), seconds
    scale = _by_lead([step if budget == "energy" else one for budget in names])
    expected = xr.DataArray(constant, dims=("source", "budget")) * _by_lead([step] * len(names))
    result["budget_relative"] = (result["budget_residual"] * scale - expected) / result["budget_total"]
    result["unaccounted"] = (("source", "budget"), constant)
    result["budget_units"] = ("budget", [budgets.UNITS[name] for name in names])
    result["total_units"] = ("budget", [budgets.TOTAL_UNITS[name] for name in names])
    result = result.sel(source=list(held))
    return result.rename(init_time="audit_init_time", lead_time="audit_lead_time", source="audit_source")


def records(datasets: dict[str, xr.Dataset]) -> xr.Dataset:
    """What the conservation schemes recorded in their stores, `(init_time, lead_time)`, averaged over initial times.

    `<record>` over `(audit_source, audit_lead_time)`: root mean square of corrections and of relative residuals.
    """
    parts = []
    for source, dataset in datasets.items():
        names = [name for name in map(str, dataset.data_vars) if name.startswith(("correction_rms_", "residual_"))]
        kept = dataset[[name for name in names if set(dataset[name].dims) == {"init_time", "lead_time"}]]
        if kept.data_vars:
            rms = np.sqrt((kept.astype(np.float64) ** 2).mean("init_time"))
            for name in rms.data_vars:
                rms[name].attrs = kept[name].attrs
            parts.append(rms.expand_dims(audit_source=[source]).rename(lead_time="audit_lead_time"))
    return xr.concat(parts, "audit_source", data_vars="all", join="outer") if parts else xr.Dataset()


def _by_lead(rows):
    return xr.DataArray(np.stack(rows), dims=("budget", "lead_time"))


def _or_missing(audit, name):
    template = next(iter(audit.data_vars.values()))
    return audit[name] if name in audit else xr.full_like(template, np.nan)


def _steps(total, source, seconds):
    result = {f"total_{name}": amount for name, amount in total.items()}
    for name, residual in budgets.residuals(total, source, seconds).items():
        result[f"residual_{name}"] = np.concatenate([[np.nan], residual])
    return result


def _dataset(rows, init_time, lead_time):
    dims = ("init_time", "lead_time")
    data = {name: (dims, np.stack([row[name] for row in rows])) for name in rows[0]}
    return xr.Dataset(data, {"init_time": init_time, "lead_time": lead_time})


def _usable(name, dataset, static, along):
    if name == "geopotential_at_surface":
        return name in static or (name in dataset and along not in dataset[name].dims)
    return name in dataset and along in dataset[name].dims


def _ordered(array, axis, grid):
    order = [axis, *(["level"] if "level" in array.dims else []), *grid.dims]
    return values(array.transpose(*order)).astype(np.float64)
