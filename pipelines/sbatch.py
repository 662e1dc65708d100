"""The text of Slurm job scripts: one readable file for each job, which can be edited and submitted by hand."""

import dataclasses
import shlex
from pathlib import Path

from pipelines.site import Resources, SiteConfig

REQUEUE = 75  # what the program exits with after saving: start it again to go on


@dataclasses.dataclass(frozen=True)
class Job:
    """One job of a chain.

    Attributes:
      name: of the job, its script and its log. stage: what it works on.
      command: arguments of the program; may use Slurm's variables.
      resources: what it asks for; array: number of tasks of a job array, 1 for a plain job.
      after: names of the jobs that must have succeeded before; after_any: that must have ended, however they did.
    """

    name: str
    stage: str
    command: str
    resources: Resources
    array: int = 1
    after: tuple[str, ...] = ()
    after_any: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Places:
    """Where a chain's files lie, all absolute: its scripts, its logs, its notes of beginnings and ends, and its start."""

    run: Path
    start: Path

    @property
    def folder(self) -> Path:
        return self.run / "slurm"

    def script(self, job: str) -> Path:
        return self.folder / f"{job}.sbatch"

    @property
    def jobs(self) -> Path:
        """Stage and number of every job that was queued last."""
        return self.folder / "jobs.json"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def notes(self) -> Path:
        return self.folder / "notes"


def script(job: Job, site: SiteConfig, places: Places) -> str:
    """The script of a job."""
    tasks = "several tasks together" if job.resources.nodes * job.resources.tasks_per_node > 1 else "one task"
    return "\n".join(
        [
            "#!/bin/bash",
            f"# {job.stage}: {tasks}. Written by `emulator submit`; may be edited, and submitted again by hand with",
            f"#   sbatch {shlex.quote(str(places.script(job.name)))}",
            *(f"#SBATCH {option}" for option in options(job, site, places)),
            "",
            "set -eo pipefail",
            *(f"export {name}={shlex.quote(value)}" for name, value in sorted(site.environment.items())),
            *site.setup,
            'export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"  # srun takes them from nowhere else since Slurm 22.05',
            'export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"',
            "",
            *_body(job, site, places),
            "",
        ]
    )


def options(job: Job, site: SiteConfig, places: Places) -> list[str]:
    """The options of sbatch for a job, in the order in which people read them."""
    need = job.resources
    log = f"{places.logs / job.name}-%{'A_%a' if job.array > 1 else 'j'}.log"
    directives = {
        "job-name": f"{job.name}.{places.run.name}",
        "account": site.account,
        "partition": need.partition or site.partition,
        "qos": site.qos,
        "array": f"1-{job.array}" if job.array > 1 else None,
        "nodes": need.nodes,
        "ntasks-per-node": need.tasks_per_node,
        "cpus-per-task": need.cpus_per_task,
        "gpus-per-node": need.gpus_per_node or None,
        "mem": need.memory,
        "time": need.time,
        "signal": f"USR1@{site.warning_seconds}",
        "chdir": places.start,
        "output": log,
        "open-mode": "append",
    }
    lines = [f"--{name}={_word(value)}" for name, value in directives.items() if value is not None]
    return [*lines, "--requeue" if site.requeue else "--no-requeue", *site.options, *need.options]


def _word(value) -> str:
    text = str(value)
    return f'"{text}"' if " " in text else text


def _body(job: Job, site: SiteConfig, places: Places) -> list[str]:
    label = "${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}" if job.array > 1 else ""
    notes = shlex.quote(str(places.notes / job.name)) + (f'"{label}"' if label else "")
    lines = [
        f'note() {{ echo "$(date -u +%FT%TZ) $SLURM_JOB_ID $*" >> {notes}; }}',
        "note started on ${SLURM_JOB_NODELIST:-?}",
        "# The program saves and stops when the time is over or others need the nodes; this shell lives on.",
        "trap : TERM USR1",
        "code=0",
        f"{site.srun} {site.command} {job.command} || code=$?",
        'note ended "$code"',
    ]
    if not site.requeue:
        return [*lines, 'exit "$code"']
    return [
        *lines,
        f"# {REQUEUE}: stopped after saving. A job that somebody cancelled is no longer running, and is left alone.",
        *(['me="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"'] if job.array > 1 else ['me="$SLURM_JOB_ID"']),
        f'if [ "$code" -eq {REQUEUE} ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {site.most_restarts} ] &&',
        '    [[ "$(scontrol show job "$me")" == *JobState=RUNNING* ]]; then',
        "    note requeued",
        '    scontrol requeue "$me" && sleep 60',
        "fi",
        'exit "$code"',
    ]
