"""From forecasts and a truth to scores: in memory, or to a file in parts and with later initial times added."""

import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.planet.calendar import valid_times
from emulator.planet.grid import CLOSED
from emulator.verify.align import Alignment
from emulator.verify.analysis_errors import analysis_scores
from emulator.verify.assemble import assemble, lacking, open_scores, part_path, write_scores
from emulator.verify.audit import audit_stores
from emulator.verify.cases import case_maps
from emulator.verify.channels import channel_name
from emulator.verify.downscaled import downscaling_scores, with_coarse
from emulator.verify.exchange import exchanges
from emulator.verify.feedback import feedback_scores
from emulator.verify.increments import increment_scores
from emulator.verify.inputs import Inputs, open_inputs
from emulator.verify.long_runs import long_run_scores
from emulator.verify.merging import COORDINATES, check_same, merge
from emulator.verify.metrics.spectra import spectrum_kind
from emulator.verify.options import VerifyOptions
from emulator.verify.sample import BASELINES
from emulator.verify.scenarios import scenario_scores
from emulator.verify.score import binning, score_variables

log = logging.getLogger(__name__)
Engine = Callable[[int], contextlib.AbstractContextManager[tuple[int, Callable[[int, str], None]]]]
PROVENANCE = (
    "source",
    "checkpoint",
    "conservation",
    "prescribed",
    "forcing_offsets",
    "forcing_beyond_training",
    "restoring",
    "fingerprint",
    "training_period",
    "title",
    "history",
    "ensemble",
    "height_correction",
    "ocean",
    "boundary",
    "downscaling",
)


def score(
    forecast,
    truth,
    *,
    audit: Mapping | None = None,
    long_runs: Mapping | None = None,
    references: Mapping | None = None,
    scenarios: Mapping | None = None,
    oceans: Mapping | None = None,
    coarse=None,
    period: tuple = (None, None),
    climatology: tuple = (None, None),
    **options,
) -> xr.Dataset:
    """The scores of docs/verification.md, as the stage writes them, in memory.

    `forecast`: a dataset, a path or URL, or several by their names; `truth`: a dataset, a path or `stations.Observations`;
    `coarse`: path or dataset that downscaled stores among the forecasts were made of.
    `period` and `climatology` are first and last times; `options` are the others of
    `emulator.verify.options.VerifyOptions`. Raises `ValueError` in one sentence that names what differs.
    """
    forecasts = forecast if isinstance(forecast, Mapping) and not isinstance(forecast, xr.Dataset) else None
    chosen = {n: tuple(v) if isinstance(v, list) else v for n, v in options.items()}
    asked = VerifyOptions(period=tuple(period), climatology=tuple(climatology), **chosen)
    named = {"forecast": forecast} if forecasts is None else forecasts
    inputs = open_inputs(truth, named, asked, audit, long_runs, references, scenarios, oceans)
    inputs = inputs if coarse is None else with_coarse(inputs, coarse)
    return with_cases(score_inits(inputs, np.arange(len(inputs.alignment.init_time))), inputs)


@contextlib.contextmanager
def here(steps: int):
    """Dask's current scheduler, one task at a time, in silence."""
    yield 1, lambda count, name: None


def verify_to_file(
    inputs: Inputs,
    output: Path,
    part: tuple[int, int] | None = None,
    append: bool = False,
    notes: Mapping[str, str] | None = None,
    engine: Engine = here,
) -> None:
    """Scores to a file that is there whole or not at all. Raises `ValueError` in one sentence.

    With `part` `(i, N)` only the i-th of N shares of the initial times is scored, into a file of its own; the part that
    finds all others there adds them up. With `append` the initial times that the output already has are left alone, and
    those whose last leads lie beyond the truth's end wait for a later run. `notes`: more attributes, such as the
    configuration. `engine`: number of steps -> a context that gives the tasks at a time and takes each step as it ends.
    """
    if part is not None:
        _part_to_file(inputs, output, part, notes, engine)
        return
    old = open_scores(output) if append and Path(output).exists() else None
    todo = np.arange(len(inputs.alignment.init_time))
    if append:
        todo = _to_append(inputs, output, old)
        if not len(todo):
            return
    scores = score_inits(inputs, todo, notes, engine)
    if old is not None:
        scores = merge([old, scores])
    write_scores(with_cases(scores, inputs, old), output)
    _warn(scores)
    log.info("%s: %d channels, %d initial times", output, scores.sizes["channel"], scores.sizes["init_time"])


