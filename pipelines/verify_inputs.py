"""What a verification works on: stores opened and checked against each other, aligned in time, with a climatology."""

import dataclasses
import json
import logging

import numpy as np
import xarray as xr

from emulator.planet.grid import Grid
from emulator.planet.regions import DEFAULT_REGIONS, region_weights
from emulator.sources.foreign import open_any_forecast, open_truth
from emulator.store.schema import grid_of, levels_of
from emulator.verify import climatology
from emulator.verify.align import Alignment, align, check_calendars, check_grids
from emulator.verify.at_points import at_points
from emulator.verify.channels import ScoredVariable, scored
from emulator.verify.spectra import spectrum_kind
from emulator.verify.stations import is_table, open_observations, open_station_forecast, station_weights
from emulator.verify.written import empty_inits
from pipelines.config import VerifyConfig
from pipelines.run import provenance

PERSISTENCE_DAYS = 10
log = logging.getLogger(__name__)
PROVENANCE = (
    "source",
    "checkpoint",
    "conservation",
    "prescribed",
    "fingerprint",
    "training_period",
    "title",
    "history",
    "ensemble",
    "height_correction",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """Stores under in-memory names, and what they share.

    Attributes:
      truth: analysis; forecasts: name -> forecast to score; audited: those and more whose budgets are audited.
      mask: land-sea mask `grid.shape` or None; regions: names; weights: `(region, *grid.shape)`.
      variables: what is scored; skipped: variable -> why it is not.
      alignment: all initial times and leads; plan: the climatology's recipe.
      overlap: whether the climatology's record holds verified times.
      long_runs: name -> long run whose climate is scored.
      empty: forecast -> how many initial times it has without any value, which are left out for all.
      sample: JSON of what has to be equal for scores to be added up.
    """

    truth: xr.Dataset
    forecasts: dict[str, xr.Dataset]
    audited: dict[str, xr.Dataset]
    grid: Grid
    mask: np.ndarray | None
    regions: tuple[str, ...]
    weights: np.ndarray
    variables: list[ScoredVariable]
    skipped: dict[str, str]
    alignment: Alignment
    plan: climatology.Recipe
    overlap: bool
    sample: str = ""
    long_runs: dict[str, xr.Dataset] = dataclasses.field(default_factory=dict)
    empty: dict[str, int] = dataclasses.field(default_factory=dict)


def open_inputs(config: VerifyConfig) -> Inputs:
    """Opens and checks everything. Raises `ValueError` in one sentence that names what differs."""
    if config.observations is not None:
        truth, forecasts = _at_stations(config)
        audited, long_runs = {}, {}
    else:
        truth = open_truth(config.truth)
        forecasts = {name: open_any_forecast(path) for name, path in config.forecasts.items()}
        audited = forecasts | {name: open_any_forecast(path) for name, path in config.audit.items()}
        long_runs = {name: open_any_forecast(path) for name, path in config.long_runs.items()}
    grid = check_grids(
        {"the truth": grid_of(truth)} | {n: grid_of(d) for n, d in (forecasts | audited | long_runs).items()}
    )
    check_calendars({"the truth": truth["time"].values} | {n: d["init_time"].values for n, d in forecasts.items()})
    variables, skipped = scored(truth, forecasts, grid, levels_of(truth), config.variables, config.levels)
    alignment, empty = _without_empty(_alignment(truth, forecasts, config), variables, forecasts)
    plan, overlap = _climatology(truth, alignment, config)
    mask = truth["land_sea_mask"].values if "land_sea_mask" in truth else None
    if config.observations is not None:
        regions, weights = station_weights(truth["station"].values)
    else:
        regions = config.regions or (DEFAULT_REGIONS if grid.is_global() else DEFAULT_REGIONS[:1])
        weights = region_weights(grid, regions, mask)
    inputs = Inputs(
        truth, forecasts, audited, grid, mask, tuple(regions), weights, variables, skipped, alignment, plan, overlap
    )
    inputs = dataclasses.replace(inputs, long_runs=long_runs, empty=empty)
    return dataclasses.replace(inputs, sample=_sample(config, inputs))


def _at_stations(config: VerifyConfig) -> tuple[xr.Dataset, dict[str, xr.Dataset]]:
    """Observations, and the forecasts at the stations that they and every table of station forecasts have."""
    options = config.observations
    truth = open_observations(options.path, options.tolerance_minutes, options.quality, options.stations)
    tables = {name: open_station_forecast(path) for name, path in config.forecasts.items() if is_table(path)}
    shared = [s for s in truth["station"].values if all(s in t["station"].values for t in tables.values())]
    if not shared:
        raise ValueError(f"Expected a station that {options.path} and all forecasts have, got none")
    truth = _only(truth, shared)
    forecasts = {}
    for name, path in config.forecasts.items():
        if name in tables:
            found = _only(tables[name], shared)
            forecasts[name] = found.assign_coords({n: truth[n].variable for n in ("latitude", "longitude")})
        else:
            forecasts[name] = at_points(open_any_forecast(path), truth, options.method, options.lapse_rate)
    return truth, forecasts


def _only(dataset: xr.Dataset, stations: list[str]) -> xr.Dataset:
    names = list(dataset["station"].values)
    dataset = dataset.isel(cell=[names.index(s) for s in stations])
    return dataset.assign(cell_area=("cell", np.full(len(stations), 1 / len(stations))))


def _alignment(truth: xr.Dataset, forecasts: dict, config: VerifyConfig) -> Alignment:
    times = {name: (dataset["init_time"].values, dataset["lead_time"].values) for name, dataset in forecasts.items()}
    if not times:
        times = {"persistence": (truth["time"].values, _persistence_leads(truth, config))}
    return align(_present(truth), times, config.period.start, config.period.end)


def _without_empty(alignment: Alignment, variables, forecasts: dict) -> tuple[Alignment, dict[str, int]]:
    """The alignment without the initial times at which a forecast holds nothing, and how many of those each has.

    Stores of ours are finished: every initial time of theirs is written. Raises `ValueError` when none is left.
    """
    marks = {
        name: empty_inits(variables, name, alignment.init_time)
        for name, dataset in forecasts.items()
        if "emulator_schema" not in dataset.attrs
    }
    left = np.flatnonzero(~np.any([np.zeros(len(alignment.init_time), bool), *marks.values()], axis=0))
    if not len(left):
        raise ValueError(f"Expected values in the forecasts, got none at any initial time of {', '.join(marks)}")
    return alignment.at(left), {name: int(empty.sum()) for name, empty in marks.items() if empty.any()}


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
                f"Expected at least 2 times in {_path(config)} to score persistence, got {truth.sizes['time']}"
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
    overlap = bool(len(np.intersect1d(plan.positions, verified)))
    if overlap and config.climatology.start is None and config.climatology.end is None:
        log.warning(
            "the truth has less than %d days before the first initial time %s: the climatology is made from all of it, "
            "verified times included, which favours it; give a period under climatology",
            climatology.SHORTEST_DAYS,
            alignment.init_time[0],
        )
    elif overlap:
        log.warning("the climatology's period holds verified times, which favours it")
    return plan, overlap


def _sample(config: VerifyConfig, inputs: Inputs) -> str:
    truth, forecasts = inputs.truth, inputs.forecasts
    content = {
        "grid": inputs.grid.describe(),
        "truth": str(truth.attrs.get("fingerprint") or _path(config)),
        "climatology": f"{inputs.plan.describe()} from {_period(truth, inputs.plan)}",
        "energy": [config.energy, config.heat_capacity, config.kinetic],
        "models": {name: str(d.attrs.get("checkpoint", "")) for name, d in forecasts.items()},
        "members": {name: d.sizes.get("member", 1) for name, d in forecasts.items()},
    }
    return json.dumps(content)


def _path(config: VerifyConfig):
    return config.truth if config.observations is None else config.observations.path


def _period(truth, plan) -> str:
    return f"{truth['time'].values[plan.positions[0]]} to {truth['time'].values[plan.positions[-1]]}"


def attributes(config: VerifyConfig, inputs: Inputs, alignment: Alignment, unaudited: dict) -> dict:
    """Attributes of the scores of the initial times of `alignment`."""
    truth, plan = inputs.truth, inputs.plan
    known = inputs.forecasts | inputs.audited
    stores = {name: {k: str(d.attrs[k]) for k in PROVENANCE if k in d.attrs} for name, d in known.items()}
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
        "empty_inits": json.dumps(inputs.empty),
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
