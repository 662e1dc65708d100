"""Train variants of one experiment on the same data, verify them against one another, and print a table.

    python scripts/compare.py conf/compare/conservation.yaml [--minutes M [--clock cpu]] [dotted.name=value ...]

The file names an experiment, whose data and statistics all variants share (they are made when they are not there), and
what each variant changes. Overrides apply to every variant. Every variant is trained, rolled out and scored like an
experiment of its own under `directory/NAME`, in a process of its own; `directory/report/report.html` compares them. With
`--minutes` the numbers of updates are scaled, before a variant starts, so that its training takes that long at its own
measured speed: by the clock, or in processor time, which other programs on the machine disturb less. With
`free_run_days` in the file a long run without the envelope of the training data is added. A stopped comparison goes on
where it was; a variant that fails is left out, and told at the end.

Besides `train` and `rollout`, which change the experiment, a variant may have
- `first: {share: 0.5, train: ...}`: another training before its own, in `directory/NAME/first`, with so much of the time. Its
  own is timed when that is there, and its updates are fixed before it begins.
- `minutes`: of its training, in place of those of all; null: it is as long as the file says.
- `trained`: a checkpoint in place of a training.
"""

import argparse
import contextlib
import json
import logging
import multiprocessing
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from compared import MEMBER_STEP, PROCESSOR, free_run_of, markdown, row_of, rows_of_baselines

import emulator as em
from emulator.files.whole_file import whole_file
from emulator.model.saved_model import tensors_digest
from emulator.parallel.rates import most_held
from emulator.report.view import View
from emulator.store.schema import entry
from emulator.training.run import StageHooks, Training
from emulator.verify.assemble import open_scores
from pipelines import load
from pipelines.config import Experiment, ReportConfig, TrainConfig, VerifyConfig
from pipelines.load import to_yaml
from pipelines.report import report
from pipelines.run import run
from pipelines.train import options_of
from pipelines.verify import verify
from pipelines.yaml_files import read_yaml

log = logging.getLogger("compare")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--minutes", type=float, help="training time of each variant")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="of these minutes: the clock, or processor time"
    )
    parser.add_argument("--only", type=lambda text: text.split(","), help="names of some of its variants, with commas")
    parser.add_argument("--results", type=Path, help="folder of scores, report and table; none: the comparison's own")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args()
    _logged()
    plan = read_yaml(options.config)
    source = options.config.parent / plan["experiment"]
    directory = Path(plan["directory"])
    base = load.load_experiment(source)
    _make_data(base)
    rows, failed = {}, []
    for name in options.only or plan["variants"]:
        place = directory / re.sub(r"\W+", "-", name)
        stages = stages_of(base, source, plan["variants"][name], options, place)
        if done := _finished(stages, options.clock, plan.get("free_run_days", 0)):
            rows[name] = done
        else:
            failed.append(name)
    results = options.results or directory  # several that run side by side each need their own
    view = _score(base, {name: stages[-1] for name, stages in rows.items()}, results)
    table = [row_of(view, name, stages, base) for name, stages in rows.items()] + rows_of_baselines(view)
    print(markdown(table))
    (results / "table.json").write_text(json.dumps(table, indent=1))
    if failed:
        sys.exit(f"{', '.join(failed)} failed, see the log above; the table is without")


def _logged() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)


def _alone(function, experiment: Experiment, *given) -> bool:
    """Call it in a process of its own, whose memory is nobody else's; whether it came to its end."""
    process = multiprocessing.get_context("spawn").Process(target=_call, args=(function, to_yaml(experiment), *given))
    process.start()
    process.join()
    return process.exitcode == 0


def _call(function, text: str, *given) -> None:
    """What `_alone` starts: classes of configurations are made when they are asked for, and travel as text."""
    _logged()
    function(Experiment.model_validate(yaml.safe_load(text)), *given)


