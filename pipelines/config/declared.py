"""Models derived from what the library declares: options are written once, beside the code that they are options of."""

import dataclasses
import functools
import sys
import typing
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union

import pydantic
from pydantic import Field
from pydantic_core import core_schema

from pipelines.config.base import NEW, Model

# Context of a validation that leaves sections of several kinds as they are written: to know the kinds takes an import of the
# library that declares them, and with it of torch, which a stage that does not use the section has no need of.
AS_WRITTEN = {"kinds": "as written"}
LIMITS = {"minimum": "ge", "above": "gt", "maximum": "le", "below": "lt"}


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of a model that the options do not declare, or that they declare otherwise.

    Attributes:
      type: as pydantic annotates it. default: none: it must be given. about: its description; None: the declared one.
      after: the key that it stands after; None: where the options have it.
    """

    type: Any
    default: Any = ...
    about: str | None = None
    after: str | None = None


@functools.cache
def model_of(declared: type, kind: str | None = None, **types: Any) -> type[Model]:
    """A model with the fields of declared options: their order, defaults, limits and descriptions, after a `kind` if any.

    A field's metadata may hold `about` (its description), `new`, `minimum`, `above`, `maximum` and `below` (of its numbers),
    and `shortest` (length of a sequence). Dataclasses within become models too, tuples lists, and `Any` what JSON can hold.
    `types` of single fields take the place of the declared ones, as a `Key` with all else; None leaves a field out. What the
    dataclass refuses as a whole, the model does too.
    """
    hints = typing.get_type_hints(declared)
    fields: dict[str, Any] = {} if kind is None else {"kind": (Literal[kind], kind)}
    for field in dataclasses.fields(declared):
        if types.get(field.name, field) is None or field.name in fields:
            continue
        limits = {LIMITS[name]: value for name, value in field.metadata.items() if name in LIMITS}
        more: dict[str, Any] = {"min_length": field.metadata["shortest"]} if "shortest" in field.metadata else {}
        more |= {"json_schema_extra": NEW} if field.metadata.get("new") else {}
        if field.default_factory is not dataclasses.MISSING:
            more["default_factory"] = field.default_factory
        elif field.default is not dataclasses.MISSING:
            more["default"] = _plain(field.default)
        annotation = types.get(field.name) or _annotation(hints[field.name], limits)
        fields[field.name] = annotation, Field(description=field.metadata.get("about") or None, **more)
    for name, key in types.items():
        if isinstance(key, Key):
            fields = _with_key(fields, name, key)
    checks = {"as_declared": pydantic.model_validator(mode="after")(_check_of(declared))}
    # that of the caller, who keeps it under its name, so that a configuration can be sent to another process
    module = sys._getframe(1).f_globals["__name__"]
    about = {"__base__": Model, "__doc__": declared.__doc__, "__module__": module, "__validators__": checks}
    return pydantic.create_model(declared.__name__.removesuffix("Options") + "Config", **about, **fields)


def _with_key(fields: dict[str, Any], name: str, key: Key) -> dict[str, Any]:
    about = key.about or (fields[name][1].description if name in fields else None)
    made = key.type, Field(key.default, description=about)
    if key.after is None:
        return fields | {name: made}
    names = list(fields)
    place = names.index(key.after) + 1
    return {n: fields[n] for n in names[:place]} | {name: made} | {n: fields[n] for n in names[place:]}


def _check_of(declared: type) -> Callable[[Model], Model]:
    names = {field.name for field in dataclasses.fields(declared)}

    def as_declared(model: Model) -> Model:
        declared.of(model.model_dump(include=names))
        return model

    return as_declared


def _plain(default: Any) -> Any:
    """A default as YAML has it, which is validated like what is given."""
    if dataclasses.is_dataclass(default):
        return dataclasses.asdict(default)
    if isinstance(default, tuple):
        return [_plain(each) for each in default]
    return default


def _annotation(hint: Any, limits: dict[str, float]) -> Any:
    if dataclasses.is_dataclass(hint):
        return model_of(hint)
    if hint is Any:
        return pydantic.JsonValue
    if hint in (int, float):
        return Annotated[hint, Field(**limits)] if limits else hint
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and Ellipsis in arguments:
        return list[_annotation(arguments[0], limits)]
    if origin is None or origin is Literal:
        return hint
    parts = tuple(part if part is type(None) else _annotation(part, limits) for part in arguments)
    return Union[parts] if origin is UnionType else origin[parts]  # noqa: UP007 - a union of a tuple


class OneOf:
    """Annotation of a section whose `kind` says which of several models it is; they are made when one is first validated.

    Args:
      models: makes the models by kind. default: the kind of a section that names none. absent: whether it may be None.
    """

    def __init__(self, models: Callable[[], Mapping[str, type[Model]]], default: str, absent: bool = False):
        self.models, self.default, self.absent = functools.cache(models), default, absent

    def validate(self, value: Any) -> Model:
        """Raises pydantic's `ValidationError`, whose places count from the section, with the kind first."""
        return self._adapter.validate_python({"kind": self.default} | value if isinstance(value, dict) else value)

    @functools.cached_property
    def _adapter(self) -> pydantic.TypeAdapter:
        union = Union[tuple(self.models().values())]  # noqa: UP007 - a union of a tuple
        return pydantic.TypeAdapter(Annotated[union, Field(discriminator="kind")])

    def __get_pydantic_core_schema__(self, source, handler):
        return core_schema.with_info_before_validator_function(self._in_context, core_schema.any_schema())

    def _in_context(self, value: Any, info: core_schema.ValidationInfo) -> Any:
        if info.context == AS_WRITTEN or (self.absent and value is None):
            return value
        return self.validate(value)
