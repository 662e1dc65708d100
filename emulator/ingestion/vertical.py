"""The vertical axes that the pieces of all fields share."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from emulator.planet.vertical import VERTICAL
from emulator.sources.piece import Piece


@dataclasses.dataclass(frozen=True, eq=False)
class VerticalValues:
    """Values along a vertical axis in the store's order, `(n,)`, what they are, and their bounds `(n, 2)` where known."""

    values: np.ndarray
    kind: str
    bounds: np.ndarray | None = None


def places(axis: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Positions of values on an axis that has them, which increases or decreases."""
    order = np.argsort(axis, kind="stable")
    return order[np.searchsorted(axis, values, sorter=order)]


def common_vertical(groups: Mapping[str, Mapping[str, Sequence[Piece]]]) -> dict[str, VerticalValues]:
    """Every vertical axis of the fields. Raises `ValueError` where two fields on one axis have other values."""
    found: dict[str, VerticalValues] = {}
    where: dict[str, str] = {}
    for name, terms in sorted(groups.items()):
        pieces = [p for some in terms.values() for p in some]
        if (dim := vertical_of_pieces(name, pieces)) is None:
            continue
        values, label, before = common_axis(pieces, dim), VERTICAL[dim].label, found.get(dim)
        known = [] if before is None or before.kind == "unknown" else [before.kind]
        kinds = {p.vertical for p in pieces if p.vertical != "unknown"} | set(known)
        if len(kinds) > 1:
            raise ValueError(f"Expected one kind of {label}, got {' and '.join(sorted(kinds))} for {name}")
        values = values[VERTICAL[dim].positions(values)]
        if before is not None and not np.array_equal(values, before.values):
            odd = ", ".join(f"{v:g}" for v in sorted({*before.values} ^ {*values})[:8])  # whole lists would hide them
            text = (
                f"{len(before.values)} for {where[dim]} and {len(values)} for {name} ({pieces[0].path}), {odd} for one"
            )
            raise ValueError(
                f"Expected the same {label} for all fields, got {text} alone; choose with select: {{{dim}: [...]}}"
            )
        bounds = _common_bounds(name, dim, pieces, values, before)
        found[dim], where[dim] = VerticalValues(values, next(iter(kinds), "unknown"), bounds), name
    return found


def vertical_of_pieces(name: str, pieces: Sequence[Piece]) -> str | None:
    """The vertical dimension of a field, which has to be one in all sources."""
    dims = {p.axis: p.path for p in pieces if p.axis is not None}
    if len(dims) > 1:
        text = " and ".join(f"{VERTICAL[dim].label} in {path}" for dim, path in sorted(dims.items()))
        raise ValueError(f"Expected {name} on one vertical axis, got {text}")
    return next(iter(dims), None)


def _common_bounds(name, dim, pieces, values, before) -> np.ndarray | None:
    """Bounds of an axis's values: those of the fields before where there are any, else of these pieces, if they have all."""
    bounds = np.full((len(values), 2), np.nan)
    for piece in pieces:
        if piece.bounds is not None:
            bounds[places(values, piece.coordinates[dim])] = piece.bounds
    own = bounds if np.isfinite(bounds).all() else None
    theirs = None if before is None else before.bounds
    if own is not None and theirs is not None and not np.allclose(own, theirs, rtol=1e-4, atol=1e-3):
        at = int(np.argmax(np.abs(own - theirs).max(axis=1)))
        raise ValueError(
            f"Expected the same {VERTICAL[dim].label} for all fields, got {VERTICAL[dim].bounds} {own[at]} for number "
            f"{at + 1} of {name} ({pieces[0].path}) and {theirs[at]} for another field"
        )
    return own if theirs is None else theirs


def common_axis(pieces: Sequence[Piece], dim: str) -> np.ndarray | None:
    """All values of the pieces along a dimension, increasing; None where they have none, or one member alone."""
    axes = [p.coordinates[dim] for p in pieces if dim in p.coordinates]
    values = np.unique(np.concatenate(axes)) if axes else np.zeros(0)
    if not len(values) or (dim == "member" and len(values) == 1):
        return None  # a deterministic field carries the number 0
    return values
