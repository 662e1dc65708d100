"""The audit of forecast stores and of the truth over the same times: what each step leaves of every budget."""

import functools
import types
from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from emulator.planet.calendar import TimeStep, lead_seconds, seconds_between, valid_times
from emulator.planet.quantities.registry import quantities
from emulator.store.forecast import in_memory_names
from emulator.store.outflow import PREFIX
from emulator.store.schema import RECORDS, grid_of
from emulator.verify import budgets
from emulator.verify.budgets import Ledger
from emulator.verify.slab import with_slab


def audit(dataset: xr.Dataset, truth: xr.Dataset | None = None) -> xr.Dataset:
    """What an analysis or forecasts hold of dry air, water and energy, and what each step leaves unexplained.

    `truth`: an analysis with the static fields that forecasts lack. Returns, over `(budget, init_time, lead_time)`,
    `budget_total` and `budget_residual` (W m-2 or kg m-2) and `budget_relative` (a share of the total), and what the
    conservation scheme recorded; an analysis is one forecast from its first time on. Of a domain's forecasts that record
    what left by its sides, `budget_closed` and `budget_closed_relative` are the residuals with that. Raises `ValueError`,
    telling what is missing, where no budget can be formed.
    """
    dataset, truth = in_memory_names(dataset), truth if truth is None else in_memory_names(truth)
    told = any(str(name).startswith(PREFIX) for name in dataset.data_vars)
    if not (grid := grid_of(dataset)).is_global() and "depth" not in dataset.dims and not told:
        raise ValueError(
            f"Expected a globe to audit budgets of, got {grid.describe()}, whose borders let an unknown amount through"
        )
    ledger = Ledger(dataset, dataset if truth is None else truth)
    if "init_time" in dataset.dims:
        found = audit_forecast(ledger, dataset, float(dataset.attrs.get("time_step_seconds", 0)))
        written = records({"dataset": dataset})
    else:
        times, step = dataset["time"].values, TimeStep.of(dataset)
        leads = np.concatenate([[0.0], np.cumsum(seconds_between(times))])
        leads = step.leads(range(len(times))) if step.months else np.round(leads * 1e9).astype("timedelta64[ns]")
        found, written = audit_truth(ledger, dataset, times[:1], leads, step.seconds), xr.Dataset()
    if not found.data_vars:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in ledger.skipped.items())
        raise ValueError(f"Expected the variables of a budget, got none ({reasons})")
    combined = combine({"dataset": found}, {"dataset": unaccounted(dataset.attrs)}).isel(audit_source=0, drop=True)
    if written.data_vars:
        combined = combined.merge(written.isel(audit_source=0, drop=True))
    return combined.rename(audit_init_time="init_time", audit_lead_time="lead_time")


def audit_stores(
    truth: xr.Dataset,
    stores: dict[str, xr.Dataset],
    init_time: np.ndarray,
    lead_time: np.ndarray,
    form: budgets.EnergyForm = budgets.HYDROSTATIC,
    done: Callable[[int, str], None] = lambda count, name: None,
    strict: bool = False,
) -> tuple[xr.Dataset, dict[str, dict[str, str]]]:
    """Budgets of every forecast store, and last of the truth along the same valid times, as `combine` describes.

    Of a store those initial times are audited that are in `init_time`; where none is, all, or with `strict` none. Without
    stores the truth is audited along `init_time` and `lead_time`. Also returns what was skipped: source -> budget -> reason.
    """
    step = float(truth.attrs.get("time_step_seconds", 0))
    chosen = {name: _shared_inits(dataset, init_time, strict) for name, dataset in stores.items()}
    chosen = {name: dataset for name, dataset in chosen.items() if dataset.sizes["init_time"]}
    audits, skipped, constant, outflow = {}, {}, {}, {}
    for count, (name, dataset) in enumerate(chosen.items(), start=1):
        ledger = Ledger(dataset, truth, form)
        audits[name] = audit_forecast(ledger, dataset, float(dataset.attrs.get("time_step_seconds", step)))
        skipped[name], constant[name] = ledger.skipped, unaccounted(dataset.attrs)
        outflow = outflow or outflow_of(dataset)
        done(count, f"budgets of {name}")
    if chosen:
        init_time, lead_time = (
            np.unique(np.concatenate([dataset[axis].values for dataset in chosen.values()]))
            for axis in ("init_time", "lead_time")
        )
    ledger = Ledger(truth, truth, form)
    audits["truth"] = audit_truth(ledger, truth, init_time, lead_time, step, outflow)
    skipped["truth"] = ledger.skipped
    constant["truth"] = next((rates for rates in constant.values() if rates), {})
    done(len(chosen) + 1, "budgets of the truth")
    combined = xr.merge([combine(audits, constant), records(chosen)], join="outer")
    if "audit_source" in combined.coords:
        combined = combined.sel(audit_source=[name for name in audits if name in combined["audit_source"].values])
    return combined, skipped


