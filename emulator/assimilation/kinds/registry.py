"""Analyses by kind: from options to an `emulator.assimilation.window.Assimilation`.

A kind is one file of this folder: a frozen dataclass of options, whose first is its `kind`, and a function under
`@assimilation(kind, its options)` that makes the analysis from them. It is asked for windows with observations only.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from emulator.assimilation.window import Assimilation, WhereObserved
from emulator.options import Options
from emulator.registry import Registry


class Kind(NamedTuple):
    """A registered kind: its options, and the function of them that makes it."""

    options: type[Options]
    build: Callable[[Any], Any]


KINDS: Registry[Kind] = Registry("kind of analysis", __package__)


def assimilation(kind: str, options: type[Options]) -> Callable:
    """Registers a function of options, or a class, as what makes the analyses of a kind."""

    def registered(builder: Callable[[Any], Any]) -> Callable[[Any], Any]:
        KINDS.register(kind, Kind(options, builder))
        return builder

    return registered


def build(config: Mapping[str, Any]) -> Assimilation:
    """The analysis of a configuration, `kind` and its options; without observations it leaves every background as it is.

    Raises `ValueError` for an unknown kind or option.
    """
    entry = KINDS[config.get("kind")]
    return WhereObserved(entry.build(entry.options.of(config)))