def score_inits(
    inputs: Inputs, todo: np.ndarray, notes: Mapping[str, str] | None = None, engine: Engine = here
) -> xr.Dataset:
    """Scores and audits of the initial times at the positions `todo`, without cases to look at."""
    truth, alignment, count = inputs.truth, inputs.alignment.at(todo), len(inputs.variables)
    step = float(truth.attrs.get("time_step_seconds", 0))
    most = max(inputs.members)
    bins = binning(inputs.grid, inputs.weights, alignment, inputs.options.events, most, step, inputs.overlap)
    with engine(count + len(inputs.audited) + 1) as (threads, done):
        results = score_variables(inputs.variables, inputs.recipe, bins, done, threads)
        scores = assemble(results, bins, list(inputs.forecasts), list(inputs.regions), inputs.members)
        budgets, unaudited = audit_stores(
            truth,
            inputs.audited,
            alignment.init_time,
            alignment.lead_time,
            inputs.energy,
            lambda number, name: done(count + number, name),
            strict=len(todo) < len(inputs.alignment.init_time),
        )
    exchanged = exchanges(inputs.audited, inputs.oceans, alignment.init_time)
    if exchanged.data_vars and budgets.data_vars:  # a union of names would be sorted, and the truth not the last
        known = {*budgets["audit_source"].values, *exchanged["audit_source"].values}
        order = {"audit_source": [name for name in (*inputs.audited, "truth") if name in known]}
        budgets, exchanged = budgets.reindex(order), exchanged.reindex(order)
    record = xr.Dataset(
        {"record_mean": (("record_time", "channel"), np.concatenate([r.series for r in results], axis=1))},
        {"record_time": truth["time"].values[inputs.recipe.positions]},
    )
    scores = xr.merge(
        [scores, record, budgets, exchanged], compat="no_conflicts", join="outer", combine_attrs="override"
    )
    if inputs.mask is not None:
        scores["land_sea_mask"] = (inputs.grid.dims, inputs.mask.astype(np.float32))
    scores.attrs = _attributes(inputs, alignment) | {"budgets_skipped": json.dumps(unaudited)} | dict(notes or {})
    return scores


def with_cases(scores: xr.Dataset, inputs: Inputs, old: xr.Dataset | None = None) -> xr.Dataset:
    """The scores with the climate of long runs, scenarios, a cycle's feedback, what was downscaled, and cases to look at.

    Cases are chosen among all initial times where the stores still hold them; otherwise they are those of `old`.
    """
    known = np.flatnonzero(np.isin(inputs.alignment.init_time, scores["init_time"].values))
    if old is not None and len(known) < scores.sizes["init_time"]:
        cases = old[[name for name in ("case_forecast", "case_truth", "case_init") if name in old]]
    else:
        bins = binning(inputs.grid, np.ones((1, *inputs.grid.shape)), inputs.alignment.at(known))
        cases = case_maps(scores, inputs.variables, bins, list(inputs.forecasts))
    climate = long_run_scores(inputs.truth, inputs.long_runs, inputs.grid, references=inputs.references)
    parts = [scores, cases, climate, downscaling_scores(inputs, scores)]
    parts += [scenario_scores(inputs.scenarios, inputs.grid)] if inputs.scenarios else []
    if inputs.feedback:
        parts += [feedback_scores(inputs.feedback), increment_scores(inputs.feedback)]
        parts += [analysis_scores(inputs, scores["channel"].values)]
    return xr.merge(parts, compat="no_conflicts", join="outer", combine_attrs="override")


def _to_append(inputs: Inputs, output: Path, old: xr.Dataset | None) -> np.ndarray:
    """Positions of the initial times that the output lacks and whose leads the truth has reached.

    What is added is never made again, so an initial time that lacks its last leads would lack them for good.
    """
    alignment = inputs.alignment
    if old is not None:
        _check_appendable(inputs, old)
    new = ~np.isin(alignment.init_time, [] if old is None else old["init_time"].values)
    end = inputs.truth["time"].values[-1]
    reached = (valid_times(alignment.init_time, alignment.lead_time) <= end).all(axis=1)
    if late := int((new & ~reached).sum()):
        log.info("%s: %d initial times wait for a truth beyond %s", output, late, end)
    elif not new.any():
        log.info("%s: has all %d initial times already", output, len(new))
    if old is None and not (new & reached).any():
        raise ValueError(
            f"Expected a truth as far as the last lead of an initial time to append, got one that ends at {end}"
        )
    return np.flatnonzero(new & reached)