def _make_data(base: Experiment) -> None:
    if not (Path(base.train.store).exists() and Path(base.train.statistics).exists()):
        run(base.model_copy(update=dict.fromkeys(("train", "rollout", "verify", "report"))))


def stages_of(
    base: Experiment, source: Path, changes: dict, options: argparse.Namespace, place: Path
) -> list[tuple[Experiment, float | None]]:
    """The trainings of a variant in their order, the last with forecasts, and the minutes of each; None: as the file says."""
    changes, found = dict(changes), []
    minutes = changes.pop("minutes", options.minutes)
    first, trained = changes.pop("first", None), changes.pop("trained", None)
    if first is not None:
        first = dict(first)
        share = first.pop("share", 0.5)
        one = _variant(base, source, first, options.overrides, place / "first")
        found = [(one.model_copy(update={"rollout": None}), minutes and minutes * share)]
        minutes = minutes and minutes * (1 - share)
    own = _variant(base, source, changes, options.overrides, place)
    if trained is not None:
        rollout = own.rollout.model_copy(update={"checkpoint": Path(trained)})
        own, minutes = own.model_copy(update={"train": None, "rollout": rollout}), None
    return [*found, (own, minutes)]


def _finished(stages: list[tuple[Experiment, float | None]], clock: str, free_run_days: int) -> list[Experiment] | None:
    """The stages of a variant with their numbers of updates, all done; None where one failed."""
    done = []
    for experiment, minutes in stages:
        if minutes:
            if (updates := _updates(experiment, experiment.directory, minutes, clock)) is None:
                return None
            experiment = with_updates(experiment, updates)
        if not _alone(_finish, experiment, free_run_days):
            return None
        done.append(experiment)
    return done


def _variant(base: Experiment, source: Path, changes: dict, overrides: list[str], place: Path) -> Experiment:
    """The experiment with a variant's changes, on the base's data, in a directory of its own."""
    dotted = [*_dotted(changes), *overrides, f"directory={json.dumps(str(place))}"]
    found = load.load_experiment(source, dotted)
    train_config = found.train.model_copy(update={"store": base.train.store, "statistics": base.train.statistics})
    rollout = found.rollout.model_copy(update={"store": base.train.store, "uncorrected_inits": 0})
    return Experiment(directory=place, train=train_config, rollout=rollout)


def _dotted(changes: dict, prefix: str = "") -> list[str]:
    found = []
    for key, value in changes.items():
        another = prefix + key in ("train.network", "train.objective", "train.loss") and "kind" in value
        inner = isinstance(value, dict) and not another
        found += _dotted(value, f"{prefix}{key}.") if inner else [f"{prefix}{key}={json.dumps(value)}"]
    return found


def _updates(experiment: Experiment, place: Path, minutes: float, clock: str) -> list[int] | None:
    """Updates of every phase for a training time, kept beside the variant's results; None where they could not be timed."""
    kept = place / "phases.json"
    if not kept.exists() and not _alone(_find_updates, experiment, kept, minutes * 60, clock):
        return None
    return json.loads(kept.read_text())["updates"]


def _find_updates(experiment: Experiment, kept: Path, seconds: float, clock: str) -> None:
    phases = experiment.train.phases
    paces = [seconds_per_update(experiment.train, index, clock) for index in range(len(phases))]
    spent = sum(phase.updates * pace for phase, pace in zip(phases, paces, strict=True))
    updates = [max(1, round(phase.updates * seconds / spent)) for phase in phases]
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"updates": updates, "seconds": paces}))


def with_updates(experiment: Experiment, updates: list[int]) -> Experiment:
    """The experiment with so many updates in its phases."""
    phases = [
        phase.model_copy(update={"updates": n}) for phase, n in zip(experiment.train.phases, updates, strict=True)
    ]
    return experiment.model_copy(update={"train": experiment.train.model_copy(update={"phases": phases})})


