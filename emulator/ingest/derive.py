"""Variables that a store can have although no source does: computed from those that the sources have.

Wind speed is that of the components at the time; columns are integrals over the pressure of the layers (divided by
gravity), cut at the surface pressure where it is there; a layer mean weighs with the pressure of the layers between two
pressures; insolation is the mean over the step that ends at the time (`emulator.planet.insolation`).
"""

import functools

import numpy as np

from emulator.ingest.computed import Computed, with_fields
from emulator.ingest.fields import Plan
from emulator.planet.calendar import day_and_hour
from emulator.planet.insolation import mean_insolation
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
    found: set[str] = set()
    for name in names:
        if name in WIND:
            found |= set(WIND[name])
        elif name in COLUMNS:
            found |= {*COLUMNS[name], SURFACE_PRESSURE}
        elif (layer := layer_mean(name)) is not None:
            found |= {layer[0], SURFACE_PRESSURE}
        elif name != INSOLATION:
            known = ", ".join([*WIND, *COLUMNS, INSOLATION])
            raise ValueError(f"Expected {known}, or a layer such as temperature_mean_300_850 to derive, got {name!r}")
    return found


def derive(plan: Plan, names, half_levels=None, gravity: float = 9.80665) -> Plan:
    """The plan with derived variables.

    Args:
      plan: with the fields that they are computed from.
      names: canonical; see `needed`.
      half_levels: interface coefficients `(a, b)` on other than pressure levels.
      gravity: m s-2.

    Raises `ValueError` naming what is missing.
    """
    fields = dict(plan.fields)
    for name in names:
        fields[name] = _derived(plan, name, half_levels, gravity)
    return with_fields(plan, fields)


def _derived(plan, name, half_levels, gravity) -> Computed:
    if plan.leads is not None and name == INSOLATION:
        raise ValueError(f"Expected an analysis to derive {name} for, got forecasts")
    if name == INSOLATION:
        if not plan.step_seconds:
            raise ValueError(f"Expected a time step to derive {name} for, got one time")
        mesh = plan.grid.open_mesh()
        function = functools.partial(_insolation, step_hours=plan.step_seconds / 3600, mesh=mesh)
        return _computed(plan, name, [], function, False)
    if name in WIND:
        inputs = [_field(plan, component, name) for component in WIND[name]]
        return _computed(plan, name, inputs, _speed, inputs[0].has_level)
    levels = _levels(plan, half_levels, name)
    pressure = [plan.fields[SURFACE_PRESSURE]] if SURFACE_PRESSURE in plan.fields else []
    if levels.kind != "pressure" and not pressure:
        raise ValueError(f"Expected surface_pressure to derive {name} on {levels.kind} levels, got none in the sources")
    if name in COLUMNS:
        first, *others = COLUMNS[name]
        species = [_field(plan, first, name)] + [plan.fields[other] for other in others if other in plan.fields]
        function = functools.partial(_column, levels=levels, count=len(species), gravity=gravity)
        return _computed(plan, name, [*species, *pressure], function, False)
    base, top, bottom = layer_mean(name)
    function = functools.partial(_layer, levels=levels, top=100.0 * top, bottom=100.0 * bottom, name=name)
    return _computed(plan, name, [_field(plan, base, name), *pressure], function, False)


def _computed(plan, name, inputs, function, has_level) -> Computed:
    has_member = any(field.has_member for field in inputs)
    averaged = variable(name).cell == "mean" or any(field.averaged for field in inputs)
    return Computed(name, variable(name).role, inputs, function, plan.times, has_member, has_level, averaged)


def _field(plan, name, wanted):
    if name not in plan.fields:
        raise ValueError(f"Expected {name} in the sources to derive {wanted}, got {', '.join(plan.fields)}")
    return plan.fields[name]


def _levels(plan, half_levels, name) -> Levels:
    if plan.levels is None:
        raise ValueError(f"Expected fields on levels to derive {name}, got none")
    if half_levels is None:
        return Levels.pressure(plan.levels)
    return Levels(plan.vertical, plan.levels, *half_levels)


# --- from values to values ------------------------------------------------------------------------------------------


def _speed(values, moments, shape):
    eastward, northward = (np.asarray(v, np.float64) for v in values)
    return np.hypot(eastward, northward)


def _insolation(values, moments, shape, step_hours, mesh):
    day, hour = (np.asarray(a, np.float64).reshape(-1, *[1] * len(shape)) for a in day_and_hour(moments))
    return mean_insolation(day, hour - step_hours, step_hours, *mesh)


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
