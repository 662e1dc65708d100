"""YAML files and overrides to validated configurations, and back.

A YAML file may inherit with `base:` (a path beside it, at any depth), and the command line may override single values by
dotted name. An unknown key is refused with its full path and the nearest right one.
"""

import difflib
import hashlib
import json
import re
import typing
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pydantic
import yaml

from pipelines.config import STAGES, ConfigError, Experiment, Model
from pipelines.config.declared import AS_WRITTEN, OneOf
from pipelines.config.networks import DEFAULT_KIND
from pipelines.started import settled, start_of


def _default_paths(raw: dict) -> dict[str, dict[str, Any]]:
    """Where the stages of an experiment put and find their files, unless the YAML says otherwise."""
    at = Path(raw["directory"])
    rollout = raw.get("rollout") if isinstance(raw.get("rollout"), dict) else {}
    paths: dict[str, dict[str, Any]] = {
        "simulate": {"directory": at / "simulation"},
        "ingest": {"output": at / "analysis.zarr"},
        "stats": {"store": at / "analysis.zarr", "output": at / "statistics.nc"},
        "train": {"store": at / "analysis.zarr", "statistics": at / "statistics.nc", "output": at / "train"},
        "rollout": {
            "store": at / "analysis.zarr",
            "checkpoint": at / "train" / "checkpoint",
            "output": at / "forecast.zarr",
        },
        "verify": {"truth": at / "analysis.zarr", "output": at / "scores.nc"},
        "report": {"scores": at / "scores.nc", "output": at / "report"},
    }
    if rollout:
        paths["verify"]["forecasts"] = {"emulator": at / "forecast.zarr"}
    if rollout.get("uncorrected_inits"):
        paths["verify"]["audit"] = {"without corrections": at / "uncorrected.zarr"}
    if rollout.get("long_run_days"):
        paths["report"]["long_run"] = at / "long_run.zarr"
        paths["verify"]["long_runs"] = {"emulator": at / "long_run.zarr"}
    if isinstance(raw.get("train"), dict):
        paths["stats"]["later_stores"] = raw["train"].get("later_stores") or []
        paths["report"]["metrics"] = at / "train" / "metrics.jsonl"
        stats = raw.get("stats") if isinstance(raw.get("stats"), dict) else {}
        if raw["train"].get("predict", "change") != "change" and stats.get("climatology"):
            paths["train"]["climatology"] = paths["rollout"]["climatology"] = stats["climatology"]
    return paths


def load_experiment(path: Path, overrides: Sequence[str] = (), context: dict | None = None) -> Experiment:
    """The experiment in a YAML file, with defaults for the paths between stages. Raises `ConfigError`.

    `context`: `declared.AS_WRITTEN` leaves the network's section as it is written, else None.

    Relative paths are relative to the working directory, as on the command line; those of a run directory's own file to
    where the run was started.
    """
    raw = read_yaml(path)
    if (start := start_of(path)) is not None:
        experiment = settled(parse(Experiment, raw, str(path), context), Path(path).parent, start, context)
        raw = json.loads(experiment.model_dump_json())
    raw = _apply_overrides(raw, overrides)
    if not isinstance(raw.get("directory"), str):
        got = repr(raw["directory"]) if "directory" in raw else sorted(map(str, raw))
        raise ConfigError(f"Expected a key 'directory' (the run directory) in {path}, got {got}")
    for stage, paths in _default_paths(raw).items():
        if isinstance(raw.get(stage), dict):
            raw[stage] = {**paths, **raw[stage]}
    if isinstance(raw.get("ingest"), dict) and "sources" not in raw["ingest"] and isinstance(raw.get("simulate"), dict):
        raw["ingest"]["sources"] = [{"path": f"{raw['simulate']['directory']}/*.nc"}]
    experiment = parse(Experiment, raw, str(path), context)
    if not any(getattr(experiment, stage) for stage in STAGES):
        raise ConfigError(f"Expected at least one stage of {', '.join(STAGES)} in {path}, got none")
    return experiment


def load_stage(stage: str, path: Path, overrides: Sequence[str] = ()) -> Model:
    """One stage's configuration, from a file of its own or from its section of an experiment. Raises `ConfigError`.

    Of an experiment, names that begin with `directory` or a stage are meant from the top (`train.seed`), others within
    the stage's section (`seed`).
    """
    raw = read_yaml(path)
    if not any(name in raw for name in STAGES):
        return parse(STAGES[stage], _apply_overrides(raw, overrides), str(path))
    from_top = [re.split(r"[.=]", override)[0] in Experiment.model_fields for override in overrides]
    full = [o if top else f"{stage}.{o}" for o, top in zip(overrides, from_top, strict=True)]
    context = None if stage == "train" else AS_WRITTEN  # of the others none uses the network's section
    section = getattr(load_experiment(path, full, context), stage)
    if section is None:
        raise ConfigError(f"Expected a section '{stage}' in {path}, got {', '.join(map(str, raw))}")
    return section


