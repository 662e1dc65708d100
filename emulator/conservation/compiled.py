"""A whole correction in a few passes over the fields, where compiled kernels serve: float32 in the processor's memory.

With the usual budgets all that a correction needs of the fields are a few sums over the sphere, and each of five controls
(surface pressure, temperature, humidity, precipitation, evaporation) moves by what a few numbers tell, its totals. So a
scheme reads the sums of both states, finds the totals that close its budgets, and moves the controls in a pass that gives
the sums of the result: no field is formed in between. `docs/conservation.md` has the derivation of the gradient. Schemes
outside this frame, and other types and devices, take the formulas of the budgets, to which these agree within rounding.
"""

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from emulator.conservation import fluxes
from emulator.conservation.budgets import Anchor, DryAir, Water
from emulator.conservation.cells import State, on_levels
from emulator.conservation.compiled_step import (
    AIR,
    AMOUNTS,
    CONTROLS,
    ENERGY,
    EVAPORATION,
    KIND,
    RAIN,
    SIZES,
    WATER,
    Solution,
    Step,
    times,
)
from emulator.conservation.energy import Energy
from emulator.kernels import corrections as native
from emulator.kernels import library
from emulator.kernels.compiled import Layout

if TYPE_CHECKING:
    from emulator.conservation.scheme import Scheme


