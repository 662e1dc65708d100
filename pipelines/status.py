"""What became of an experiment's stages: from the marks of what is complete, from Slurm, and from notes and logs."""

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

from pipelines import running, slurm, started
from pipelines.chain import Link, chain, marked
from pipelines.config import ConfigError
from pipelines.config.declared import AS_WRITTEN
from pipelines.load import load_experiment
from pipelines.sbatch import REQUEUE, Places
from pipelines.submit import queue


class StageState(NamedTuple):
    """One stage: `state` is complete, running, waiting, failed, stopped or open; `detail` says more; `tail` ends its log."""

    stage: str
    state: str
    detail: str
    tail: list[str]


def status(run: Path, lines: int = 3) -> list[StageState]:
    """The state of every stage of a run directory, with the last lines of the logs of those that work or have failed.

    Raises `ConfigError` where the directory holds no experiment.
    """
    run = Path(run).absolute()
    path = run / started.NAME
    if not path.exists():
        raise ConfigError(f"Expected a run directory with an {started.NAME}, got {run}")
    queued = queue(run)
    known = slurm.states([number for _, number in queued.jobs.values()]) if queued.jobs else {}
    where, stages, broken = Places(run, queued.start), [], ""
    for link in chain(load_experiment(path, context=AS_WRITTEN)):  # with all defaults, as `record` writes it
        jobs = [(name, number) for name, (stage, number) in queued.jobs.items() if stage == link.stage]
        stages.append(_of_stage(link, jobs, known, where, broken, lines))
        if stages[-1].state in ("failed", "stopped"):
            broken = broken or link.stage
    return stages


def as_text(stages: list[StageState]) -> str:
    """The states as plain lines."""
    width = max(len(entry.stage) for entry in stages)
    out = []
    for entry in stages:
        out.append(f"{entry.stage:<{width}}  {entry.state:<8}  {entry.detail}".rstrip())
        out += [f"{'':<{width}}  | {line}" for line in entry.tail]
    return "\n".join(out)


def _of_stage(link: Link, jobs, known, where: Places, broken: str, lines: int) -> StageState:
    stage = link.stage
    if link.complete:
        return StageState(stage, "complete", f"took {marked(link.mark).get('seconds', 0):.0f} s", [])
    noted = running.read(link.note)
    if not jobs:
        return StageState(stage, "running" if noted and noted.alive else "open", _progress(link), [])
    entries = [
        (name, number, entry) for name, number in jobs for entry in known.get(number, [_from_notes(where, name)])
    ]
    for name, number, entry in entries:
        if entry.state in ("RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED"):
            again = f", started again {entry.restarts} times" if entry.restarts else ""
            detail = ", ".join(filter(None, [f"job {number} for {entry.seconds}{again}", _progress(link)]))
            return StageState(stage, "running", detail, _tail(where, name, number, lines))
    if noted and noted.alive:  # a person has started it without Slurm since
        return StageState(stage, "running", _progress(link), [])
    for _, number, entry in entries:
        if entry.state == "PENDING" and "NeverSatisfied" not in entry.reason:
            again = f", after {entry.restarts} starts" if entry.restarts else ""
            detail = ", ".join(filter(None, [f"job {number}: {entry.reason}{again}", _progress(link)]))
            return StageState(stage, "waiting", detail, [])
    if broken:
        return StageState(stage, "stopped", f"it needs {broken}", [])
    failed = [job for job in entries if job[2].state in slurm.ENDED_BADLY]
    if failed:  # the last that failed by itself, and not because a job before it did, as behind an array
        name, number, entry = max(failed, key=lambda job: ("Dependency" not in job[2].reason, failed.index(job)))
        why = _error(where, name, number) or f"{entry.state} {entry.reason}".strip()
        code = f", exit code {entry.code}" if entry.code else ""
        detail = ", ".join(filter(None, [f"job {number}{code}: {why}", _progress(link)]))
        return StageState(stage, "failed", detail, _tail(where, name, number, lines))
    return StageState(stage, "open", _progress(link), [])


def _from_notes(where: Places, name: str) -> slurm.JobState:
    """What a job's script noted last, where Slurm has forgotten the job."""
    texts = [
        path.read_text().splitlines()
        for path in sorted(where.notes.glob(f"{name}*"))
        if path.name in _names(name, path)
    ]
    last = [lines[-1].split() for lines in texts if lines]
    codes = [int(words[3]) for words in last if words[2] == "ended"]
    if not last:
        return slurm.JobState("UNKNOWN", "", 0, 0, "")
    if len(codes) < len(last):
        return slurm.JobState("FAILED", "ended without a word: Slurm killed it, or its node died", 0, -1, "")
    worst = max(codes)
    reason = "stopped after saving and was not queued again" if worst == REQUEUE else ""
    return slurm.JobState("FAILED" if worst else "COMPLETED", reason, 0, worst, "")


def _names(name: str, path: Path) -> set[str]:
    """A job's own notes and those of its array's tasks, and not those of a job whose name begins alike."""
    return {name} | ({path.name} if re.fullmatch(rf"{re.escape(name)}_\d+", path.name) else set())


def _logs(where: Places, name: str, number: int) -> list[Path]:
    logs = [
        path for path in where.logs.glob(f"{name}-{number}*.log") if re.fullmatch(rf"{name}-{number}(_\d+)?", path.stem)
    ]
    return sorted(logs, key=lambda path: path.stat().st_mtime)


def _tail(where: Places, name: str, number: int, lines: int) -> list[str]:
    logs = _logs(where, name, number)
    return _last_lines(logs[-1])[-lines:] if logs and lines else []


def _error(where: Places, name: str, number: int) -> str:
    """The last sentence of a fault in a job's logs."""
    for path in reversed(_logs(where, name, number)):
        for line in reversed(_last_lines(path)):
            if re.match(r"(error|slurmstepd: error|srun: error|sbatch: error): ", line):
                if not line.startswith("srun: error: ") or "task" not in line:  # srun's word that a task has failed
                    return line
    return ""


def _last_lines(path: Path, most_bytes: int = 1 << 16) -> list[str]:
    with open(path, "rb") as stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - most_bytes))
        return [line for line in stream.read().decode(errors="replace").splitlines() if line.strip()]


def _progress(link: Link) -> str:
    """How far a stage is, or was when it was killed, from its note; without one a training's own log tells."""
    if (noted := running.read(link.note)) is not None and noted.text:
        return noted.text if noted.alive else f"ended at {noted.text}"
    if link.stage != "train":
        return ""
    path = Path(link.config.output) / "timing.jsonl"
    try:
        row = json.loads(_last_lines(path)[-1])
    except (FileNotFoundError, IndexError, json.JSONDecodeError):
        return ""
    total = sum(phase.updates for phase in link.config.phases)
    return f"update {row['update']} of {total}, about {row['remaining_seconds']:.0f} s of work left"
