"""What a verification works on: stores opened and checked against each other, aligned in time, with a climatology."""

import dataclasses
import json

import numpy as np
import xarray as xr

from emulator.grid import Grid
from emulator.store import grid_of, levels_of, open_analysis, open_forecast
from emulator.verify import climatology
from emulator.verify.align import Alignment, align, check_calendars, check_grids
from emulator.verify.channels import ScoredVariable, scored
from emulator.verify.regions import DEFAULT_REGIONS
from emulator.verify.spectra import spectrum_kind
from pipelines.config import VerifyConfig
from pipelines.run import provenance

PERSISTENCE_DAYS = 10
PROVENANCE = ("source", "checkpoint", "conservation", "fingerprint", "training_period", "title", "history", "ensemble")


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """Stores under in-memory names, and what they share.

    Attributes:
      truth: analysis; forecasts: name -> forecast to score; audited: those and more whose budgets are audited.
      mask: land-sea mask `grid.shape` or None; regions: names.
      variables: what is scored; skipped: variable -> why it is not.
      alignment: all initial times and leads; plan: the climatology's recipe.
      overlap: whether the climatology's record holds verified times.
      sample: JSON of what has to be equal for scores to be added up.
    """

    truth: xr.Dataset
    forecasts: dict[str, xr.Dataset]
    audited: dict[str, xr.Dataset]
    grid: Grid
    mask: np.ndarray | None
    regions: tuple[str, ...]
    variables: list[ScoredVariable]
    skipped: dict[str, str]
    alignment: Alignment
    plan: climatology.Recipe
    overlap: bool
    sample: str = ""


def open_inputs(config: VerifyConfig) -> Inputs:
    """Opens and checks everything. Raises `ValueError` in one sentence that names what differs."""
    truth = open_analysis(config.truth)
    forecasts = {name: open_forecast(path) for name, path in config.forecasts.items()}
    audited = forecasts | {name: open_forecast(path) for name, path in config.audit.items()}
    grid = check_grids({"the truth": grid_of(truth)} | {name: grid_of(dataset) for name, dataset in audited.items()})
    check_calendars({"the truth": truth["time"].values} | {n: d["init_time"].values for n, d in forecasts.items()})
    variables, skipped = scored(truth, forecasts, grid, levels_of(truth), config.variables, config.levels)
    alignment = _alignment(truth, forecasts, config)
    plan, overlap = _climatology(truth, alignment, config)
    regions = config.regions or (DEFAULT_REGIONS if grid.is_global() else DEFAULT_REGIONS[:1])
    mask = truth["land_sea_mask"].values if "land_sea_mask" in truth else None
    inputs = Inputs(truth, forecasts, audited, grid, mask, tuple(regions), variables, skipped, alignment, plan, overlap)
    return dataclasses.replace(inputs, sample=_sample(config, inputs))


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


def _sample(config: VerifyConfig, inputs: Inputs) -> str:
    truth, forecasts = inputs.truth, inputs.forecasts
    content = {
        "grid": inputs.grid.describe(),
        "truth": str(truth.attrs.get("fingerprint") or config.truth),
        "climatology": f"{inputs.plan.describe()} from {_period(truth, inputs.plan)}",
        "energy": [config.energy, config.heat_capacity, config.kinetic],
        "models": {name: str(d.attrs.get("checkpoint", "")) for name, d in forecasts.items()},
        "members": {name: d.sizes.get("member", 1) for name, d in forecasts.items()},
    }
    return json.dumps(content)


def _period(truth, plan) -> str:
    return f"{truth['time'].values[plan.positions[0]]} to {truth['time'].values[plan.positions[-1]]}"


def attributes(config: VerifyConfig, inputs: Inputs, alignment: Alignment, unaudited: dict) -> dict:
    """Attributes of the scores of the initial times of `alignment`."""
    truth, plan = inputs.truth, inputs.plan
    stores = {name: {k: str(d.attrs[k]) for k in PROVENANCE if k in d.attrs} for name, d in inputs.audited.items()}
    stores["truth"] = {k: str(truth.attrs[k]) for k in PROVENANCE if k in truth.attrs}
    held = alignment.truth_valid[alignment.truth_valid >= 0]
    return {
        "config": config.model_dump_json(),
        "run": json.dumps(provenance()),
        "provenance": json.dumps(stores),
        "sample": inputs.sample,
        "climatology": plan.describe(),
        "climatology_kind": plan.kind,
        "climatology_period": _period(truth, plan),
        "climatology_overlap": int(inputs.overlap),
        "dropped_inits": json.dumps(alignment.dropped_inits),
        "dropped_leads": json.dumps(alignment.dropped_leads),
        "missing_truth": alignment.missing_truth,
        "valid_period": " to ".join(str(truth["time"].values[i]) for i in (held.min(), held.max())),
        "time_step_seconds": float(truth.attrs.get("time_step_seconds", 0)),
        "rmse_convention": "root after the mean over initial times",
        "spectrum_kind": spectrum_kind(inputs.grid) or "none",
        "acc_convention": "WeatherBench 2: ratio per initial time, then mean; anomalies not centred",
        "grid": inputs.grid.describe(),
        "not_scored": json.dumps(inputs.skipped),
        "budgets_skipped": json.dumps(unaudited),
    }
