"""The chain of an experiment's stages; what is complete for the same inputs and configuration is skipped."""

import hashlib
import importlib
import importlib.metadata
import json
import logging
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from emulator.world import world_of
from pipelines.config import STAGES, ConfigError, Experiment, Model
from pipelines.load import fingerprint, to_yaml

log = logging.getLogger(__name__)
PACKAGES = ("emulator", "torch", "torch-harmonics", "numpy", "xarray", "zarr", "dask", "jcm")

OUTPUTS = {"simulate": "directory"}  # every other stage writes to its `output`


class Link(NamedTuple):
    """One stage of an experiment's chain.

    Attributes:
      stage, config: its name and configuration.
      fingerprint: hash of the configuration and of everything before it.
      mark: the file that holds the fingerprint of the inputs that the output was completed for.
      output: what the stage leaves.
    """

    stage: str
    config: Model
    fingerprint: str
    mark: Path
    output: Path

    @property
    def complete(self) -> bool:
        return _marked(self.mark) == self.fingerprint and self.output.exists()


def chain(experiment: Experiment) -> list[Link]:
    """The stages that the experiment has, in order."""
    directory, before, links = Path(experiment.directory), "", []
    for stage in STAGES:
        config = getattr(experiment, stage)
        if config is None:
            continue
        before = fingerprint(config, stage, before, _external(stage, config, directory))
        output = Path(getattr(config, OUTPUTS.get(stage, "output")))
        links.append(Link(stage, config, before, directory / ".stages" / f"{stage}.json", output))
    return links


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
    world = world_of(os.environ)
    first = world.rank == 0
    if alone := [link.stage for link in links if link.stage != "train" and world.size > 1 and not link.complete]:
        raise ConfigError(
            f"Expected one process for {', '.join(alone)}, got {world.size}; several can run --only train together"
        )
    if first:
        record(experiment)
    for link in links:
        if link.complete:
            log.info("%s: complete, skipped", link.stage)
            continue
        log.info("%s: starting", link.stage)
        started = time.monotonic()
        importlib.import_module(f"pipelines.{link.stage}").__dict__[link.stage](link.config)
        seconds = time.monotonic() - started
        if first:
            _write(link.mark, json.dumps({"fingerprint": link.fingerprint, "seconds": round(seconds, 1)}))
        log.info("%s: done in %.0f s", link.stage, seconds)
    if links[-1].stage == "report":
        log.info("report: %s", links[-1].output / "report.html")


def record(experiment: Experiment) -> None:
    """Write the resolved configuration and the versions into the run directory."""
    directory = Path(experiment.directory)
    (directory / ".stages").mkdir(parents=True, exist_ok=True)
    _write(directory / "experiment.yaml", to_yaml(experiment))
    _write(directory / "provenance.json", json.dumps(provenance(), indent=1))


def _ready(links: list[Link], only: str, experiment: Experiment) -> Link:
    names = [link.stage for link in links]
    if only not in names:
        raise ConfigError(f"Expected one of the experiment's stages {', '.join(names)}, got {only!r}")
    number = names.index(only)
    if unfinished := [link.stage for link in links[:number] if not link.complete]:
        raise ConfigError(f"Expected {', '.join(unfinished)} complete in {experiment.directory} before {only}")
    return links[number]


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


def _external(stage: str, config, directory: Path) -> str:
    """Sizes and dates of what no earlier stage makes: the local sources of an ingest, stores that go on after the first."""
    found = []
    for store in getattr(config, "later_stores", ()):
        file = Path(store) / "zarr.json"
        found += [f"{file} {file.stat().st_mtime_ns}"] if file.exists() else []
    if stage != "ingest":
        return "\n".join(found)
    for source in config.sources:
        for pattern in [source.path] if isinstance(source.path, str) else source.path:
            path = Path(pattern)
            if "://" in pattern or directory.resolve() in path.resolve().parents:
                continue
            files = sorted(path.parent.glob(path.name)) if path.parent.exists() else []
            found += [f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


def _marked(path: Path) -> str | None:
    try:
        return json.loads(path.read_text()).get("fingerprint")
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(f"{path.name}.{os.getpid()}.partial")  # jobs of one array may write side by side
    scratch.write_text(text)
    os.replace(scratch, path)
