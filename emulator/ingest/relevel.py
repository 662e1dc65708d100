"""Fields on other levels than their sources': from hybrid or sigma levels to pressure levels, and to fewer, thicker layers.

To pressure levels: linear in the logarithm of pressure between full levels, which lie half-way between the interfaces
(Simmons and Burridge 1981). Above the top level and below the lowest one the value is that of the level; but below the
lowest level temperature rises at 6.5 K km-1 (Trenberth, Berry and Buja 1993, without their limits over high ground) and
geopotential follows hydrostatically, so that both stay plausible under mountains. To thicker layers: means weighted with
the pressure thickness at the time, which keep every column integral.
"""

import dataclasses
import functools

import numpy as np

from emulator.ingest.computed import Computed, with_fields
from emulator.ingest.fields import Plan
from emulator.planet.constants import ERA5
from emulator.planet.vertical import Levels

SURFACE_PRESSURE = "surface_pressure"
LAPSE_RATE = 0.0065  # K m-1


def to_pressure(plan: Plan, half_levels, wanted) -> Plan:
    """The plan with its fields on pressure levels.

    Args:
      plan: on hybrid or sigma levels, with surface pressure.
      half_levels: interface coefficients `(a in Pa, b)`, each `(level + 1,)`.
      wanted: pressures in hPa, `(new,)`, increasing.

    Raises `ValueError` for levels of pressure already, without surface pressure, or not increasing.
    """
    wanted = np.asarray(wanted, np.float64)
    if plan.levels is None or half_levels is None:
        raise ValueError("Expected hybrid or sigma levels to interpolate from, got pressure levels or none")
    if np.any(np.diff(wanted) <= 0) or wanted[0] <= 0:
        raise ValueError(f"Expected increasing pressures in hPa to interpolate to, got {list(wanted)}")
    levels = Levels(plan.vertical, plan.levels, *half_levels)
    fields = {}
    for name, field in plan.fields.items():
        temperature = [plan.fields["temperature"]] if name == "geopotential" and "temperature" in plan.fields else []
        function = functools.partial(_on_pressures, levels=levels, wanted=wanted * 100, name=name)
        fields[name] = _changed(plan, field, _surface_pressure(plan), temperature, function)
    return dataclasses.replace(with_fields(plan, fields), levels=wanted, vertical="pressure")


def to_layers(plan: Plan, half_levels, edges) -> tuple[Plan, tuple[np.ndarray, np.ndarray]]:
    """The plan with its fields on fewer layers, and their interface coefficients `(a, b)`.

    Args:
      plan: on any levels; on hybrid and sigma ones with surface pressure. From pressure levels layers are those between
        the pressures half-way (`Levels.pressure`), uncut at the ground, and the new ones are hybrid ones with b = 0.
      half_levels: interface coefficients, or None on pressure levels.
      edges: positions of the interfaces that stay, from 0 to the number of levels, `(new + 1,)`, increasing.

    Raises `ValueError` for edges that do not begin at 0, end at the number of levels, and increase.
    """
    if plan.levels is None:
        raise ValueError("Expected fields on levels to join layers of, got none")
    levels = Levels.pressure(plan.levels) if half_levels is None else Levels(plan.vertical, plan.levels, *half_levels)
    edges = np.asarray(edges, int)
    if len(edges) < 2 or edges[0] != 0 or edges[-1] != len(levels) or np.any(np.diff(edges) <= 0):
        raise ValueError(
            f"Expected increasing interfaces from 0 to {len(levels)} for the new layers, got {list(edges)}"
        )
    half = levels.half_a[edges], levels.half_b[edges]
    kind = "sigma" if plan.vertical == "sigma" else "hybrid"
    values = (half[1][1:] + half[1][:-1]) / 2 if kind == "sigma" else np.arange(1.0, len(edges))
    pressure = None if half_levels is None else _surface_pressure(plan)
    function = functools.partial(_layer_means, levels=levels, edges=edges)
    fields = {name: _changed(plan, field, pressure, [], function) for name, field in plan.fields.items()}
    return dataclasses.replace(with_fields(plan, fields), levels=values, vertical=kind), half


