"""Options as frozen dataclasses: each field with its default, meaning and limits, declared where the thing itself is.

A configuration derives its models from them, so that nothing is declared twice; without one they check themselves.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

LIMITS = {"minimum": "at least", "above": "above", "maximum": "at most", "below": "below"}  # as messages word them


class OptionError(ValueError):
    """Options that cannot be read, in one sentence."""


def option(
    default: Any = dataclasses.MISSING, about: str = "", new: bool = False, keyword: bool = False, **limits: float
) -> Any:
    """A field of `Options`: its default (none: it must be given), what it means, and what its numbers may be.

    Args:
      new: the option was added to options that older runs have recorded: a configuration writes it only where it differs from
        its default, so that their fingerprints stay (see `as_before`). keyword: it is given by name alone.

    `limits`: `minimum` (at least), `above`, `maximum` (at most) and `below`, of each number of a sequence or mapping too;
    `shortest`: least length of a sequence.
    """
    if unknown := set(limits) - {*LIMITS, "shortest"}:
        raise TypeError(f"Expected limits among {', '.join(LIMITS)} and shortest, got {', '.join(sorted(unknown))}")
    metadata = {"about": about, "new": new, **limits}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata, kw_only=keyword)
    return dataclasses.field(default=default, metadata=metadata, kw_only=keyword)


@dataclasses.dataclass(frozen=True)
class Options:
    """Base of frozen dataclasses whose fields are `option`s. Raises `ValueError` for a value outside its limits."""

    def __post_init__(self):
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            _check(field.name, getattr(self, field.name), hints[field.name], field.metadata)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Options from what YAML or JSON can hold.

        Raises `OptionError` for a name that is no option, for one that has to be given and is not, and for a single value or
        a text in place of a sequence.
        """
        if not isinstance(given, Mapping):
            raise OptionError(f"Expected options by name, got {given!r}")
        hints = get_type_hints(cls)
        names = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(set(given) - set(names)):
            raise OptionError(f"Expected options among {', '.join(names)}, got {', '.join(unknown)}")
        needed = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
        if missing := [name for name in needed if name not in given]:
            raise OptionError(f"Expected the options {', '.join(needed)}, got no {', '.join(missing)}")
        return cls(**{name: _read(name, value, hints[name]) for name, value in given.items()})


def as_before(options: Options) -> dict[str, Any]:
    """Options as a mapping, without new ones at their default: what is told by their hash stays what it was."""
    values = dataclasses.asdict(options)
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        if field.metadata.get("new") and value == default:
            del values[field.name]
        elif isinstance(value, Options):
            values[field.name] = as_before(value)
        elif isinstance(value, tuple) and value and isinstance(value[0], Options):
            values[field.name] = tuple(as_before(each) for each in value)
    return values


def _check(name, value, hint, metadata):
    if get_origin(hint) in (Union, UnionType):
        chosen = [each for each in get_args(hint) if each is not type(None)]
        hint = chosen[0] if len(chosen) == 1 and value is not None else None
    given = list(value.values()) if isinstance(value, Mapping) else value
    values = given if isinstance(given, list | tuple) else () if given is None else (given,)
    hint = get_args(hint)[0] if get_origin(hint) is tuple else hint
    if get_origin(hint) is Literal and (wrong := [each for each in values or (value,) if each not in get_args(hint)]):
        raise ValueError(f"Expected {name} among {', '.join(map(str, get_args(hint)))}, got {wrong[0]!r}")
    if len(values) < metadata.get("shortest", 0):
        raise ValueError(f"Expected {name} of length {metadata['shortest']} or more, got {value!r}")
    within = {"minimum": float.__ge__, "above": float.__gt__, "maximum": float.__le__, "below": float.__lt__}
    asked = {limit: metadata[limit] for limit in LIMITS if limit in metadata}
    if not all(within[limit](float(each), float(bound)) for limit, bound in asked.items() for each in values):
        words = " and ".join(f"{LIMITS[limit]} {bound:g}" for limit, bound in asked.items())
        raise ValueError(f"Expected {name} {'of ' * words.startswith('at')}{words}, got {value!r}")


def _read(name, value, hint):
    """A value of YAML or JSON as a field's type has it: tuples, paths and options for lists, texts and mappings."""
    if get_origin(hint) in (Union, UnionType):
        chosen = [each for each in get_args(hint) if each is not type(None)]
        if any(get_origin(each) is dict for each in chosen):  # a mapping or something else, which is told at sight
            chosen = [each for each in chosen if (get_origin(each) is dict) == isinstance(value, Mapping)]
        return value if value is None or len(chosen) != 1 else _read(name, value, chosen[0])
    if get_origin(hint) is dict and isinstance(value, Mapping):
        return {key: _read(f"{name}.{key}", each, get_args(hint)[1]) for key, each in value.items()}
    if get_origin(hint) is tuple:
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
            raise OptionError(f"Expected a sequence as {name}, got {value!r}")
        return tuple(_read(name, each, get_args(hint)[0]) for each in value)
    if hint is Path:
        return Path(value)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping | str):
        return hint.of(value)
    return value
