"""The chain of an experiment's stages; what is complete for the same inputs and configuration is skipped."""

import contextlib
import importlib
import importlib.metadata
import json
import logging
import os
import platform
import subprocess
import time
from pathlib import Path

from emulator.files.whole_file import whole_file
from emulator.parallel.processes import processes_of
from pipelines import started
from pipelines.chain import Link, chain, differences, marked
from pipelines.config import ConfigError, Experiment
from pipelines.load import to_yaml
from pipelines.running import noting

log = logging.getLogger(__name__)
TRAININGS = ("train", "train_downscaling")  # stages that any number of processes run together
MOST_SHOWN = 5  # settings in a sentence
PACKAGES = ("emulator", "torch", "torch-harmonics", "numpy", "xarray", "zarr", "dask", "jcm", "veros")


def run(experiment: Experiment, only: str | None = None) -> None:
    """Run every stage that the experiment has, in order, or `only` one of them.

    A stage is skipped when its configuration, and everything before it, is what it was when its output was completed, and
    the output is still there. A changed stage is run again, and so is all that follows. Of several processes that run a
    stage together, the first alone writes what is written here. Raises `ConfigError` where `only` names no stage of the
    experiment or a stage before it is not complete.
    """
    links = chain(experiment)
    if only is not None:
        links = [_ready(links, only, experiment)]
    processes = processes_of(os.environ)
    first = processes.rank == 0
    if alone := [link.stage for link in links if not link.complete and not _can_share(link, processes.size)]:
        raise ConfigError(
            f"Expected one process for {', '.join(alone)}, got {processes.size}; several can run --only train together, and "
            "--only rollout as many as its parallel.space"
        )
    if first:
        record(experiment)
    for link in links:
        if link.complete:
            log.info("%s: complete, skipped", link.stage)
            continue
        log.info("%s: starting", link.stage)
        began = time.monotonic()
        with noting(link.note) if first else contextlib.nullcontext():
            importlib.import_module(f"pipelines.{link.stage}").__dict__[link.stage](link.config)
        seconds = time.monotonic() - began
        if first:
            _write(link.mark, json.dumps(_mark(link, seconds)))
        log.info("%s: done in %.0f s", link.stage, seconds)
    if links[-1].stage == "report":
        log.info("report: %s", Path(links[-1].config.output).resolve() / "report.html")


def _can_share(link: Link, processes: int) -> bool:
    """Whether so many processes can run a stage together, all of them to its end."""
    return (
        processes == 1
        or link.stage in TRAININGS
        or (link.stage == "rollout" and link.config.parallel.space == processes)
    )


def record(experiment: Experiment) -> None:
    """Write the resolved configuration and the versions into the run directory."""
    directory = Path(experiment.directory)
    (directory / ".stages").mkdir(parents=True, exist_ok=True)
    _write(directory / started.NAME, to_yaml(experiment))
    _write(directory / started.RECORD, json.dumps({"start": str(Path.cwd())} | provenance(), indent=1))


def _ready(links: list[Link], only: str, experiment: Experiment) -> Link:
    names = [link.stage for link in links]
    if only not in names:
        raise ConfigError(f"Expected one of the experiment's stages {', '.join(names)}, got {only!r}")
    number = names.index(only)
    if unfinished := [link.stage for link in links[:number] if not link.complete]:
        sentence = f"Expected {', '.join(unfinished)} complete in {experiment.directory} before {only}"
        raise ConfigError(f"{sentence}{_otherwise(links[:number])}")
    return links[number]


def _otherwise(links: list[Link]) -> str:
    """What stages were completed for instead, where they were."""
    before = [link.stage for link in links if not link.complete and marked(link.mark)]
    if not before:
        return ""
    changed = [text for link in links for text in differences(link)]
    shown = "; ".join([*changed[:MOST_SHOWN], *([f"{len(changed) - MOST_SHOWN} more"] if changed[MOST_SHOWN:] else [])])
    return f": {', '.join(before)} is complete for another configuration" + (f" ({shown})" if shown else "")


def _mark(link: Link, seconds: float) -> dict:
    return {"fingerprint": link.fingerprint, "seconds": round(seconds, 1), "settings": link.settings}


def provenance() -> dict:
    """Versions, commit and machine, for the run directory and the report."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": versions,
    }


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _write(path: Path, text: str) -> None:
    with whole_file(path, shared=True, flush=False) as scratch:  # jobs of one array may write side by side
        scratch.write_text(text)
