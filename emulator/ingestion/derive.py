"""Fields that no source has: variables derived from others, and fields on other levels than their sources'.

Wind speed is that of the components at the time; columns are integrals over the pressure of the layers (divided by
gravity), cut at the surface pressure where it is there; a layer mean weighs with the pressure of the layers between two
pressures; insolation is the mean over the step that ends at the time (`emulator.planet.insolation`).

To pressure levels: as `emulator.planet.pressure_levels` has it. To thicker layers: means weighted with the pressure thickness
at the time, which keep every column integral.
"""

import dataclasses
import functools

import numpy as np

from emulator.ingestion.fields import DerivedField, StorePlan
from emulator.planet.calendar import TimeStep, day_and_hour
from emulator.planet.insolation import is_long, long_insolation, mean_insolation
from emulator.planet.pressure_levels import on_pressures
from emulator.planet.variables import layer_mean, variable
from emulator.planet.vertical import Levels

WIND = {
    "wind_speed": ("u_component_of_wind", "v_component_of_wind"),
    "10m_wind_speed": ("10m_u_component_of_wind", "10m_v_component_of_wind"),
}
COLUMNS = {
    "total_column_water_vapour": ("specific_humidity",),
    "total_column_water": (
        "specific_humidity",
        "specific_cloud_liquid_water_content",
        "specific_cloud_ice_water_content",
    ),
}
INSOLATION = "mean_top_downward_short_wave_radiation_flux"
SURFACE_PRESSURE = "surface_pressure"


def needed(names) -> set[str]:
    """The canonical names that the derived variables are computed from, as far as sources have them.

    Raises `ValueError` for a name that cannot be derived.
    """
    inputs: set[str] = set()
    for name in names:
        if name in WIND:
            inputs |= set(WIND[name])
        elif name in COLUMNS:
            inputs |= {*COLUMNS[name], SURFACE_PRESSURE}
        elif (layer := layer_mean(name)) is not None:
            inputs |= {layer[0], SURFACE_PRESSURE}
        elif name != INSOLATION:
            known = ", ".join([*WIND, *COLUMNS, INSOLATION])
            raise ValueError(f"Expected {known}, or a layer such as temperature_mean_300_850 to derive, got {name!r}")
    return inputs


def derive(plan: StorePlan, names, gravity: float = 9.80665) -> StorePlan:
    """The plan with derived variables.

    Args:
      plan: with the fields that they are computed from.
      names: canonical; see `needed`.
      gravity: m s-2.

    Raises `ValueError` naming what is missing.
    """
    fields = dict(plan.fields)
    for name in names:
        fields[name] = _derived(plan, name, gravity)
    return plan.with_fields(fields)


def _derived(plan, name, gravity) -> DerivedField:
    if plan.leads is not None and name == INSOLATION:
        raise ValueError(f"Expected an analysis to derive {name} for, got forecasts")
    if name == INSOLATION:
        if not plan.step_seconds:
            raise ValueError(f"Expected a time step to derive {name} for, got one time")
        mesh = plan.grid.open_mesh()
        function = functools.partial(_insolation, step=plan.step, mesh=mesh)
        return _computed(plan, name, [], function, None)
    if name in WIND:
        inputs = [_field(plan, component, name) for component in WIND[name]]
        return _computed(plan, name, inputs, _speed, inputs[0].vertical)
    if plan.levels is None:
        raise ValueError(f"Expected fields on levels to derive {name}, got none")
    levels = plan.column()
    pressure = [plan.fields[SURFACE_PRESSURE]] if SURFACE_PRESSURE in plan.fields else []
    if levels.kind != "pressure" and not pressure:
        raise ValueError(f"Expected surface_pressure to derive {name} on {levels.kind} levels, got none in the sources")
    if name in COLUMNS:
        first, *others = COLUMNS[name]
        species = [_field(plan, first, name)] + [plan.fields[other] for other in others if other in plan.fields]
        function = functools.partial(_column, levels=levels, count=len(species), gravity=gravity)
        return _computed(plan, name, [*species, *pressure], function, None)
    base, top, bottom = layer_mean(name)
    function = functools.partial(_layer, levels=levels, top=100.0 * top, bottom=100.0 * bottom, name=name)
    return _computed(plan, name, [_field(plan, base, name), *pressure], function, None)


def _computed(plan, name, inputs, function, vertical) -> DerivedField:
    has_member = any(field.has_member for field in inputs)
    averaged = variable(name).cell == "mean" or any(field.averaged for field in inputs)
    return DerivedField(name, variable(name).role, inputs, function, plan.times, has_member, vertical, averaged)


def _field(plan, name, wanted):
    if name not in plan.fields:
        raise ValueError(f"Expected {name} in the sources to derive {wanted}, got {', '.join(plan.fields)}")
    return plan.fields[name]


