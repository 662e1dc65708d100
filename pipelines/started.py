"""Where a run was started, so that the relative paths of its own experiment.yaml mean the same from everywhere."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.config import Experiment

NAME = "experiment.yaml"
RECORD = "provenance.json"


def start_of(path: Path) -> Path | None:
    """The folder that the paths of a run directory's own `experiment.yaml` are relative to; None for any other file."""
    try:
        record = json.loads((Path(path).absolute().parent / RECORD).read_text())
    except (OSError, ValueError):
        return None
    start = record.get("start") if isinstance(record, dict) else None
    return Path(start) if isinstance(start, str) and Path(path).name == NAME else None


def settled(experiment: Experiment, run: Path, start: Path, context: dict | None = None) -> Experiment:
    """The experiment that lies in the directory `run`, with paths that hold in the working directory.

    `context`: as of `load.load_experiment`.

    What lay in the run directory is looked for in `run`, wherever that was moved or copied to; all else stays where it was
    from `start`. Where both are as when the run was made, nothing changes.
    """
    run = Path(run).resolve()
    before = (start / experiment.directory).resolve()
    if before == run and start.resolve() == Path.cwd():
        return experiment

    def place(path: Path) -> Path:
        full = start / path
        inside = next(
            (full.relative_to(home) for home in (start / experiment.directory, before) if _in(full, home)), None
        )
        return full if inside is None else run / inside

    content = _each_path(experiment.model_dump(), place)
    for source in (content.get("ingest") or {}).get("sources", ()):
        patterns = source["path"]
        source["path"] = (
            _text(patterns, place) if isinstance(patterns, str) else [_text(each, place) for each in patterns]
        )
    return Experiment.model_validate(content, context=context)


def _in(path: Path, home: Path) -> bool:
    return path.is_relative_to(home)


def _text(pattern: str, place: Callable[[Path], Path]) -> str:
    return pattern if "://" in pattern else str(place(Path(pattern)))


def _each_path(value: Any, place: Callable[[Path], Path]) -> Any:
    if isinstance(value, dict):
        return {key: _each_path(item, place) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_each_path(item, place) for item in value]
    return place(value) if isinstance(value, Path) else value
