"""Domains of fields while a store is made: on the sources' grids, for regridding, and on the store's.

Values outside a domain have no part in what is regridded, and are missing (NaN) in the store. `valid` as a domain means where
the first time has values, which the store then keeps as a mask of its own.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from emulator.ingestion.fields import DerivedField, PlannedField, StorePlan
from emulator.ingestion.vertical import places
from emulator.planet.vertical import VERTICAL
from emulator.sources.horizontal import grid_from
from emulator.sources.piece import Piece
from emulator.store.masks import cut, inside, mask_name, mask_of, where_inside

VALID = "valid"


def domains_of(pieces: Sequence[Piece]) -> dict[str, str]:
    """The domain of every field that is not everywhere. Raises `ValueError` where two files say different ones."""
    found: dict[str, tuple[str, str]] = {}
    for piece in pieces:
        if piece.domain is None:
            continue
        before, path = found.setdefault(piece.name, (piece.domain, piece.path))
        if before != piece.domain:
            raise ValueError(
                f"Expected one domain of {piece.name}, got {before!r} in {path} and {piece.domain!r} in {piece.path}"
            )
    return {name: domain for name, (domain, _) in found.items()}


def masked(pieces: Sequence[Piece], domains: Mapping[str, str]) -> list[Piece]:
    """The pieces with their domains on their own grids, which regridding needs.

    Raises `ValueError` where a mask is not in the sources or has not the levels of its field.
    """
    first = {piece.name: piece for piece in reversed(pieces)}
    return [
        dataclasses.replace(piece, exists=_on_source(piece, domains[piece.name], first))
        if domains.get(piece.name, VALID) != VALID
        else piece
        for piece in pieces
    ]


def _on_source(piece: Piece, domain: str, first: Mapping[str, Piece]) -> np.ndarray:
    """Where a piece exists, `(vertical or 1, *space)`, in the convention's order."""
    what = mask_name(domain)
    if what not in first:
        raise ValueError(_no_mask(piece.name, domain, what, sorted(first)))
    mask = first[what]
    if any(not np.array_equal(mask.coordinates[n], piece.coordinates[n]) for n in ("latitude", "longitude")):
        mask = mask.on(grid_from(piece.coordinates), "conservative")
    here = inside(domain, mask.read([0])[0, 0, 0])
    if mask.axis is None:
        return here
    own = piece.coordinates[piece.axis] if piece.axis == mask.axis else np.zeros(0)
    if not len(own) or not np.isin(own, mask.coordinates[mask.axis]).all():
        raise ValueError(
            f"Expected the mask {what} on the levels of {piece.name} ({piece.path}), got {len(here)} other "
            f"{VERTICAL[mask.axis].label} in {mask.path}"
        )
    return here[places(mask.coordinates[mask.axis], own)]


def with_domains(plan: StorePlan, domains: Mapping[str, str]) -> StorePlan:
    """The plan with what lies outside the domains of its fields cut off, and the masks that `valid` asks for.

    Raises `ValueError` where a mask is no static field of the plan, or does not fit its field.
    """
    static = dict(plan.static)
    fields = {}
    for name, field in plan.fields.items():
        if (domain := domains.get(name)) is not None:
            if domain == VALID:
                domain, static[mask_of(name)] = mask_of(name), _valid(plan, field)
            exists = _on_store(plan, name, _dims(plan, field.vertical), domain, static)
            field = dataclasses.replace(field, domain=domain, exists=exists)
        fields[name] = field
    for name in set(plan.static) & set(domains):
        domain, variable = domains[name], plan.static[name]
        if domain == VALID:
            domain, static[mask_of(name)] = mask_of(name), _as_mask(variable.dims, np.isfinite(variable.values), name)
        exists = _on_store(plan, name, variable.sizes, domain, static)
        attributes = variable.attrs | {"domain": domain}
        static[name] = xr.Variable(variable.dims, cut(variable.values, exists), attributes)
    return dataclasses.replace(plan.with_fields(fields), static=dict(sorted(static.items())))


def _dims(plan: StorePlan, vertical: str | None) -> dict[str, int]:
    """Dimensions of a field besides time and members, and their sizes."""
    own = {} if vertical is None else {vertical: plan.count(vertical)}
    return own | dict(zip(plan.grid.dims, plan.grid.shape, strict=True))


def _on_store(plan, name, sizes, domain, static) -> np.ndarray:
    if (what := mask_name(domain)) not in static:
        raise ValueError(_no_mask(name, domain, what, sorted(static)))
    return where_inside(domain, static[what], name, sizes)


def _no_mask(name, domain, what, have) -> str:
    return f"Expected the static field {what} in the sources for the domain {domain!r} of {name}, got {', '.join(have)}"


def _valid(plan: StorePlan, field: PlannedField | DerivedField) -> xr.Variable:
    """Where the first time of a field that is there has values; of a forecast its last lead."""
    at = int(np.argmax(field.present))
    leads = None if plan.leads is None else np.array([len(plan.leads) - 1])
    values = field.read(at, at + 1, plan.grid.shape, leads)
    there = np.isfinite(values).reshape(-1, *_dims(plan, field.vertical).values()).any(axis=0)
    if not there.any():
        raise ValueError(
            f"Expected values of {field.name} at its first time for the domain valid, got none at {plan.times[at]}"
        )
    return _as_mask(tuple(_dims(plan, field.vertical)), there, field.name)


def _as_mask(dims, there: np.ndarray, name: str) -> xr.Variable:
    attributes = {"units": "1", "role": "static", "long_name": f"where {name} exists"}
    return xr.Variable(dims, there.astype(np.float32), attributes)