def even_edges(count: int, layers: int) -> list[int]:
    """Interfaces of `layers` layers that each join as equal numbers of the `count` levels as can be."""
    if not 1 <= layers <= count:
        raise ValueError(f"Expected 1 to {count} layers to join {count} levels to, got {layers}")
    return [round(position) for position in np.linspace(0, count, layers + 1)]


def _surface_pressure(plan):
    if SURFACE_PRESSURE not in plan.fields:
        raise ValueError(f"Expected surface_pressure beside {plan.vertical} levels, got {', '.join(plan.fields)}")
    return plan.fields[SURFACE_PRESSURE]


def _changed(plan, field, pressure, more, function):
    if not field.has_level:
        return field
    inputs = [field, *([] if pressure is None else [pressure]), *more]
    has_member = any(entry.has_member for entry in inputs)
    return Computed(field.name, field.role, inputs, function, plan.times, has_member, True, field.averaged)


# --- from values to values ------------------------------------------------------------------------------------------


def full_pressures(levels: Levels, surface_pressure: np.ndarray) -> np.ndarray:
    """Pressures of the full levels in Pa, half-way between the interfaces: `(level, ..., *space)`."""
    half = levels.interfaces(np.asarray(surface_pressure, np.float64))
    return np.stack([(upper + lower) / 2 for upper, lower in zip(half[:-1], half[1:], strict=True)])


def interpolate(values: np.ndarray, pressures: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Linear in log pressure, constant beyond the ends: `(level, ...)` on `pressures` `(level, ...)` -> `(new, ...)`."""
    logs = np.log(np.maximum(pressures, 1e-3))
    out = np.empty((len(wanted), *values.shape[1:]))
    for number, target in enumerate(np.log(wanted)):
        below = np.clip((logs < target).sum(axis=0), 1, len(logs) - 1)[None]  # the first level that is not above
        low, high = (np.take_along_axis(logs, below + step, axis=0)[0] for step in (-1, 0))
        first, second = (np.take_along_axis(values, below + step, axis=0)[0] for step in (-1, 0))
        share = np.clip((target - low) / (high - low), 0.0, 1.0)
        out[number] = first + share * (second - first)
    return out


def _on_pressures(values, moments, shape, levels, wanted, name):
    axis = -len(shape) - 1
    field = np.moveaxis(np.asarray(values[0], np.float64), axis, 0)
    pressures = np.broadcast_to(full_pressures(levels, values[1]), field.shape)
    out = interpolate(field, pressures, wanted)
    exponent = ERA5.gas_constant_dry_air * LAPSE_RATE / ERA5.gravity
    space = (-1, *[1] * (field.ndim - 1))
    below = wanted.reshape(space) / pressures[-1]
    if name == "temperature":
        out = np.where(below > 1, field[-1] * below**exponent, out)
    elif name == "geopotential" and len(values) > 2:
        lowest = np.moveaxis(np.asarray(values[2], np.float64), axis, 0)[-1]
        fall = lowest * (below**exponent - 1) / LAPSE_RATE * ERA5.gravity
        out = np.where(below > 1, field[-1] - fall, out)
    return np.moveaxis(out, 0, axis)


def _layer_means(values, moments, shape, levels, edges):
    axis = -len(shape) - 1
    field = np.moveaxis(np.asarray(values[0], np.float64), axis, 0)
    if len(values) > 1:
        thickness = np.stack(levels.thickness(np.asarray(values[1], np.float64)))
    else:
        thickness = np.diff(levels.half_a).reshape(-1, *[1] * (field.ndim - 1))
    weighted = np.add.reduceat(field * thickness, edges[:-1], axis=0)
    return np.moveaxis(weighted / np.add.reduceat(thickness, edges[:-1], axis=0), 0, axis)
