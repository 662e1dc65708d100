"""Slurm's commands: submit a script, and ask what became of jobs."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

ENDED_BADLY = (
    "BOOT_FAIL",
    "CANCELLED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
)
WAITS_OR_WORKS = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "STOPPED")


class SlurmError(RuntimeError):
    """Slurm refused a command or cannot be reached; the message holds its own words."""


class JobState(NamedTuple):
    """What Slurm says of a job: its state, why it waits or ended, how often it was started again, and its exit code."""

    state: str
    reason: str
    restarts: int
    code: int
    seconds: str


def submit(script: Path, after: Iterable[int] = (), after_any: Iterable[int] = ()) -> int:
    """Queue a script behind others, and return its number; it is cancelled when one of `after` fails.

    Raises `SlurmError` with Slurm's words.
    """
    conditions = [
        f"{kind}:{':'.join(map(str, jobs))}" for kind, jobs in (("afterok", after), ("afterany", after_any)) if jobs
    ]
    options = [f"--dependency={','.join(conditions)}", "--kill-on-invalid-dep=yes"] if conditions else []
    answer = _ask(["sbatch", "--parsable", *options, str(script)])
    return int(answer.strip().split(";")[0])


def check(script: Path) -> None:
    """Asks Slurm whether it would take a script. Raises `SlurmError` with its words where it would not."""
    _ask(["sbatch", "--test-only", str(script)])


def cancel(jobs: Sequence[int]) -> None:
    _ask(["scancel", *map(str, jobs)])


def states(jobs: Iterable[int]) -> dict[int, list[JobState]]:
    """What Slurm knows of some jobs, one entry for each task of an array; jobs that it has forgotten are left out.

    The controller forgets a job minutes after its end; the accounts, where the cluster keeps them, do not.
    """
    by_job: dict[int, list[JobState]] = {}
    for job in jobs:
        entries = _from_controller(job) or _from_accounts(job)
        if entries:
            by_job[job] = entries
    return by_job


def _from_controller(job: int) -> list[JobState]:
    try:
        text = _ask(["scontrol", "--oneliner", "show", "job", str(job)])
    except SlurmError as error:
        if "Invalid job id" in str(error):
            return []
        raise
    entries = []
    for line in text.splitlines():
        fields = dict(re.findall(r"(\S+?)=(\S*)", line))
        if "JobState" in fields:
            code = int(fields.get("ExitCode", "0:0").split(":")[0])
            restarts = int(fields.get("Restarts", 0))
            entries.append(
                JobState(fields["JobState"], fields.get("Reason", ""), restarts, code, fields.get("RunTime", ""))
            )
    return entries


def _from_accounts(job: int) -> list[JobState]:
    if shutil.which("sacct") is None:
        return []
    asked = [
        "sacct",
        "--allocations",
        "--noheader",
        "--parsable2",
        f"--jobs={job}",
        "--format=State,Reason,ExitCode,Elapsed",
    ]
    try:
        text = _ask(asked)
    except SlurmError:
        return []  # no accounts are kept
    entries = []
    for line in text.splitlines():
        state, reason, code, seconds = line.split("|")
        entries.append(JobState(state.split()[0], reason, 0, int(code.split(":")[0]), seconds))
    return entries


def _ask(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        raise SlurmError(f"Expected Slurm's command {command[0]}, it is not installed here") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"Expected an answer of {command[0]} within two minutes, got none") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise SlurmError(f"{command[0]} refused: {said or f'exit code {done.returncode}'}")
    return done.stdout
