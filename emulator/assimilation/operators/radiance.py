"""Brightness temperature of a sounder's channel: Planck's radiance of the column's layers, as a black body's temperature.

T_b = B^-1(sum of w_k B(T_k)) with the weights of `column` and B(T) proportional to 1 / (exp(c2 n / T) - 1) at the wavenumber
n: smooth, not linear, equal to T in an isothermal column and above the mean of T in any other.
"""

import numpy as np
import torch

from emulator.assimilation.geometry import Geometry
from emulator.assimilation.observations import Observations
from emulator.assimilation.operators import OPERATORS, Equivalent
from emulator.assimilation.operators.column import layers
from emulator.assimilation.weights import entries

SECOND_RADIATION_CONSTANT = 1.438776877  # cm K, c2 = h c / k (CODATA 2018)
WAVENUMBER = 700.0  # cm-1, in the 15 micrometre band of carbon dioxide, by which temperature is sounded


class Radiance:
    """Brightness temperature, K, of columns of temperature, K."""

    column, variables = True, ("temperature",)

    def prepare(self, geometry: Geometry, rows: Observations) -> Equivalent:
        """H of the class. Raises `ValueError` as `column`, and for another variable than temperature."""
        weighted = entries(geometry, rows, *self.channels(geometry, rows))
        scale = SECOND_RADIATION_CONSTANT * WAVENUMBER

        def h(state):
            emitted = 1 / torch.expm1(scale / weighted.entries(state))
            return scale / torch.log1p(1 / (emitted * weighted.weight.to(state)).sum(1))

        return h

    def channels(self, geometry: Geometry, rows: Observations) -> tuple[np.ndarray, np.ndarray]:
        """As `layers` of `column`, of temperature alone."""
        if others := sorted(set(rows.variable.tolist()) - set(self.variables)):
            raise ValueError(f"Expected radiances of temperature, got {', '.join(others)}")
        return layers(geometry, rows)


OPERATORS.register("radiance", Radiance())