class Compiled:
    """A scheme's corrections from the kernels; subclasses provide `solve`.

    Args:
      scheme: one of which `fits` is true.
      modes: how a control's variance and bound are meant, by the kernels' names.
      variances: by control, `()` or `(level,)` float64; what has none does not move.
      normalised: controls whose variance, as given, is that at the mean of their sizes, level by level.
    """

    def __init__(
        self, scheme: "Scheme", modes: dict[str, tuple[int, int]], variances: dict[str, Tensor], normalised=()
    ):
        self.scheme, self.modes, self.normalised = scheme, modes, tuple(normalised)
        self.air = scheme.atmosphere
        self.integrals = scheme.one_pass.integrals
        self.stored = scheme.one_pass.names
        self.names = self.stored | {KIND[name]: name for name in CONTROLS[3:] if name in scheme.required}
        self.moved = {KIND[name]: name for name in CONTROLS if name in scheme.changes}
        self.linked = fluxes.LATENT_HEAT in scheme.changes
        latent = self.air.constants.latent_heat_vaporisation
        self.latent = latent if self.linked else 0.0  # of the flux that follows evaporation
        energy = scheme.budgets.get("energy")
        gains = {} if energy is None else dict.fromkeys(energy.top, 1) | dict.fromkeys(energy.surface, -1)
        self.gains = dict.fromkeys((fluxes.LATENT_HEAT,) * self.linked, 0) | gains
        self.rows = np.stack([self._row(budget) for budget in scheme.budgets.values()])
        self.levels = len(self.air.levels)
        self.responses, self.everywhere = self._responses()
        self.weights = self._weights(variances)

    @staticmethod
    def fits(scheme: "Scheme") -> bool:
        """Whether a scheme's budgets and changes are within the frame."""
        budgets = scheme.budgets.values()
        if not scheme.budgets or any(type(budget) not in (DryAir, Water, Energy) for budget in budgets):
            return False
        for budget in budgets:
            if isinstance(budget, Energy):
                usual = len(budget.top) + len(budget.surface) <= Layout.FLUXES and fluxes.LATENT_HEAT in budget.surface
                if budget.moist or budget.snow or budget.has_top or not usual:
                    return False
            elif budget.species != (fluxes.HUMIDITY,):
                return False
        return set(scheme.changes) <= {*CONTROLS, fluxes.LATENT_HEAT}

    def serves(self, state0: State, state1: State) -> bool:
        """Whether the kernels take a step's fields."""
        read = (*self.names.values(), *self.gains, *self.scheme.changes)
        return library.takes(*(state0[name] for name in self.stored.values()), *(state1[name] for name in read))

    def _row(self, budget) -> np.ndarray:
        """A budget's residual by the amounts; the latent heat flux follows evaporation (`fluxes.linked`)."""
        seconds, latent = self.air.step_seconds, self.latent
        row = {
            DryAir: (1.0, -1.0, 0.0, 0.0, 0.0),
            Water: (0.0, 1.0, 0.0, seconds, seconds),
            Energy: (0.0, 0.0, 1.0, 0.0, seconds * latent),
        }
        return np.array(row[type(budget)])

    def _responses(self) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of the amounts by the totals: from the sums, `(sum, 5 totals)`, and constant ones, `(5, totals)`."""
        constants, levels = self.air.constants, self.levels
        result = np.zeros((Layout.MEASURED + 4 * levels, len(AMOUNTS), Layout.TOTALS))
        for part in (AIR, WATER, ENERGY):
            result[Layout.PRESSED + part, part, 0] = 1
            for along in range(3):
                result[Layout.PRESSED_ALONG + 3 * part + along, part, Layout.ALONG + along] = 1
        warmer, moister = (slice(Layout.MEASURED + n * levels, Layout.MEASURED + (n + 1) * levels) for n in (1, 3))
        result[warmer, ENERGY, 1] = constants.heat_capacity_dry_air / constants.gravity
        result[moister, WATER, 2] = 1 / constants.gravity
        result[moister, ENERGY, 2] = constants.latent_heat_vaporisation / constants.gravity
        result[SIZES["rain"], RAIN, 3] = result[SIZES["evaporation"], EVAPORATION, 4] = 1
        everywhere = np.zeros((len(AMOUNTS), Layout.TOTALS))
        everywhere[RAIN, Layout.UNIFORM] = everywhere[EVAPORATION, Layout.UNIFORM + 1] = 1
        return result.reshape(len(result), -1), everywhere

    def _weights(self, variances: dict[str, Tensor]) -> np.ndarray:
        weights = np.ones((1, Layout.MEASURED + 4 * self.levels))
        variances = {kind: variances[kind].numpy().ravel() if kind in variances else 0.0 for kind in native.CONTROLS}
        weights[:, Layout.PRESSED : Layout.RAIN_SIZE] = variances["pressure"]
        weights[:, Layout.RAIN_SIZE], weights[:, Layout.EVAPORATION_SIZE] = variances["rain"], variances["evaporation"]
        for kind, first in (("temperature", 1), ("vapour", 3)):
            start = Layout.MEASURED + first * self.levels
            weights[:, start : start + self.levels] = variances[kind]
        return weights

    def response(self, sums: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Derivatives of the amounts by the totals: `(batch, 5, Layout.TOTALS)`."""
        return times(sums * weights, self.responses).reshape(-1, len(AMOUNTS), Layout.TOTALS) + self.everywhere

    def matrix(self, sums: np.ndarray, weights: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Minus the derivatives of the residuals by the unknowns: `(batch, m, m)`."""
        return -(self.rows @ self.response(sums, weights)) @ directions.swapaxes(-1, -2)

    def on_bound(self, sums: np.ndarray, name: str) -> np.ndarray:
        """Share of a control's cells on its bound, `(batch,)`."""
        return sums[:, Layout.ON_BOUND + CONTROLS.index(name)] / (self.levels if on_levels(name) else 1)

    def at_rest(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Totals of nothing, `(batch, Layout.TOTALS)`, and the weights of the variances as given, `(batch, sum)`."""
        return np.zeros((batch, Layout.TOTALS)), np.repeat(self.weights, batch, axis=0)

    def solve(self, step: native.Correction, residual, scales: np.ndarray) -> Solution:
        """Start the step, find what closes the budgets, and leave the controls moved by it.

        `residual` takes the first sums and returns a function of the amounts, `(batch, 5) -> (batch, m)`; `scales`: what
        residuals are compared with.
        """
        raise NotImplementedError

    def __call__(self, state0: State, state1: State, anchor: Anchor | None) -> tuple[State, State]:
        """As the scheme; `anchor` None takes the dry mass of `state0`."""
        fields = [state0[name] for name in self.stored.values()]
        fields += [state1[name] for name in (*self.names.values(), *self.gains)]
        return Step(self, anchor or Anchor(None)).correct(fields)