def to_pressure(plan: StorePlan, wanted) -> StorePlan:
    """The plan with its fields on pressure levels.

    Args:
      plan: on hybrid or sigma levels, with surface pressure.
      wanted: pressures in hPa, `(new,)`, increasing.

    Raises `ValueError` for levels of pressure already, without surface pressure, or not increasing.
    """
    wanted = np.asarray(wanted, np.float64)
    if plan.half_levels is None:
        raise ValueError("Expected hybrid or sigma levels to interpolate from, got pressure levels or none")
    if np.any(np.diff(wanted) <= 0) or wanted[0] <= 0:
        raise ValueError(f"Expected increasing pressures in hPa to interpolate to, got {list(wanted)}")
    fields = {}
    for name, field in plan.fields.items():
        temperature = [plan.fields["temperature"]] if name == "geopotential" and "temperature" in plan.fields else []
        function = functools.partial(_on_pressures, levels=plan.column(), wanted=wanted * 100, name=name)
        fields[name] = _changed(plan, field, _surface_pressure(plan), temperature, function)
    return dataclasses.replace(plan.with_fields(fields), levels=wanted, vertical="pressure", half_levels=None)


def to_layers(plan: StorePlan, edges) -> StorePlan:
    """The plan with its fields on fewer layers.

    Args:
      plan: on any levels; on hybrid and sigma ones with surface pressure. From pressure levels layers are those between
        the pressures half-way (`Levels.pressure`), uncut at the ground, and the new ones are hybrid ones with b = 0.
      edges: positions of the interfaces that stay, from 0 to the number of levels, `(new + 1,)`, increasing.

    Raises `ValueError` for edges that do not begin at 0, end at the number of levels, and increase.
    """
    levels, edges = plan.column(), np.asarray(edges, int)
    if len(edges) < 2 or edges[0] != 0 or edges[-1] != len(levels) or np.any(np.diff(edges) <= 0):
        raise ValueError(
            f"Expected increasing interfaces from 0 to {len(levels)} for the new layers, got {list(edges)}"
        )
    half = levels.half_a[edges], levels.half_b[edges]
    kind = "sigma" if plan.vertical == "sigma" else "hybrid"
    values = (half[1][1:] + half[1][:-1]) / 2 if kind == "sigma" else np.arange(1.0, len(edges))
    pressure = None if plan.half_levels is None else _surface_pressure(plan)
    function = functools.partial(_layer_means, levels=levels, edges=edges)
    fields = {name: _changed(plan, field, pressure, [], function) for name, field in plan.fields.items()}
    return dataclasses.replace(plan.with_fields(fields), levels=values, vertical=kind, half_levels=half)


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
    """A field on other levels; one on no levels, or on another vertical axis, as it is."""
    if field.vertical != "level":
        return field
    inputs = [field, *([] if pressure is None else [pressure]), *more]
    has_member = any(entry.has_member for entry in inputs)
    made = (inputs, function, plan.times, has_member, "level", field.averaged)
    return DerivedField(field.name, field.role, *made, entry=field.entry)


# --- from values to values ------------------------------------------------------------------------------------------


def _speed(values, moments, shape):
    eastward, northward = (np.asarray(v, np.float64) for v in values)
    return np.hypot(eastward, northward)


def _insolation(values, moments, shape, step: TimeStep, mesh):
    day, hour = (np.asarray(a, np.float64).reshape(-1, *[1] * len(shape)) for a in day_and_hour(moments))
    hours = step.lengths(moments) / 3600
    if is_long(hours):
        means = [long_insolation(*at, mesh[0]) for at in zip(day.flat, hour.flat - hours, hours, strict=True)]
        return np.broadcast_to(np.stack(means), (len(means), *shape))
    return mean_insolation(day, hour - hours[0], hours[0], *mesh)


def _thickness(levels: Levels, pressure, like: np.ndarray, shape) -> np.ndarray:
    """Layer thickness in Pa, which broadcasts against `(..., level, *space)`."""
    space = tuple(range(-len(shape), 0))
    if pressure is None:
        return np.diff(levels.half_a).reshape(-1, *[1] * len(shape))
    return np.stack(levels.thickness(np.asarray(pressure, np.float64)), axis=space[0] - 1)


def _column(values, moments, shape, levels, count, gravity):
    total = sum(np.asarray(v, np.float64) for v in values[:count])
    pressure = values[count] if len(values) > count else None
    axis = -len(shape) - 1
    return (total * _thickness(levels, pressure, total, shape)).sum(axis=axis) / gravity


def _layer(values, moments, shape, levels, top, bottom, name):
    """Mean over the pressures between `top` and `bottom`, of layers as far as they lie between; missing below the ground."""
    field, axis = np.asarray(values[0], np.float64), -len(shape) - 1
    surface = np.full(field.shape[: axis % field.ndim] + shape, 1.2e5) if len(values) < 2 else values[1]
    half = levels.interfaces(np.asarray(surface, np.float64))
    half = [np.clip(h, top, bottom) for h in half]
    weight = np.stack([lower - upper for upper, lower in zip(half[:-1], half[1:], strict=True)], axis=axis)
    whole = weight.sum(axis=axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (field * weight).sum(axis=axis) / whole
    return np.where(whole > 0, mean, np.nan)


def _on_pressures(values, moments, shape, levels, wanted, name):
    axis = -len(shape) - 1
    field, *beside = (np.moveaxis(np.asarray(v, np.float64), axis, 0) for v in (values[0], *values[2:]))
    out = on_pressures(field, levels, values[1], wanted, name, beside[0] if beside else None)
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