def audit_forecast(ledger: Ledger, dataset: xr.Dataset, step_seconds: float) -> xr.Dataset:
    """Totals and residuals of every forecast of a store: `total_<budget>`, `residual_<budget>` `(init_time, lead_time)`.

    Residuals stand at the lead that ends their step, NaN at lead 0. The stored fluxes are means over the model's step,
    so water and energy need leads that are one such step apart; otherwise they are skipped. Steps of months count with
    their true lengths. Of forecasts with a slab the energy of both is audited too. Of those that record what left their
    domain by its sides, `closed_<budget>` is the residual with that.
    """
    lead = dataset["lead_time"].values
    stepwise = _check_step(ledger, lead, step_seconds)
    seconds = _seconds(dataset["init_time"].values, lead)
    read = [ledger.read({"init_time": i}, "lead_time") for i in range(len(seconds))]
    read = [with_slab(dataset, i, *found) for i, found in enumerate(read)]
    left = {name: series.values for name, series in outflow_of(dataset).items()} if stepwise else {}
    rows = [
        _steps(*found, own, {n: x[i] for n, x in left.items()})
        for i, (found, own) in enumerate(zip(read, seconds, strict=True))
    ]
    return _dataset(rows, dataset["init_time"].values, lead)


def outflow_of(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    """What left a domain by its sides over the steps of forecasts, as they record it: by budget, `(init_time, lead_time)`.

    Of an ensemble, whose members are all given the same, the first one's.
    """
    names = {n.removeprefix(PREFIX): n for n in map(str, dataset.data_vars) if n.startswith(PREFIX)}
    series = {n: dataset[own].isel(member=0, missing_dims="ignore") for n, own in names.items() if n in quantities()}
    return {n: x.transpose("init_time", "lead_time").astype(np.float64).load() for n, x in series.items()}


def audit_truth(
    ledger: Ledger,
    dataset: xr.Dataset,
    init_time: np.ndarray,
    lead_time: np.ndarray,
    step_seconds: float,
    outflow: Mapping[str, xr.DataArray] = types.MappingProxyType({}),
) -> xr.Dataset:
    """As `audit_forecast`, of the truth along the valid times of the given forecasts; NaN where it lacks a time.

    `outflow`: what these forecasts record of what left the domain.
    """
    position = {time: index for index, time in enumerate(dataset["time"].values)}
    where = np.array([[position.get(time, -1) for time in row] for row in valid_times(init_time, lead_time)])
    needed = np.unique(where[where >= 0])
    if not len(needed):
        return xr.Dataset()
    stepwise = _check_step(ledger, lead_time, step_seconds)
    seconds = _seconds(np.asarray(init_time), lead_time)
    total, source = ledger.read({"time": needed}, "time")
    place = np.searchsorted(needed, np.maximum(where, 0))
    given = outflow if stepwise else {}
    left = {n: x.reindex(init_time=init_time, lead_time=lead_time).values for n, x in given.items()}
    rows = []
    for number, (row, there, own) in enumerate(zip(place, where >= 0, seconds, strict=True)):
        along = [
            {name: np.where(there, series[np.minimum(row, len(needed) - 1)], np.nan) for name, series in part.items()}
            for part in (total, source)
        ]
        rows.append(_steps(*along, own, {n: x[number] for n, x in left.items()}))
    return _dataset(rows, init_time, lead_time)


def unaccounted(attributes: Mapping) -> dict[str, float]:
    """The constants that a scheme lets stand, by budget, from a store's attributes.

    Such as `unaccounted_heating`, in W m-2, by the name that a quantity's declaration gives.
    """
    names = {name: f"unaccounted_{quantity.unaccounted}" for name, quantity in quantities().items()}
    return {name: float(attributes[rate]) for name, rate in names.items() if rate in attributes}


def combine(audits: dict[str, xr.Dataset], rates: dict[str, dict[str, float]]) -> xr.Dataset:
    """One dataset of the audits of all sources, over the union of their initial times and leads.

    `rates`: source -> budget -> constant part of the residual that its scheme lets stand (as estimated from the
    training data), a rate in W m-2 or kg m-2 s-1; it is taken out of the relative residual alone. Returns, over
    `(source, budget, audit_init_time, audit_lead_time)`, `budget_total`, `budget_residual` and `budget_relative`; where what
    leaves a domain is known, `budget_closed` and `budget_closed_relative`, the residuals with that.
    """
    filled = {name: audit for name, audit in audits.items() if audit.data_vars}
    if not filled:
        return xr.Dataset()
    declared = quantities()
    names = [name for name in declared if any(f"total_{name}" in audit for audit in filled.values())]
    stacked = {}
    closed = any(str(name).startswith("closed_") for audit in filled.values() for name in audit.data_vars)
    for what in ("total", "residual", *(("closed",) if closed else ())):
        per_source = [
            xr.concat([_or_missing(audit, f"{what}_{budget}") for budget in names], "budget")
            for audit in filled.values()
        ]
        stacked[what] = xr.concat(xr.align(*per_source, join="outer"), "source")
    result = xr.Dataset({f"budget_{what}": array for what, array in stacked.items()})
    result = result.assign_coords(source=list(filled), budget=names)
    lead, init = result["lead_time"].values, result["init_time"].values
    seconds = np.pad(_seconds(init, lead), ((0, 0), (1, 0)), constant_values=np.nan)
    constant = np.array([[rates.get(source, {}).get(budget, 0.0) for budget in names] for source in filled])
    # Per step: residuals of some quantities are rates, those of others are amounts.
    one, step = np.ones_like(seconds), seconds
    scale = _by_lead([step if declared[name].as_rate else one for name in names])
    expected = xr.DataArray(constant, dims=("source", "budget")) * _by_lead([step] * len(names))
    for what, share in (("residual", "relative"), ("closed", "closed_relative")):
        if what in stacked:
            result[f"budget_{share}"] = (result[f"budget_{what}"] * scale - expected) / result["budget_total"]
    result["unaccounted"] = (("source", "budget"), constant)
    result["budget_units"] = ("budget", [budgets.units_of(declared[name]) for name in names])
    result["total_units"] = ("budget", [declared[name].units for name in names])
    result = result.sel(source=list(filled))
    return result.rename(init_time="audit_init_time", lead_time="audit_lead_time", source="audit_source")


def records(datasets: dict[str, xr.Dataset]) -> xr.Dataset:
    """What the conservation schemes recorded in their stores, at every initial time.

    `step_<record>` over `(audit_source, audit_init_time, audit_lead_time)`, the mean over members of the square where there
    are some, float64; and of those `<record>` over `(audit_source, audit_lead_time)`, as `mean_records` says.
    """
    parts = []
    for source, dataset in datasets.items():
        names = [name for name in map(str, dataset.data_vars) if name.startswith(RECORDS)]
        kept = dataset[[name for name in names if {"init_time", "lead_time"} <= set(dataset[name].dims)]]
        kept = kept.drop_dims([d for d in kept.dims if d not in ("init_time", "lead_time", "member")])
        if kept.data_vars:
            square = kept.astype(np.float64) ** 2
            rms = np.sqrt(square.mean("member") if "member" in square.dims else square).drop_vars(
                "member", errors="ignore"
            )
            rms = rms.rename({name: f"step_{name}" for name in rms.data_vars})
            rms = rms.transpose("init_time", "lead_time").rename(
                init_time="audit_init_time", lead_time="audit_lead_time"
            )
            parts.append(rms.expand_dims(audit_source=[source]))
    if not parts:
        return xr.Dataset()
    return mean_records(xr.concat(parts, "audit_source", data_vars="all", join="outer").load())


def mean_records(steps: xr.Dataset) -> xr.Dataset:
    """`steps` with the root mean square over initial times of every `step_<record>` beside it, as `<record>`."""
    named = {str(n): str(n).removeprefix("step_") for n in steps.data_vars if str(n).startswith("step_")}
    return steps.assign({record: np.sqrt((steps[name] ** 2).mean("audit_init_time")) for name, record in named.items()})


def merge_audits(parts: list[xr.Dataset]) -> xr.Dataset:
    """The audits in datasets of scores over different initial times as one."""
    filled = [part for part in parts if "audit_init_time" in part.dims]
    if not filled:
        return xr.Dataset()
    names = list(dict.fromkeys(str(n) for part in filled for n in part.data_vars if "audit_init_time" in part[n].dims))
    order = list(dict.fromkeys(str(s) for part in filled for s in part["audit_source"].values))
    along = [part[[n for n in names if n in part]] for part in filled]
    joined = xr.concat(along, "audit_init_time", data_vars="all", join="outer", coords="minimal", compat="override")
    joined = joined.sel(audit_source=[*(o for o in order if o != "truth"), *(o for o in order if o == "truth")])
    result = mean_records(joined.sortby("audit_init_time"))
    for name in ("unaccounted", "budget_units", "total_units"):
        fixed = [part[name] for part in filled if name in part]
        if fixed:
            result[name] = functools.reduce(xr.DataArray.combine_first, fixed)
    return result


def _shared_inits(dataset: xr.Dataset, init_time: np.ndarray, strict: bool) -> xr.Dataset:
    shared = np.isin(dataset["init_time"].values, init_time)
    return dataset.isel(init_time=np.flatnonzero(shared)) if shared.any() or strict else dataset


def _seconds(init_time: np.ndarray, lead_time: np.ndarray) -> np.ndarray:
    """True seconds between leads, `(init, lead - 1)`."""
    if lead_time.dtype.kind not in "iu":
        return np.broadcast_to(
            np.diff(lead_time) / np.timedelta64(1, "s"), (len(init_time), max(len(lead_time) - 1, 0))
        )
    return np.stack([seconds_between(row) for row in valid_times(init_time, lead_time)])


def _check_step(ledger: Ledger, lead_time: np.ndarray, step_seconds: float) -> bool:
    """Whether leads are one step of the fluxes apart; where they are not, what needs fluxes is skipped."""
    seconds = np.diff(lead_seconds(lead_time))
    if not (stepwise := np.allclose(seconds, step_seconds)):
        reason = f"leads are {seconds.max() / 3600:g} h apart, fluxes are means over {step_seconds / 3600:g} h"
        for name in (name for name, quantity in ledger.declared.items() if quantity.fluxes):
            ledger.skipped.setdefault(name, reason)
    return stepwise


def _by_lead(rows):
    return xr.DataArray(np.stack(rows), dims=("budget", "init_time", "lead_time"))


def _or_missing(audit, name):
    template = next(iter(audit.data_vars.values()))
    return audit[name] if name in audit else xr.full_like(template, np.nan)


def _steps(total, source, seconds, outflow: Mapping[str, np.ndarray]):
    result = {f"total_{name}": amount for name, amount in total.items()}
    for name, residual in budgets.residuals(total, source, seconds).items():
        result[f"residual_{name}"] = np.concatenate([[np.nan], residual])
        if name in outflow:
            left = outflow[name][1:] * (1 if quantities()[name].as_rate else seconds)
            result[f"closed_{name}"] = np.concatenate([[np.nan], residual + left])
    return result


def _dataset(rows, init_time, lead_time):
    dims = ("init_time", "lead_time")
    data = {name: (dims, np.stack([row[name] for row in rows])) for name in rows[0]}
    return xr.Dataset(data, {"init_time": init_time, "lead_time": lead_time})
