"""What a forecaster looks at first: the channels of the first page, and of maps."""

import dataclasses

import numpy as np

from emulator.planet.vertical import VERTICAL, vertical_of

# Variable, pressure in hPa, or the level on another axis: what a forecaster looks at first. The nearest level is taken, of
# pressures within `NEAR`.
HEADLINE = (
    ("geopotential", 500.0),
    ("temperature", 500.0),
    ("u_component_of_wind", 500.0),
    ("v_component_of_wind", 500.0),
    ("specific_humidity", 850.0),
    ("surface_pressure", None),
    ("mean_sea_level_pressure", None),
    ("2m_temperature", None),
    ("mean_total_precipitation_rate", None),
    ("temperature", 850.0),
    ("sea_surface_temperature", None),  # of a forecast that steps it: prescribed seas are no field of forecasts
    ("sea_water_potential_temperature", 0.0),
    ("sea_surface_height", None),
)
SURFACE = "2m_temperature"
CLIMATE = (SURFACE, "mean_total_precipitation_rate", "sea_surface_temperature")  # what is asked of a climate first
FALLBACK = 6  # variables that are looked at first where none of `HEADLINE` is scored
NEAR = 1.25  # ratio of pressures


def ranked(variables: list) -> list:
    """The `ScoredVariable`s with the ranks of `HEADLINE`; where none has one, of the first few near the surface."""
    ranks = [_headline(variable) for variable in variables]
    if not any(ranks):
        ranks = [{_near_surface(variable): rank} for rank, variable in enumerate(variables[:FALLBACK])]
        ranks += [{}] * (len(variables) - len(ranks))
    return [dataclasses.replace(variable, ranks=known) for variable, known in zip(variables, ranks, strict=True)]


def of_climate(variables: list) -> list:
    """Ranked `ScoredVariable`s with the ranks of a climate: `CLIMATE` before what forecasts are judged by.

    Without a 2 m temperature that of the level nearest to the ground has its place.
    """
    lacking, result = all(variable.name != SURFACE for variable in variables), []
    for variable in variables:
        first = CLIMATE.index(variable.name) if variable.name in CLIMATE else None
        ranks = {place: len(CLIMATE) + rank if first is None else first for place, rank in variable.ranks.items()}
        if lacking and variable.name == "temperature":
            ranks[_near_surface(variable)] = CLIMATE.index(SURFACE)
        result.append(dataclasses.replace(variable, ranks=ranks))
    return result


def _near_surface(variable) -> int:
    """Position of the level nearest to the ground or to the surface of the sea."""
    axis = vertical_of(variable.truth.array.dims)
    down = axis is not None and (axis == "level" or VERTICAL[axis].decreasing)
    return variable.truth.level_count - 1 if down else 0


def _headline(variable) -> dict[int, int]:
    """Positions among the variable's levels -> their rank in `HEADLINE`."""
    result: dict[int, int] = {}
    for rank, (name, wanted) in enumerate(HEADLINE):
        if name != variable.name:
            continue
        if wanted is None or variable.levels is None:
            result.setdefault(0, rank)
        elif not np.isfinite(variable.pressures).all():
            result.setdefault(int(np.abs(variable.levels - wanted).argmin()), rank)
        else:
            distance = np.abs(np.log(np.asarray(variable.pressures) / wanted))
            if distance.min() <= np.log(NEAR):
                result.setdefault(int(distance.argmin()), rank)
    return result
