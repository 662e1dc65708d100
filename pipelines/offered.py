"""What Tab offers: commands and options, configuration files, and dotted keys with their values.

Keys are those of the configuration's models; of a section whose kind decides its keys those of the kind that is typed or
written in the configuration file. The models are imported where keys are asked for alone.
"""

import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union

import click

YAML = (".yaml", ".yml")


def configurations(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Configuration files and folders; for reports any path, of scores and run directories."""
    every = context.info_name == "report"
    return [path for path in paths_from(begun) if every or path.endswith(("/", *YAML))]


def paths(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Files and folders."""
    return paths_from(begun)


def networks(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Kinds of networks."""
    from pipelines.config.networks import NETWORKS

    return [kind for kind in NETWORKS.models() if kind.startswith(begun)]


def overrides(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Dotted keys of the command's configuration, or the values of one, as far as they are known."""
    from pipelines.config import STAGES, ConfigError, Experiment
    from pipelines.yaml_files import apply_overrides, read_yaml

    stage, config = context.info_name, context.params.get("config")
    try:
        raw = apply_overrides(read_yaml(config), context.params.get("overrides") or [])
    except (ConfigError, TypeError):  # what is typed so far need not be right
        raw = {}
    key, equals, text = begun.partition("=")
    *parents, last = key.split(".")
    tops = [(Experiment, raw)] if stage not in STAGES or any(name in raw for name in STAGES) else []
    tops += [(STAGES[stage], raw.get(stage) or {} if tops else raw)] if stage in STAGES else []
    found: list[str] = []
    for model, written in tops:
        for section, own in _sections(model, written, parents, every_kind=last == "kind" and bool(equals)):
            if equals and last in section.model_fields:
                found += [f"{key}={value}" for value in _values(section.model_fields[last], text)]
            elif not equals:
                found += [
                    f"{key[: len(key) - len(last)]}{name}" for name in _names(section, own) if name.startswith(last)
                ]
    return list(dict.fromkeys(found))


def _sections(model: type, raw: Any, parents: Sequence[str], every_kind: bool) -> Iterator[tuple[type, Any]]:
    """The models below a dotted name, with what is written there.

    Of a section of several kinds that of the kind which is written or the default, or with `every_kind` all of them.
    """
    from pipelines.config.declared import OneOf
    from pipelines.parse import models_in

    if not parents:
        yield model, raw
        return
    name, *rest = parents
    field = model.model_fields.get(name)
    if field is None:
        return
    written = raw.get(name) if isinstance(raw, dict) else None
    if isinstance(written, list) and rest:
        if not rest[0].isdigit() or int(rest[0]) >= len(written):
            return
        number, *rest = rest
        written = written[int(number)]
    default = next((each.default for each in field.metadata if isinstance(each, OneOf)), None)
    kind, models = (written.get("kind") if isinstance(written, dict) else None) or default, models_in(field)
    chosen = [one for one in models if "kind" in one.model_fields and one.model_fields["kind"].default == kind]
    for one in models if (every_kind and not rest) or not chosen else chosen:
        yield from _sections(one, written, rest, every_kind)


def _names(model: type, raw: Any) -> Iterator[str]:
    """The keys of a model, or numbers in a list, with a point after a section, and `=` after what has a value."""
    if isinstance(raw, list):
        yield from (f"{number}." for number in range(len(raw)))
        return
    from pipelines.config.declared import OneOf
    from pipelines.parse import models_named

    for name, field in model.model_fields.items():
        written = raw.get(name) if isinstance(raw, dict) else None
        if isinstance(written, list) and models_named(field.annotation):
            yield from (f"{name}.{number}." for number in range(len(written)))
        elif models_named(field.annotation) or any(isinstance(each, OneOf) for each in field.metadata):
            yield f"{name}."
        else:
            yield f"{name}="


def _values(field: Any, begun: str) -> list[str]:
    types = _alternatives(field.annotation)
    found = [each for one in types if typing.get_origin(one) is Literal for each in typing.get_args(one)]
    found += ["true", "false"] if bool in types else []
    found += [name for each in field.metadata for name in getattr(getattr(each, "func", None), "names", list)()]
    paths = paths_from(begun) if Path in types else []
    return [str(value) for value in found if str(value).startswith(begun)] + paths


def _alternatives(annotation: Any) -> list:
    if typing.get_origin(annotation) is typing.Annotated:
        return _alternatives(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (Union, UnionType):
        return [each for one in typing.get_args(annotation) for each in _alternatives(one)]
    return [annotation]


def paths_from(begun: str) -> list[str]:
    """Files and folders whose path goes on as begun; those that begin with a point only where one is typed."""
    folder, _, name = begun.rpartition("/")
    at = Path(f"{folder}/" if "/" in begun else ".").expanduser()
    found = sorted(at.iterdir()) if at.is_dir() else []
    shown = [path for path in found if path.name.startswith(name) and (name or not path.name.startswith("."))]
    return [f"{begun[: len(begun) - len(name)]}{path.name}{'/' * path.is_dir()}" for path in shown]
