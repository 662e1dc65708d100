"""An experiment's stages as links: each knows what its result depends on, and whether that result is there."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.config import STAGES, Experiment, Model
from pipelines.outputs import files, written


class Link(NamedTuple):
    """One stage of an experiment's chain.

    Attributes:
      stage, config: its name and configuration.
      fingerprint: hash of the configuration, of the sources, and of everything before it; the same wherever the run
        directory lies.
      mark: the file that holds the fingerprint of the inputs that the outputs were completed for.
      outputs: all that the stage leaves.
      settings: what the fingerprint was made of, besides what lies before: the configuration, with paths as text.
    """

    stage: str
    config: Model
    fingerprint: str
    mark: Path
    outputs: list[Path]
    settings: dict[str, Any]

    @property
    def note(self) -> Path:
        """Where the process that works on the stage notes how far it is."""
        return self.mark.with_suffix(".running")

    @property
    def complete(self) -> bool:
        return marked(self.mark).get("fingerprint") == self.fingerprint and all(path.exists() for path in self.outputs)


def chain(experiment: Experiment) -> list[Link]:
    """The stages that the experiment has, in order."""
    home, made, before, links = Path(experiment.directory), set(), "", []
    for stage in STAGES:
        config = getattr(experiment, stage)
        if config is None:
            continue
        made |= {path.resolve() for path in written(stage, config)}
        content = config.model_dump()
        if stage == "ingest":
            content["sources"] = [
                source | {"path": _found(source["path"], made)}
                for one in config.stores()
                for source in one.model_dump()["sources"]
            ]
        text = json.dumps(_described(content, home.resolve(), made), sort_keys=True, default=str)
        settings = json.loads(text)
        before = hashlib.sha256("\n".join([stage, before, text]).encode()).hexdigest()[:16]
        links.append(Link(stage, config, before, home / ".stages" / f"{stage}.json", files(stage, config), settings))
    return links


def differences(link: Link) -> list[str]:
    """Settings of a stage in which what it was completed for differs from what is asked for now, as `name then, not now`.

    Empty where the stage was never completed, or where all its own settings are the same.
    """
    then = marked(link.mark).get("settings")
    if not isinstance(then, dict):
        return []
    before, now = (dict(_flat(settings)) for settings in (then, link.settings))
    names = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    return [f"{link.stage}.{name} {_shown(before.get(name))}, not {_shown(now.get(name))}" for name in names]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None or not value:
        yield name, value
        return
    for key, item in items:
        yield from _flat(item, f"{name}.{key}" if name else str(key))


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)


def marked(path: Path) -> dict:
    """What was noted of a complete stage; nothing where there is no note, or a damaged one."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _described(value: Any, home: Path, made: set[Path]) -> Any:
    """A configuration with every path told by its place in the run directory, and what no stage makes by size and date."""
    if isinstance(value, dict):
        return {key: _described(item, home, made) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_described(item, home, made) for item in value]
    if not isinstance(value, Path):
        return value
    path = value.resolve()
    place = path.relative_to(home) if path.is_relative_to(home) else path
    return f"{place}{'' if _is_made(path, made) else _state(path)}"


def _is_made(path: Path, made: set[Path]) -> bool:
    return any(folder in made for folder in (path, *path.parents))


def _state(path: Path) -> str:
    """Size and date of a file, of a store's metadata or of a checkpoint's; nothing for what is not there."""
    from emulator.sources.open import identity  # heavy, and not needed by every experiment

    saved = path / "checkpoint.json"
    known = str(saved if saved.exists() else path)
    return identity(known).removeprefix(known)


def _found(patterns: str | list[str], made: set[Path]) -> list[str | Path]:
    """What ingest would read, as paths; patterns of what a stage makes, and URLs, stay as they are.

    URLs are not asked for dates: nodes that only train or forecast may have no network.
    """
    from emulator.sources.open import find

    paths: list[str | Path] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if "://" in pattern:
            paths.append(pattern)
        elif _is_made(Path(pattern).resolve(), made):
            paths.append(Path(pattern))
        else:
            try:
                paths += map(Path, find(pattern))
            except ValueError:  # nothing there: ingest says so when it runs
                continue
    return paths
