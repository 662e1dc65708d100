"""An experiment as a chain of dependent Slurm jobs, whose scripts lie readable in the run directory."""

import json
import logging
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

from emulator.files.one_writer import one_writer
from emulator.files.whole_file import whole_file
from pipelines import slurm
from pipelines.chain import Link, chain
from pipelines.check import check_experiment
from pipelines.config import ConfigError, Experiment, TrainConfig, TrainDownscalingConfig
from pipelines.run import TRAININGS, record
from pipelines.sbatch import Job, Places, script
from pipelines.site import Resources, SiteConfig

log = logging.getLogger(__name__)
SPLIT = ("simulate", "ingest", "rollout")  # stages whose work an array of jobs can share
TOGETHER = ("train", "rollout")  # those whose tasks can hold one state together


def submit(experiment: Experiment, site: SiteConfig) -> dict[str, int]:
    """Check the experiment, write the scripts, queue them; returns the jobs' numbers by name.

    Stages that are complete are left out. Raises `ConfigError` before anything is queued: for what `--check` refuses, or
    while jobs of the same run directory wait or work, since two trainings must not write into one directory. When Slurm
    refuses a script in the middle of the chain, or somebody stops this, the jobs before it are cancelled. Raises `SlurmError`
    with Slurm's words, and `Busy` while another process submits the same run directory.
    """
    for line in check_experiment(experiment):
        log.info("%s", line)
    where = places(experiment)
    with one_writer(where.folder, patience_seconds=0):  # of two people who submit at once, one
        return _submit(experiment, site, where)


def _submit(experiment: Experiment, site: SiteConfig, where: Places) -> dict[str, int]:
    known = [number for _, number in queue(where.run).jobs.values()]
    if busy := [job for job, entries in slurm.states(known).items() if any(_alive(entry) for entry in entries)]:
        raise ConfigError(
            f"Expected no waiting or working jobs of {where.run}, got {', '.join(map(str, busy))}; "
            f"to stop them: scancel {' '.join(map(str, busy))}"
        )
    jobs = plan(experiment, site)
    if not jobs:
        log.info("every stage of %s is complete", where.run)
        return {}
    record(experiment)
    shutil.rmtree(where.notes, ignore_errors=True)
    for folder in (where.notes, where.logs):
        folder.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        _write(where.script(job.name), script(job, site, where))
    queued: dict[str, int] = {}
    try:
        for job in jobs:
            after, after_any = ([queued[name] for name in names] for names in (job.after, job.after_any))
            queued[job.name] = slurm.submit(where.script(job.name), after, after_any)
            entries = {entry.name: [entry.stage, queued[entry.name]] for entry in jobs if entry.name in queued}
            _write(where.jobs, json.dumps({"start": str(where.start), "jobs": entries}, indent=1))
            log.info("%s: job %d", job.name, queued[job.name])
    except BaseException:
        if queued:
            slurm.cancel(list(queued.values()))
        where.jobs.unlink(missing_ok=True)
        raise
    return queued


def dry_run(experiment: Experiment, site: SiteConfig) -> str:
    """What `submit` would write and queue, as text."""
    where = places(experiment)
    parts = []
    for job in plan(experiment, site):
        waits = [f"{name} to succeed" for name in job.after] + [f"{name} to end" for name in job.after_any]
        parts.append(
            f"# ---- {where.script(job.name)}, waits for {', '.join(waits) or 'nothing'}\n" + script(job, site, where)
        )
    return "\n".join(parts) or f"# every stage of {where.run} is complete"


def plan(experiment: Experiment, site: SiteConfig) -> list[Job]:
    """The jobs of the stages that are not complete, in order, each behind the one before."""
    where = places(experiment)
    jobs: list[Job] = []
    for link in chain(experiment):
        if link.complete:
            continue
        need = _resources(link, site)
        if link.stage in TRAININGS:
            _check_shares(link.stage, link.config, need)
        jobs += _jobs(link, need, site, where, (jobs[-1].name,) if jobs else ())
    return jobs