def _check_appendable(inputs: Inputs, old: xr.Dataset) -> None:
    """Raises `ValueError` where the output was made otherwise, before anything is scored and also where nothing is new.

    The truth may have grown: its values are compared when scores are added up.
    """
    events = inputs.options.events
    coordinates = {
        "forecast": [*inputs.forecasts, *BASELINES],
        "channel": [channel_name(variable, at) for variable in inputs.variables for at in range(len(variable.labels))],
        "region": list(inputs.regions),
        "lead_time": inputs.alignment.lead_time,
        **({"event": list(events)} if events and "event" in old.coords else {}),
    }
    sample = json.loads(inputs.sample) | {"truth": json.loads(old.attrs.get("sample", "{}")).get("truth")}
    now = xr.Dataset(coords=coordinates, attrs={"sample": json.dumps(sample)})
    check_same(old.drop_vars([name for name in COORDINATES if name in old.coords and name not in coordinates]), now)


def _part_to_file(inputs: Inputs, output: Path, part: tuple[int, int], notes, engine) -> None:
    (number, count), inits = part, len(inputs.alignment.init_time)
    path, todo = part_path(output, number, count), np.array_split(np.arange(inits), count)[number - 1]
    if not len(todo):
        raise ValueError(f"Expected at most {inits} parts, one initial time each, got {count}")
    if not _is_written(path, inputs.alignment.init_time[todo], inputs):
        write_scores(score_inits(inputs, todo, notes, engine), path)
        log.info("%s: %d initial times", path, len(todo))
    parts = [part_path(output, n, count) for n in range(1, count + 1)]
    if missing := [part.name for part in parts if not part.exists()]:
        log.info("%d of %d parts are still to come: %s", len(missing), count, ", ".join(missing[:4]))
        return
    try:
        scores = merge([open_scores(part) for part in parts])
    except ValueError:
        if all(part.exists() for part in parts) or not Path(output).exists():
            raise
        log.info("%s: another process has added the parts up", output)
        return
    write_scores(with_cases(scores, inputs), output)
    _warn(scores)
    for part in parts:
        part.unlink(missing_ok=True)
    log.info("%s: %d parts, %d initial times", output, count, scores.sizes["init_time"])


def _is_written(path: Path, init_time: np.ndarray, inputs: Inputs) -> bool:
    """Whether a part was made of the same initial times by the same configuration before."""
    if not path.exists():
        return False
    old = open_scores(path)
    same = np.array_equal(old["init_time"].values, init_time) and old.attrs.get("sample") == inputs.sample
    if same:
        log.info("%s is complete", path)
    return same


def _warn(scores: xr.Dataset) -> None:
    for sentence in lacking(scores):
        log.warning("%s", sentence)


def _domains(inputs: Inputs) -> dict:
    """What scores of variables that are not everywhere say: where they exist, and what their spectra are of."""
    if not inputs.domains:
        return {}
    return {"domains": json.dumps(inputs.domains), "spectrum_of_masked": "fields filled smoothly outside their domain"}


def _attributes(inputs: Inputs, alignment: Alignment) -> dict:
    """Attributes of the scores of the initial times of `alignment`."""
    truth, recipe = inputs.truth, inputs.recipe
    known = inputs.forecasts | inputs.audited | {"truth": truth}
    stores, runs = (
        {name: {k: str(d.attrs[k]) for k in PROVENANCE if k in d.attrs} for name, d in some.items()}
        for some in (known, inputs.long_runs)
    )
    valid = alignment.truth_valid[alignment.truth_valid >= 0]
    return {
        "config": json.dumps({"truth": inputs.truth_name}),
        "provenance": json.dumps(stores),
        **({"long_run_provenance": json.dumps(runs)} if runs else {}),
        "sample": inputs.sample,
        "climatology": recipe.describe(),
        "climatology_kind": recipe.kind,
        "climatology_period": inputs.climatology_period,
        "climatology_overlap": int(inputs.overlap),
        "dropped_inits": json.dumps(alignment.dropped_inits),
        "dropped_leads": json.dumps(alignment.dropped_leads),
        "empty_inits": json.dumps(inputs.empty),
        "missing_truth": alignment.missing_truth,
        "valid_period": " to ".join(str(truth["time"].values[i]) for i in (valid.min(), valid.max())),
        "time_step_seconds": float(truth.attrs.get("time_step_seconds", 0)),
        **({"time_step_months": int(truth.attrs["time_step_months"])} if "time_step_months" in truth.attrs else {}),
        "rmse_convention": "root after the mean over initial times",
        **({} if inputs.grid.is_global() or CLOSED in truth.attrs else {"open_domain": 1}),
        "spectrum_kind": spectrum_kind(inputs.grid) or "none",
        "acc_convention": "WeatherBench 2: ratio per initial time, then mean; anomalies not centred",
        "grid": inputs.grid.describe(),
        "not_scored": json.dumps(inputs.skipped),
        **({"held": json.dumps(inputs.held)} if inputs.held else {}),
        **_domains(inputs),
    }
