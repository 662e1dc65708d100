"""Verify: forecast stores and a truth to one file of scores; in parts, and with later initial times added."""

import json
import logging
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.verify.align import valid_times
from emulator.verify.assemble import assemble
from emulator.verify.audit import audit_stores
from emulator.verify.budgets import EnergyForm
from emulator.verify.cases import case_maps
from emulator.verify.channels import channel_name
from emulator.verify.files import open_scores, part_path, write_scores
from emulator.verify.lacking import lacking
from emulator.verify.long_runs import long_run_scores
from emulator.verify.merging import COORDINATES, check_same, merge
from emulator.verify.sample import BASELINES
from emulator.verify.score import score_variables, setting
from emulator.verify.wind import wind_vectors
from pipelines.config import VerifyConfig
from pipelines.engine import scheduler
from pipelines.progress import progress
from pipelines.verify_inputs import Inputs, attributes, open_inputs

log = logging.getLogger(__name__)


def verify(config: VerifyConfig, part: tuple[int, int] | None = None, append: bool = False) -> None:
    """Score the forecasts and audit their budgets. Raises `ValueError` in one sentence; nothing half-written stays.

    With `part` `(i, N)` only the i-th of N shares of the initial times is scored, into a file of its own; the part that
    finds all others there adds them up. With `append` the initial times that the output already has are left alone, and
    those whose last leads lie beyond the truth's end wait for a later run.
    """
    inputs = open_inputs(config)
    if part is not None:
        _verify_part(config, inputs, *part)
        return
    old = open_scores(config.output) if append and Path(config.output).exists() else None
    todo = np.arange(len(inputs.alignment.init_time))
    if append:
        todo = _to_append(config, inputs, old)
        if not len(todo):
            return
    scores = _score(config, inputs, todo)
    if old is not None:
        scores = merge([old, scores])
    write_scores(_with_cases(scores, inputs, old), config.output)
    _warn(scores)
    log.info("%s: %d channels, %d initial times", config.output, scores.sizes["channel"], scores.sizes["init_time"])


def _to_append(config: VerifyConfig, inputs: Inputs, old: xr.Dataset | None) -> np.ndarray:
    """Positions of the initial times that the output lacks and whose leads the truth has reached.

    What is added is never made again, so an initial time that lacks its last leads would lack them for good.
    """
    alignment = inputs.alignment
    if old is not None:
        _check_same_setting(config, inputs, old)
    new = ~np.isin(alignment.init_time, [] if old is None else old["init_time"].values)
    end = inputs.truth["time"].values[-1]
    reached = (valid_times(alignment.init_time, alignment.lead_time) <= end).all(axis=1)
    if late := int((new & ~reached).sum()):
        log.info("%s: %d initial times wait for a truth beyond %s", config.output, late, end)
    elif not new.any():
        log.info("%s: has all %d initial times already", config.output, len(new))
    if old is None and not (new & reached).any():
        raise ValueError(
            f"Expected a truth as far as the last lead of an initial time to append, got one that ends at {end}"
        )
    return np.flatnonzero(new & reached)


def _check_same_setting(config: VerifyConfig, inputs: Inputs, old: xr.Dataset) -> None:
    """Raises `ValueError` where the output was made otherwise, before anything is scored and also where nothing is new.

    The truth may have grown: it is told by what it holds, when scores are added up.
    """
    channels = [channel_name(variable, at) for variable in inputs.variables for at in range(len(variable.labels))]
    coordinates = {
        "forecast": [*inputs.forecasts, *BASELINES],
        "channel": channels,
        "region": list(inputs.regions),
        "lead_time": inputs.alignment.lead_time,
        **({"event": list(config.events)} if config.events and "event" in old.coords else {}),
    }
    sample = json.loads(inputs.sample) | {"truth": json.loads(old.attrs.get("sample", "{}")).get("truth")}
    now = xr.Dataset(coords=coordinates, attrs={"sample": json.dumps(sample)})
    check_same(old.drop_vars([name for name in COORDINATES if name in old.coords and name not in coordinates]), now)