def seconds_per_update(config: TrainConfig, index: int, clock: str = "wall", trials: int = 5) -> float:
    """Median time of an update of a phase, of so many after the first four, which settle memory."""
    at = []

    @contextlib.contextmanager
    def reporting(identity, updates):
        yield lambda row: at.append(CLOCKS[clock]())

    if config.threads:
        torch.set_num_threads(config.threads)
    phases = [config.phases[index].model_copy(update={"updates": trials + 4})]
    if phases[0].single:  # a training does not end with such a phase
        phases.append(config.phases[-1].model_copy(update={"updates": 1}))
    with tempfile.TemporaryDirectory() as folder:
        trial = {"phases": phases, "output": Path(folder), "log_every": 1, "validation": None}
        Training(options_of(config.model_copy(update=trial)), StageHooks("trial", "trial", reporting=reporting)).run()
    return statistics.median(np.diff(at[: trials + 4])[3:])


def _finish(experiment: Experiment, free_run_days: int) -> None:
    """All of a variant but its scores; every start notes the processor time of its training."""
    if experiment.train is not None:
        began = time.process_time()
        run(experiment, only="train")
        with open(experiment.directory / PROCESSOR, "a") as stream:
            stream.write(f"{time.process_time() - began:.1f}\n")
    if experiment.rollout is None:
        return
    run(experiment)
    if experiment.rollout.ensemble is not None:
        _time_members(experiment)
    if free_run_days:
        _run_freely(experiment, free_run_days)


def _time_members(experiment: Experiment) -> None:
    """What a step of one member costs, kept beside the variant's results: the median of 3 forecasts of a day."""
    if (kept := experiment.directory / MEMBER_STEP).exists():
        return
    asked = experiment.rollout
    truth, model = em.open_analysis(asked.store), em.load_model(asked.checkpoint)
    start, ensemble = em.open_forecast(asked.output)["init_time"].values[0], asked.ensemble.model_dump()

    def forecast(days: float, members: int) -> int:
        found = em.forecast(model, truth, start, days, ensemble=ensemble | {"members": members}, batch_size=members)
        return members * (found.sizes["lead_time"] - 1)

    forecast(1.0, asked.ensemble.members)
    seconds = []
    for _ in range(3):
        began = time.process_time()
        steps = forecast(1.0, asked.ensemble.members)
        seconds.append((time.process_time() - began) / steps)
    held = most_held(lambda: forecast(1.0, 2)) / 2
    told = {"milliseconds": 1e3 * statistics.median(seconds), "mebibytes": held / 2**20}
    with whole_file(kept) as scratch:
        scratch.write_text(json.dumps(told))


def _run_freely(experiment: Experiment, days: int) -> None:
    """A run as long as that, with daily output, whose states nothing holds back but what their variables allow."""
    truth = em.open_analysis(experiment.rollout.store)
    model = em.load_model(experiment.rollout.checkpoint)
    for name, where in model.layout.prognostic.slices.items():
        variable = entry(truth, name)
        model.lower[where] = -np.inf if variable.minimum is None else variable.minimum
        model.upper[where] = np.inf if variable.maximum is None else variable.maximum
    model.loaded = tensors_digest(model)
    start = em.open_forecast(experiment.rollout.output)["init_time"].values[0]
    em.forecast(model, truth, start, days, thin={"every_hours": 24}, output=free_run_of(experiment))


def _score(base: Experiment, rows: dict[str, Experiment], directory: Path) -> View:
    forecasts = {name: experiment.rollout.output for name, experiment in rows.items()}
    common = {"truth": base.train.store, "climatology": base.verify.climatology}
    verify(VerifyConfig(forecasts=forecasts, output=directory / "scores.nc", **common))
    report(ReportConfig(scores=directory / "scores.nc", output=directory / "report", title=directory.name))
    return View(open_scores(directory / "scores.nc"))


if __name__ == "__main__":
    main()