def _resources(link: Link, site: SiteConfig) -> Resources:
    """What a stage's job asks for: the site's, with as many tasks as hold a state together where the site names one.

    Raises `ConfigError` for tasks that the stage cannot use.
    """
    stage, need = link.stage, site.resources(link.stage)
    together = link.config.parallel.space if stage in TOGETHER else 1
    if together > 1 and need.nodes * need.tasks_per_node == 1:
        need = need.model_copy(update={"tasks_per_node": together})
    tasks = need.nodes * need.tasks_per_node
    if stage == "train" and tasks % together:
        raise ConfigError(f"Expected tasks of the training as a multiple of its parallel.space {together}, got {tasks}")
    if stage not in TRAININGS and tasks != together:
        allowed = "one task" if together == 1 else f"{together} tasks, as parallel.space says,"
        raise ConfigError(f"Expected {allowed} for the stage {stage}, the site gives it {tasks}")
    if together > 1 and 0 < need.gpus_per_node < need.tasks_per_node:
        raise ConfigError(
            f"Expected a GPU for each of the {need.tasks_per_node} tasks that the stage {stage} has on a node, the site "
            f"gives it {need.gpus_per_node}"
        )
    return need


def _check_shares(stage: str, config: TrainConfig | TrainDownscalingConfig, need: Resources) -> None:
    """Raises `ConfigError` where the tasks of a training cannot share its batches: it would fail after all stages before."""
    if stage != "train":
        if config.batch_size % (tasks := need.nodes * need.tasks_per_node):
            raise ConfigError(
                f"Expected {stage}.batch_size as a multiple of the training's {tasks} tasks, got {config.batch_size}"
            )
        return
    together = config.parallel.space
    tasks = need.nodes * need.tasks_per_node // together
    shares = f"{tasks} groups of {together} tasks (parallel.space)" if together > 1 else f"{tasks} tasks"
    for number, phase in enumerate(config.phases):
        if phase.batch_size // phase.accumulate % tasks:
            parts = f" in {phase.accumulate} parts" if phase.accumulate > 1 else ""
            raise ConfigError(
                f"Expected train.phases.{number}.batch_size as a multiple of the training's {shares}, got "
                f"{phase.batch_size}{parts}"
            )
    if config.validation is not None and config.validation.windows < tasks:
        raise ConfigError(f"Expected train.validation.windows of at least {shares}, got {config.validation.windows}")


def _jobs(link: Link, need: Resources, site: SiteConfig, where: Places, after: tuple[str, ...]) -> list[Job]:
    stage = link.stage
    experiment = shlex.quote(str(where.run / "experiment.yaml"))
    command = f"run {experiment} --only {stage}"
    jobs: list[Job] = []
    if stage in SPLIT and need.array > 1:
        parts = f"{stage} {experiment} --part $SLURM_ARRAY_TASK_ID/{need.array}"
        jobs.append(Job(f"{stage}-parts", stage, parts, need, need.array, after))
        after = (jobs[-1].name,)
    jobs.append(Job(stage, stage, command, need, after=after))
    if stage in TRAININGS and not site.requeue:
        for number in range(1, site.continuations + 1):
            jobs.append(Job(f"{stage}-{number}", stage, command, need, after_any=(jobs[-1].name,)))
    return jobs


def places(experiment: Experiment) -> Places:
    return Places(Path(experiment.directory).absolute(), Path.cwd())


class Queue(NamedTuple):
    """What was queued last for a run directory: where from, and stage and number of every job by name."""

    start: Path
    jobs: dict[str, tuple[str, int]]


def queue(run: Path) -> Queue:
    """What was queued last for a run directory; no jobs where nothing was."""
    try:
        saved = json.loads(Places(Path(run), Path.cwd()).jobs.read_text())
    except FileNotFoundError:
        return Queue(Path.cwd(), {})
    return Queue(Path(saved["start"]), {name: (stage, number) for name, (stage, number) in saved["jobs"].items()})


def _alive(entry: slurm.JobState) -> bool:
    return entry.state in slurm.WAITS_OR_WORKS and entry.reason != "DependencyNeverSatisfied"


def _write(path: Path, text: str) -> None:
    with whole_file(path) as scratch:
        scratch.write_text(text)
