"""A foreign model's names of fields as those of an analysis."""

import logging
from collections.abc import Callable, Iterable

from emulator.bridges.analysis_source import AnalysisSource
from emulator.bridges.foreign.registry import ForeignError
from emulator.bridges.lexicon import LexiconError, Name

log = logging.getLogger(__name__)


def started_from(source: AnalysisSource, name: Callable[[str], Name], texts: Iterable[str]) -> list[Name]:
    """What a model starts from. Raises `ForeignError` for what an analysis does not have."""
    found, absent = [], []
    for text in texts:
        try:
            found.append(name(text))
        except LexiconError as error:
            raise ForeignError(f"{error}; the model starts from it") from error
        if found[-1].variable not in source.dataset:
            absent.append(f"{found[-1].variable} ({text})")
    if absent:
        raise ForeignError(f"Expected an analysis with what the model starts from, it lacks {', '.join(absent)}")
    return found


def given_out(name: Callable[[str], Name], texts: Iterable[str]) -> list[Name]:
    """What a model gives and we have a variable and a level for; what else it gives is left out, and logged.

    Raises `ForeignError` where nothing is left.
    """
    found, left = [], []
    for text in texts:
        try:
            found.append(name(text))
        except LexiconError:
            left.append(text)
    if not found:
        raise ForeignError(f"Expected a model that gives fields of the variable table, got {', '.join(left)}")
    if left:
        log.warning("Left out of the model's fields, having no variable or level of the analysis: %s", ", ".join(left))
    return found