def _verify_part(config: VerifyConfig, inputs: Inputs, number: int, count: int) -> None:
    path = part_path(config.output, number, count)
    todo = np.array_split(np.arange(len(inputs.alignment.init_time)), count)[number - 1]
    if not len(todo):
        raise ValueError(
            f"Expected at most {len(inputs.alignment.init_time)} parts, one initial time each, got {count}"
        )
    if not _is_written(path, inputs.alignment.init_time[todo], inputs):
        scores = _score(config, inputs, todo)
        write_scores(scores, path)
        log.info("%s: %d initial times", path, len(todo))
    parts = [part_path(config.output, n, count) for n in range(1, count + 1)]
    if missing := [part.name for part in parts if not part.exists()]:
        log.info("%d of %d parts are still to come: %s", len(missing), count, ", ".join(missing[:4]))
        return
    try:
        scores = merge([open_scores(part) for part in parts])
    except ValueError:
        if all(part.exists() for part in parts) or not Path(config.output).exists():
            raise
        log.info("%s: another process has added the parts up", config.output)
        return
    write_scores(_with_cases(scores, inputs, None), config.output)
    _warn(scores)
    for part in parts:
        part.unlink(missing_ok=True)
    log.info("%s: %d parts, %d initial times", config.output, count, scores.sizes["init_time"])


def _is_written(path: Path, init_time: np.ndarray, inputs: Inputs) -> bool:
    """Whether a part was made of the same initial times by the same configuration before."""
    if not path.exists():
        return False
    held = open_scores(path)
    same = np.array_equal(held["init_time"].values, init_time) and held.attrs.get("sample") == inputs.sample
    if same:
        log.info("%s is complete", path)
    return same


def _score(config: VerifyConfig, inputs: Inputs, todo: np.ndarray) -> xr.Dataset:
    """Scores and audits of the initial times at the positions `todo`, without cases to look at."""
    truth, alignment = inputs.truth, inputs.alignment.at(todo)
    step = float(truth.attrs.get("time_step_seconds", 0))
    members = [dataset.sizes.get("member", 1) for dataset in inputs.forecasts.values()]
    members.append(truth.sizes.get("member", 1))  # persistence
    shared = setting(inputs.grid, inputs.weights, alignment, tuple(config.events), max(members), step)
    steps = len(inputs.variables) + len(inputs.audited) + 1
    with scheduler(config.dask) as threads, progress("verify", steps) as report:
        results = score_variables(inputs.variables, inputs.plan, shared, report, threads)
        results += wind_vectors(results)
        scores = assemble(results, shared, list(inputs.forecasts), list(inputs.regions), members)
        budgets, unaudited = audit_stores(
            truth,
            inputs.audited,
            alignment.init_time,
            alignment.lead_time,
            EnergyForm(config.energy, config.heat_capacity, config.kinetic),
            lambda count, name: report(len(inputs.variables) + count, name),
            strict=len(todo) < len(inputs.alignment.init_time),
        )
    series = np.concatenate([result.series for result in results], axis=1)
    record = xr.Dataset(
        {"record_mean": (("record_time", "channel"), series)},
        {"record_time": truth["time"].values[inputs.plan.positions]},
    )
    scores = xr.merge([scores, record, budgets], compat="no_conflicts", join="outer", combine_attrs="drop")
    if inputs.mask is not None:
        scores["land_sea_mask"] = (inputs.grid.dims, inputs.mask.astype(np.float32))
    scores.attrs = attributes(config, inputs, alignment, unaudited)
    return scores


def _warn(scores: xr.Dataset) -> None:
    for sentence in lacking(scores):
        log.warning("%s", sentence)


def _with_cases(scores: xr.Dataset, inputs: Inputs, old: xr.Dataset | None) -> xr.Dataset:
    """The scores with the climate of long runs, and with cases to look at, chosen among all initial times where the stores
    still hold them."""
    held = np.flatnonzero(np.isin(inputs.alignment.init_time, scores["init_time"].values))
    if old is not None and len(held) < scores.sizes["init_time"]:
        cases = old[[name for name in ("case_forecast", "case_truth", "case_init") if name in old]]
    else:
        shared = setting(inputs.grid, np.ones((1, *inputs.grid.shape)), inputs.alignment.at(held))
        cases = case_maps(scores, inputs.variables, shared, list(inputs.forecasts))
    climate = long_run_scores(inputs.truth, inputs.long_runs, inputs.grid)
    return xr.merge([scores, cases, climate], compat="no_conflicts", join="outer", combine_attrs="override")
