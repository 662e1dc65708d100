"""The wind vector as a channel of its own: sums of both components' sums."""

import dataclasses

import numpy as np

from emulator.verify.score import VariableScores
from emulator.verify.sums import Sums

COMPONENTS = (
    ("wind_vector", "u_component_of_wind", "v_component_of_wind"),
    ("10m_wind_vector", "10m_u_component_of_wind", "10m_v_component_of_wind"),
)
# Sums of squares and products add over components; the others have no vector form.
_ADDED = ("squared_error", "forecast_anomaly_squared", "truth_anomaly_squared", "anomaly_product", "variance")


def wind_vectors(results: list[VariableScores]) -> list[VariableScores]:
    """Vector scores of every pair of components that was scored on the same levels and the same samples.

    The squared error is that of the vector, `(u_f - u_o)^2 + (v_f - v_o)^2`, not of the speed; power is twice the kinetic
    energy's. Bias, mean absolute error, CRPS and the per-sample correlation are NaN.
    """
    held = {result.variable.name: result for result in results}
    pairs = [(name, held[u], held[v]) for name, u, v in COMPONENTS if u in held and v in held]
    return [_vector(name, u, v) for name, u, v in pairs if np.array_equal(u.sums.count, v.sums.count)]


def _vector(name: str, u: VariableScores, v: VariableScores) -> VariableScores:
    one, other = u.sums, v.sums
    totals = {
        key: total + other.totals[key] if key in _ADDED else np.full_like(total, np.nan)
        for key, total in one.totals.items()
    }
    power = None if one.power is None else one.power + other.power
    maps = np.zeros((one.error_map.shape[0], 0, *one.error_map.shape[2:]))
    sums = Sums(
        one.init,
        totals,
        one.count,
        one.squared_error + other.squared_error,
        power,
        one.power_count,
        maps,
        one.map_count[:0],
        np.zeros_like(one.gaps),
    )
    missing = np.full_like(u.mean, np.nan)
    variable = dataclasses.replace(u.variable, name=name)
    return VariableScores(variable, sums, missing, missing, missing, np.full_like(u.series, np.nan), ())
