"""The value of a field at a place: bilinear between cells, over the poles too, and linear between levels.

Surface pressure and temperature at 2 m are carried from the model's ground to that of a station whose elevation is known, as
in the verification at stations.
"""

import numpy as np
import torch

from emulator.assimilation.geometry import Geometry
from emulator.assimilation.observations import Observations
from emulator.assimilation.operators import OPERATORS, Equivalent
from emulator.assimilation.weights import Weighted, channel_of, check_levels, entries
from emulator.verify.at_points import LAPSE_RATE, STANDARD_TEMPERATURE, TEMPERATURES

PRESSURE = "surface_pressure"


class Point:
    """Linear but for the surface pressure of stations with an elevation, which depends on the temperature there."""

    column, variables = False, ()

    def prepare(self, geometry: Geometry, rows: Observations) -> Equivalent:
        """H of the class. Raises `ValueError` for a variable or a level that the state has not, and places outside it."""
        value = _value(geometry, rows)
        at_ground = np.isin(rows.variable, (PRESSURE, *TEMPERATURES)) & np.isfinite(rows.elevation)
        if not at_ground.any():
            return value
        above = np.nan_to_num(rows.elevation - geometry.ground_at(rows.latitude, rows.longitude))
        warmer = torch.as_tensor(np.where(np.isin(rows.variable, TEMPERATURES) & at_ground, -LAPSE_RATE * above, 0.0))
        carried = np.flatnonzero((rows.variable == PRESSURE) & at_ground)
        warmth = _warmth(geometry, rows.where(carried))
        constants, height = geometry.constants, torch.as_tensor(above[carried])
        per_kelvin = constants.gravity / constants.gas_constant_dry_air

        def h(state):
            up, where = height.to(state), torch.as_tensor(carried, device=state.device)
            factor = torch.exp(-per_kelvin * up / (warmth(state) - LAPSE_RATE * up / 2))  # hydrostatic
            factors = state.new_ones(len(state), len(rows)).index_copy(1, where, factor)
            return value(state) * factors + warmer.to(state)

        return h

    def channels(self, geometry: Geometry, rows: Observations) -> tuple[np.ndarray, np.ndarray]:
        """Channels above and below every row and their shares, `(2, row)` each."""
        return _between(geometry, rows)


def _value(geometry: Geometry, rows: Observations) -> Weighted:
    return entries(geometry, rows, *_between(geometry, rows))


def _between(geometry: Geometry, rows: Observations) -> tuple[np.ndarray, np.ndarray]:
    """Channels above and below every row and their shares, `(2, row)` each; twice the same for a field without levels."""
    upper, lower, along = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64), np.zeros(len(rows))
    for name in sorted(set(rows.variable.tolist())):
        here, first = rows.variable == name, channel_of(geometry, name).start
        if name not in geometry.at:
            upper[here] = lower[here] = first
            continue
        at, level = geometry.at[name], rows.level[here]
        check_levels(geometry, name, level)
        sign = 1 if len(at) < 2 or at[1] > at[0] else -1
        below = np.clip(np.searchsorted(sign * at, sign * level), min(1, len(at) - 1), len(at) - 1)
        above = np.maximum(below - 1, 0)
        span = np.where(above == below, 1.0, at[below] - at[above])
        along[here] = np.clip((level - at[above]) / span, 0, 1)
        upper[here], lower[here] = first + above, first + below
    return np.stack([upper, lower]), np.stack([1 - along, along])


def _warmth(geometry: Geometry, rows: Observations) -> Equivalent:
    """Temperature at the model's ground, `(batch, row)`: at 2 m, of the lowest level, or the standard atmosphere's."""
    near, aloft = TEMPERATURES[0], "temperature"
    if near in geometry.channels.names:
        return _value(geometry, rows.replace(variable=near, level=np.nan))
    if aloft in geometry.at:
        return _value(geometry, rows.replace(variable=aloft, level=geometry.at[aloft][-1]))
    return lambda state: state.new_full((len(state), len(rows)), STANDARD_TEMPERATURE)


OPERATORS.register("point", Point())
