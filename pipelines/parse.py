"""A mapping as a validated model, and its faults in words.

An unknown key is refused with its full path and the nearest right one.
"""

import difflib
import typing
from typing import Any

import pydantic

from pipelines.config import ConfigError, Model
from pipelines.config.declared import OneOf


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
    late = [model for each in field.metadata if isinstance(each, OneOf) for model in each.models().values()]
    return late + _models_named(field.annotation)


def _models_named(annotation) -> list[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models_named(argument)]
