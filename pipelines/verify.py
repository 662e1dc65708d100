"""Verify: forecast stores and a truth store to one file of scores."""

import json
import logging

import dask
import numpy as np
import xarray as xr

from emulator.store import grid_of, levels_of, open_analysis, open_forecast
from emulator.verify import climatology
from emulator.verify.align import Alignment, align, check_grids
from emulator.verify.assemble import assemble
from emulator.verify.audit import audit_stores
from emulator.verify.budgets import EnergyForm
from emulator.verify.cases import case_maps
from emulator.verify.channels import scored
from emulator.verify.files import write_scores
from emulator.verify.regions import DEFAULT_REGIONS, region_weights
from emulator.verify.score import score_variables, setting
from emulator.verify.spectra import spectrum_kind
from emulator.verify.wind import wind_vectors
from pipelines.config import VerifyConfig
from pipelines.progress import progress
from pipelines.run import provenance

log = logging.getLogger(__name__)
PERSISTENCE_DAYS = 10
PROVENANCE = ("source", "checkpoint", "conservation", "fingerprint", "training_period", "title", "history")


def verify(config: VerifyConfig) -> None:
    """Score the forecasts and audit their budgets. Raises `ValueError` in one sentence; nothing half-written stays."""
    truth = open_analysis(config.truth)
    forecasts = {name: open_forecast(path) for name, path in config.forecasts.items()}
    audited = forecasts | {name: open_forecast(path) for name, path in config.audit.items()}
    grid = check_grids({"the truth": grid_of(truth)} | {name: grid_of(dataset) for name, dataset in audited.items()})
    column = levels_of(truth)
    variables, skipped = scored(truth, forecasts, grid, column, config.variables, config.levels)
    alignment = _alignment(truth, forecasts, config)
    plan, overlap = _climatology(truth, alignment, config)
    regions = config.regions or (DEFAULT_REGIONS if grid.is_global() else DEFAULT_REGIONS[:1])
    mask = truth["land_sea_mask"].values if "land_sea_mask" in truth else None
    shared = setting(grid, region_weights(grid, regions, mask), alignment)
    with _scheduler(config), progress("verify", len(variables) + len(audited) + 1) as report:
        results = score_variables(variables, plan, shared, report)
        results += wind_vectors(results)
        members = [dataset.sizes.get("member", 1) for dataset in forecasts.values()]
        members.append(truth.sizes.get("member", 1))  # persistence
        scores = assemble(results, shared, list(forecasts), list(regions), members)
        budgets, unaudited = audit_stores(
            truth,
            audited,
            alignment.init_time,
            alignment.lead_time,
            EnergyForm(config.energy, config.heat_capacity, config.kinetic),
            lambda count, name: report(len(variables) + count, name),
        )
    parts = [scores, _series(truth, results, plan), case_maps(results, shared, list(forecasts)), budgets]
    scores = xr.merge(parts, compat="no_conflicts", join="outer", combine_attrs="drop")
    if mask is not None:
        scores["land_sea_mask"] = (grid.dims, mask.astype(np.float32))
    scores.attrs = _attributes(config, truth, audited, alignment, plan)
    scores.attrs |= {
        "grid": grid.describe(),
        "not_scored": json.dumps(skipped),
        "budgets_skipped": json.dumps(unaudited),
        "climatology_overlap": int(overlap),
    }
    write_scores(scores, config.output)
    log.info("%s: %d channels, %d initial times", config.output, scores.sizes["channel"], len(alignment.init_time))


def _alignment(truth: xr.Dataset, forecasts: dict, config: VerifyConfig) -> Alignment:
    times = {name: (dataset["init_time"].values, dataset["lead_time"].values) for name, dataset in forecasts.items()}
    if not times:
        times = {"persistence": (truth["time"].values, _persistence_leads(truth, config))}
    return align(_present(truth), times, config.period.start, config.period.end)


def _present(truth: xr.Dataset) -> dict:
    """Time -> position, of the times that the truth has."""
    missing = truth["missing"].values if "missing" in truth else np.zeros(truth.sizes["time"], bool)
    return {time: index for index, time in enumerate(truth["time"].values) if not missing[index]}


def _persistence_leads(truth: xr.Dataset, config: VerifyConfig) -> np.ndarray:
    hours = config.persistence_lead_hours
    if not hours:
        step = float(truth.attrs.get("time_step_seconds", 0)) / 3600
        if truth.sizes["time"] < 2 or not step:
            raise ValueError(
                f"Expected at least 2 times in {config.truth} to score persistence, got {truth.sizes['time']}"
            )
        count = min(truth.sizes["time"] - 1, int(PERSISTENCE_DAYS * 24 / step))
        hours = step * np.arange(1, count + 1)
    return np.round(np.asarray(hours, np.float64) * 3.6e12).astype("timedelta64[ns]")


def _climatology(truth: xr.Dataset, alignment: Alignment, config: VerifyConfig) -> tuple[climatology.Recipe, bool]:
    """The climatology's recipe, and whether its record holds times that are verified."""
    held = np.array(sorted(_present(truth).values()))
    chosen = climatology.record(
        truth["time"].values[held], alignment.init_time[0], config.climatology.start, config.climatology.end
    )
    plan = climatology.recipe(truth["time"], held[chosen])
    verified = np.unique(alignment.truth_valid[alignment.truth_valid >= 0])
    return plan, bool(len(np.intersect1d(plan.positions, verified)))


def _series(truth, results, plan) -> xr.Dataset:
    """Global means of every channel over the climatology's record."""
    series = np.concatenate([result.series for result in results], axis=1)
    return xr.Dataset(
        {"record_mean": (("record_time", "channel"), series)}, {"record_time": truth["time"].values[plan.positions]}
    )


def _attributes(config, truth, audited, alignment, plan) -> dict:
    stores = {name: {k: str(d.attrs[k]) for k in PROVENANCE if k in d.attrs} for name, d in audited.items()}
    stores["truth"] = {k: str(truth.attrs[k]) for k in PROVENANCE if k in truth.attrs}
    valid = [
        str(truth["time"].values[i])
        for i in (alignment.truth_valid[alignment.truth_valid >= 0].min(), alignment.truth_valid.max())
    ]
    return {
        "config": config.model_dump_json(),
        "run": json.dumps(provenance()),
        "provenance": json.dumps(stores),
        "climatology": plan.describe(),
        "climatology_kind": plan.kind,
        "climatology_period": f"{truth['time'].values[plan.positions[0]]} to {truth['time'].values[plan.positions[-1]]}",
        "dropped_inits": json.dumps(alignment.dropped_inits),
        "dropped_leads": json.dumps(alignment.dropped_leads),
        "missing_truth": alignment.missing_truth,
        "valid_period": " to ".join(valid),
        "time_step_seconds": float(truth.attrs.get("time_step_seconds", 0)),
        "rmse_convention": "root after the mean over initial times",
        "spectrum_kind": spectrum_kind(grid_of(truth)) or "none",
        "acc_convention": "WeatherBench 2: ratio per initial time, then mean; anomalies not centred",
    }


def _scheduler(config: VerifyConfig):
    """Dask's scheduler for the work inside: threads here, local processes, or the cluster at an address."""
    if config.dask.address or config.dask.workers:
        from dask.distributed import Client

        if config.dask.address:
            return Client(config.dask.address)
        return Client(
            n_workers=config.dask.workers,
            threads_per_worker=config.dask.threads,
            memory_limit=config.dask.memory or "auto",
        )
    return dask.config.set(scheduler="threads", num_workers=config.dask.threads)
