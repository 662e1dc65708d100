"""Checkpoints of earlier schemas as today's: one function for every schema that gave way to another, applied in turn.

A schema changes where a program that knows only the earlier one could not read what is written now, or would misread it.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from emulator.model.checkpoint import CheckpointError
from emulator.planet.vertical import Levels

SCHEMA = "checkpoint-2"
Content = tuple[dict[str, Tensor], dict]  # tensors by name, and what the checkpoint says of them


class Migration(NamedTuple):
    """To the schema `to`, by a function of tensors and description, which gives new ones; without tensors of the latter."""

    to: str
    apply: Callable[[dict[str, Tensor], dict], Content]


def tell_places(tensors: dict[str, Tensor], saved: dict) -> Content:
    """Schema 2: the layout says where levels lie and how long a step of the store is.

    Of schema 1 the column's levels are known, and a variable on as many lies on them. Where others lie, as those of the
    soil, is not; they are told apart by their number.
    """
    layout, levels = saved["layout"], saved["levels"]
    places = list(Levels.from_json(levels).places()) if levels else []
    groups = [layout[name] for name in ("prognostic", "diagnostic", "forcing", "static")]
    counts = {name: count for group in groups for name, count in zip(group["names"], group["levels"], strict=True)}
    at = {name: places for name, count in counts.items() if count and count == len(places)}
    told = {"at": at, "hours": saved["step_seconds"] / 3600} | layout  # some of schema 1 say it already
    return tensors, saved | {"layout": told}


MIGRATIONS = {"checkpoint-1": Migration("checkpoint-2", tell_places)}


def expect_known(saved: dict, name: object, *besides: str) -> None:
    """Raises `CheckpointError` for a description of a schema that is neither known here nor one of those named."""
    if (schema := saved.get("schema")) not in (*MIGRATIONS, SCHEMA, *besides):
        known = ", ".join([*MIGRATIONS, SCHEMA])
        raise CheckpointError(f"Expected a checkpoint of a schema among {known} at {name}, got {schema!r}")


def migrated(tensors: dict[str, Tensor], saved: dict, name: object) -> Content:
    """Tensors and description as of today's schema. Raises `CheckpointError` for a schema that is not known."""
    while saved.get("schema") != SCHEMA:
        expect_known(saved, name)
        step = MIGRATIONS[saved["schema"]]
        tensors, saved = step.apply(tensors, saved)
        saved = saved | {"schema": step.to}
    return tensors, saved
