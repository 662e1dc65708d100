"""A mapping as a validated model, and its faults in words.

An unknown key is refused with its full path and the nearest right one.
"""

import difflib
import types
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
        sentences = [_sentence(model, faults, where) for faults in _by_place(model, error.errors())]
        raise ConfigError("; ".join(sentences[:3])) from None


def _by_place(model, faults) -> list[list[dict]]:
    """Faults of one value together: where it may be of several types, pydantic says of each why it is not.

    Those that found something wrong within the value know what it was meant to be, and those that refuse its number too.
    """
    within: dict[tuple, list[dict]] = {}
    for fault in faults:
        _, shown = _walk(model, fault["loc"])
        within.setdefault(tuple(shown), []).append(fault)
    deepest = {
        place for place in within if not any(other != place and other[: len(place)] == place for other in within)
    }
    groups = [within[place] for place in within if place in deepest]
    meant = [[fault for fault in group if not fault["type"].endswith(("_type", "_parsing"))] for group in groups]
    return [some or group for some, group in zip(meant, groups, strict=True)]


def _sentence(model, faults, where) -> str:
    fault = faults[0]
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
    messages = [each["msg"].removeprefix("Value error, ") for each in faults]
    message = " or ".join([messages[0], *(text.removeprefix("Input should be ") for text in messages[1:])])
    whole = fault["type"] == "value_error" and isinstance(fault["input"], dict | Model)  # its message says which keys
    got = "" if whole else f", got {fault['input']!r}"
    return f"{message}{f' at {path}' if path else ''} in {where}{got}"


def _walk(model, location) -> tuple[list[type[Model]], list[str]]:
    """Models that a location of pydantic's points into, and its parts as a user wrote them."""
    models, shown, labelled = [model], [], False
    for part in location:
        if labelled:  # a type of several that the value may be of, which is no key either
            labelled = False
            continue
        # where several models may stand, pydantic adds the kind that was chosen, which is no key of the file
        chosen = [m for m in models if "kind" in m.model_fields and m.model_fields["kind"].default == part]
        if len(models) > 1 and chosen:
            models = chosen
            continue
        shown.append(str(part))
        within = []
        for candidate in models:
            field = candidate.model_fields.get(str(part))
            within += models_in(field) if field else [candidate] if isinstance(part, int) else []
            labelled |= field is not None and len(_alternatives(field.annotation)) > 1
        models = within or models
    return models, shown


def _alternatives(annotation) -> list:
    """The types that a value may be of, besides None."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _alternatives(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return [each for argument in arguments for each in _alternatives(argument) if each is not type(None)]
    return [annotation]


def models_in(field: pydantic.fields.FieldInfo) -> list[type[Model]]:
    """The models that a field may hold, however deep in lists and unions."""
    late = [model for each in field.metadata if isinstance(each, OneOf) for model in each.models().values()]
    return late + models_named(field.annotation)


def models_named(annotation) -> list[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in models_named(argument)]
