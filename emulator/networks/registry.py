"""Networks by kind: from a configuration and a grid to `(batch, inputs, *space) -> (batch, outputs, *space)`.

A network is one file of this folder: a frozen dataclass of options, and a function under `@network(kind, its options)` that
makes the module or refuses, in a `ValueError`, a grid that it does not fit. The files of the folder are imported when a kind
is first asked for, so that nothing else names a network; what a file needs beyond the core dependencies it imports there.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from torch import nn

from emulator.planet.grid import Grid

LIMITS = {"minimum": "at least", "above": "above", "maximum": "at most", "below": "below"}  # as messages word them


class NetworkError(ValueError):
    """A network that cannot be made as configured, in one sentence."""


def option(default: Any = dataclasses.MISSING, about: str = "", **limits: float) -> Any:
    """A field of `Options`: its default (none: it must be given), what it means, and what its numbers may be.

    `limits`: `minimum` (at least), `above`, `maximum` (at most) and `below`, of each number of a sequence too; `shortest`:
    least length of a sequence.
    """
    if unknown := set(limits) - {*LIMITS, "shortest"}:
        raise TypeError(f"Expected limits among {', '.join(LIMITS)} and shortest, got {', '.join(sorted(unknown))}")
    metadata = {"about": about, **limits}
    if default == {}:
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Options:
    """Base of frozen dataclasses whose fields are `option`s. Raises `ValueError` for a value outside its limits."""

    def __post_init__(self):
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            _check(field.name, getattr(self, field.name), hints[field.name], field.metadata)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Options from what YAML or JSON can hold. Raises `NetworkError` for a name that is not an option."""
        hints = get_type_hints(cls)
        names = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(set(given) - set(names)):
            raise NetworkError(f"Expected options among {', '.join(names)}, got {', '.join(unknown)}")
        return cls(**{name: _read(value, hints[name]) for name, value in given.items()})


class Kind(NamedTuple):
    """A registered network: its options, and the function `(options, inputs, outputs, grid)` that makes it."""

    options: type[Options]
    build: Callable[[Any, int, int, Grid], nn.Module]


_KINDS: dict[str, Kind] = {}
_Builder = TypeVar("_Builder", bound=Callable[..., nn.Module])


def network(kind: str, options: type[Options]) -> Callable[[_Builder], _Builder]:
    """Registers a function `(options, inputs, outputs, grid)` as what makes the networks of a kind."""

    def register(builder: _Builder) -> _Builder:
        if kind in _KINDS:
            raise ValueError(f"Expected one network of the kind {kind!r}, got {builder.__module__} besides another")
        _KINDS[kind] = Kind(options, builder)
        return builder

    return register


def kinds() -> tuple[str, ...]:
    """The names of all kinds."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{__package__}.{module.name}")
    return tuple(sorted(_KINDS))


def options_of(kind: str) -> type[Options]:
    """The options of a kind. Raises `NetworkError` for an unknown one."""
    return _kind(kind).options


def build(config: Mapping[str, Any], inputs: int, outputs: int, grid: Grid) -> nn.Module:
    """The network of a configuration, freshly initialised.

    Args:
      config: `kind` and its options, as in YAML or in a checkpoint's JSON.
      inputs, outputs: channels. grid: of the fields.
    Raises `NetworkError` for an unknown kind or option, a value outside its limits, and a grid that the network does not fit.
    """
    kind, builder = config.get("kind"), _kind(config.get("kind")).build
    try:
        options = options_of(kind).of({name: value for name, value in config.items() if name != "kind"})
    except ValueError as error:
        raise NetworkError(f"The network {kind!r} has an option that it cannot take: {error}") from error
    try:
        return builder(options, inputs, outputs, grid)
    except NetworkError:
        raise
    except ValueError as error:
        raise NetworkError(f"The network {kind!r} does not fit {grid.describe()}: {error}") from error


def expect_global(grid: Grid, *kinds_of_grid: str) -> None:
    """Raises `ValueError` for a grid that is regional or of another kind than those, where any are named."""
    if not grid.is_global() or (kinds_of_grid and grid.kind not in kinds_of_grid):
        raise ValueError(f"Expected a global {' or '.join((*kinds_of_grid, 'grid'))}, got {grid.describe()}")


def _kind(kind) -> Kind:
    known = kinds()
    if kind not in known:
        raise NetworkError(f"Expected a network of a kind among {', '.join(known)}, got {kind!r}")
    return _KINDS[kind]


def _check(name, value, hint, metadata):
    if get_origin(hint) is Literal and value not in get_args(hint):
        raise ValueError(f"Expected {name} among {get_args(hint)}, got {value!r}")
    values = value if isinstance(value, list | tuple) else () if value is None else (value,)
    if len(values) < metadata.get("shortest", 0):
        raise ValueError(f"Expected {name} of length {metadata['shortest']} or more, got {value!r}")
    within = {"minimum": float.__ge__, "above": float.__gt__, "maximum": float.__le__, "below": float.__lt__}
    asked = {limit: metadata[limit] for limit in LIMITS if limit in metadata}
    if not all(within[limit](float(each), float(bound)) for limit, bound in asked.items() for each in values):
        words = " and ".join(f"{LIMITS[limit]} {bound:g}" for limit, bound in asked.items())
        raise ValueError(f"Expected {name} {'of ' * words.startswith('at')}{words}, got {value!r}")


def _read(value, hint):
    """A value of YAML or JSON as a field's type has it: tuples, paths and options for lists, texts and mappings."""
    if get_origin(hint) in (Union, UnionType):
        chosen = [each for each in get_args(hint) if each is not type(None)]
        return value if value is None or len(chosen) > 1 else _read(value, chosen[0])
    if get_origin(hint) is tuple:
        return tuple(value)
    if hint is Path:
        return Path(value)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return hint.of(value)
    return value
