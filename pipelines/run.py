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

from pipelines.config import STAGES, Experiment
from pipelines.load import fingerprint, to_yaml

log = logging.getLogger(__name__)
PACKAGES = ("emulator", "torch", "torch-harmonics", "numpy", "xarray", "zarr", "dask", "jcm")

OUTPUTS = {"simulate": "directory"}  # every other stage writes to its `output`


def run(experiment: Experiment) -> None:
    """Run every stage that the experiment has, in order.

    A stage is skipped when its configuration, and everything before it, is what it was when its output was completed, and
    the output is still there. A changed stage is run again, and so is all that follows.
    """
    directory = Path(experiment.directory)
    marks = directory / ".stages"
    marks.mkdir(parents=True, exist_ok=True)
    _write(directory / "experiment.yaml", to_yaml(experiment))
    _write(directory / "provenance.json", json.dumps(provenance(), indent=1))
    before = ""
    for stage in STAGES:
        config = getattr(experiment, stage)
        if config is None:
            continue
        before = fingerprint(config, stage, before, _external(stage, config, directory))
        mark, output = marks / f"{stage}.json", Path(getattr(config, OUTPUTS.get(stage, "output")))
        if _marked(mark) == before and output.exists():
            log.info("%s: complete, skipped", stage)
            continue
        log.info("%s: starting", stage)
        started = time.monotonic()
        importlib.import_module(f"pipelines.{stage}").__dict__[stage](config)
        seconds = time.monotonic() - started
        _write(mark, json.dumps({"fingerprint": before, "seconds": round(seconds, 1)}))
        log.info("%s: done in %.0f s", stage, seconds)
    if experiment.report is not None:
        log.info("report: %s", Path(experiment.report.output) / "report.html")


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
    """Sizes and dates of the local sources of an ingest that no earlier stage makes."""
    if stage != "ingest":
        return ""
    found = []
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
    scratch = path.with_name(path.name + ".partial")
    scratch.write_text(text)
    os.replace(scratch, path)