def read_yaml(path: Path, seen: tuple[Path, ...] = ()) -> dict:
    """A YAML mapping with every `base:` merged in. Raises `ConfigError` naming the file."""
    path = Path(path)
    if path.resolve() in seen:
        raise ConfigError(f"Expected `base:` files without a cycle, got {path} again")
    try:
        raw = _parsed(path.read_text(), str(path))
    except OSError as error:
        raise ConfigError(f"Expected a readable configuration file, got {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"Expected valid YAML in {path}, got: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"Expected a mapping at the top of {path}, got {type(raw).__name__}")
    return _merge_bases(raw, path, (*seen, path.resolve()))


def _parsed(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # a day that no month has is a ValueError
        raise ConfigError(f"Expected valid YAML in {where}, got: {' '.join(str(error).split())}") from None


def _merge_bases(node: Any, path: Path, seen: tuple[Path, ...]) -> Any:
    if isinstance(node, list):
        return [_merge_bases(item, path, seen) for item in node]
    if not isinstance(node, dict):
        return node
    own = {key: _merge_bases(value, path, seen) for key, value in node.items() if key != "base"}
    if "base" not in node:
        return own
    if not isinstance(node["base"], str):
        raise ConfigError(f"Expected the path of a file after `base:` in {path}, got {node['base']!r}")
    return _merge(read_yaml(path.parent / node["base"], seen), own)


def _merge(base: dict, own: dict) -> dict:
    merged = dict(base)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        if both and key == "network":  # a network of another kind takes nothing from the base's
            kind = merged[key].get("kind", DEFAULT_KIND)
            both = value.get("kind", kind) == kind
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _apply_overrides(raw: dict, overrides: Sequence[str]) -> dict:
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise ConfigError(f"Expected overrides of the form dotted.name=value, got {override!r}")
        node: Any = raw
        *parents, last = name.split(".")
        for depth, parent in enumerate(parents):
            if isinstance(node, list):
                node = node[_index(parent, node, override)]
                continue
            node[parent] = {} if node.get(parent) is None else node[parent]
            node = node[parent]
            if not isinstance(node, dict | list):
                section = ".".join(parents[: depth + 1])
                raise ConfigError(f"Expected a section at {section} for {override!r}, got {node!r}")
        node[_index(last, node, override) if isinstance(node, list) else last] = _value(text, override)
    return raw


def _value(text: str, override: str) -> Any:
    value = _parsed(text, f"the override {override!r} (text with ': ' needs quotes inside)") if text else None
    try:
        return float(value) if isinstance(value, str) else value  # YAML 1.1 reads 2e-4 as text
    except ValueError:
        return value


def _index(text: str, items: list, override: str) -> int:
    if not text.isdigit() or int(text) >= len(items):
        raise ConfigError(f"Expected an index below {len(items)} in {override!r}, got {text!r}")
    return int(text)


def parse(model: type[Model], raw: dict, where: str, context: dict | None = None) -> Any:
    """A validated model. Raises `ConfigError` with one sentence on the first faults."""
    try:
        return model.model_validate(raw, context=context)
    except pydantic.ValidationError as error:
        raise ConfigError("; ".join(_sentence(model, fault, where) for fault in error.errors()[:3])) from None


def _sentence(model, fault, where) -> str:
    _, shown = _walk(model, fault["loc"])
    path = ".".join(shown)
    if fault["type"] == "extra_forbidden":
        models, _ = _walk(model, fault["loc"][:-1])
        known = sorted(name for candidate in models for name in candidate.model_fields)
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1, cutoff=0.4)
        prefix = "".join(f"{part}." for part in shown[:-1])
        hint = f"; nearest: {prefix}{near[0]}" if near else f"; known: {', '.join(known)}"
        return f"Unknown key {path} in {where}{hint}"
    if fault["type"] == "missing":
        return f"Missing key {path} in {where}"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{message} at {path} in {where}, got {fault['input']!r}"


def _walk(model, location) -> tuple[list[type[Model]], list[str]]:
    """Models that a location of pydantic's points into, and its parts as a user wrote them."""
    models, shown = [model], []
    for part in location:
        # where several models may stand, pydantic adds the kind that was chosen, which is no key of the file
        chosen = [m for m in models if "kind" in m.model_fields and m.model_fields["kind"].default == part]
        if len(models) > 1 and chosen:
            models = chosen
            continue
        shown.append(str(part))
        within = []
        for candidate in models:
            field = candidate.model_fields.get(str(part))
            within += _models_in(field) if field else [candidate] if isinstance(part, int) else []
        models = within or models
    return models, shown


def _models_in(field: pydantic.fields.FieldInfo) -> list[type[Model]]:
    """The models that a field may hold, however deep in lists and unions."""
    late = [model for mark in field.metadata if isinstance(mark, OneOf) for model in mark.models().values()]
    return late + _models_named(field.annotation)


def _models_named(annotation) -> list[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models_named(argument)]


def to_yaml(config: Model) -> str:
    """The resolved configuration as YAML that loads to the same model."""
    return yaml.safe_dump(json.loads(config.model_dump_json()), sort_keys=False)


def fingerprint(config: Model, *more: str, without: Collection[str] = ()) -> str:
    """Hash of a configuration, `without` some of its keys, and of whatever else determines a stage's result."""
    text = json.dumps(json.loads(config.model_dump_json(exclude=set(without))), sort_keys=True)
    return hashlib.sha256("\n".join([text, *more]).encode()).hexdigest()[:16]
