"""The ocean's side of the energy budget: a slab that takes the very flux that the atmosphere gave.

Systems that step the sea surface temperature after a correction with another surface flux than the one in the budget do
not conserve the energy of both together. Here the ocean is given the corrected state and the energy budget itself, and
asks it for the net surface flux. The stepping of a coupled ocean will use it; no configuration reaches it yet.
"""

import dataclasses

import torch
from torch import Tensor

from emulator.conservation import rounding
from emulator.conservation.atmosphere import State
from emulator.conservation.energy import Energy
from emulator.planet import slab


@dataclasses.dataclass(frozen=True, eq=False)
class Ocean:
    """A mixed layer of fixed depth under part of the surface; sea ice is left out.

    Attributes:
      energy: the atmosphere's energy budget, whose `net_surface` is the flux that enters the ocean.
      depth: of the mixed layer, m, a number or `(*space,)`.
      fraction: ocean share of every cell, `(*space,)`; the rest of the surface flux enters land, which keeps no account.
    """

    energy: Energy
    depth: float | Tensor
    fraction: Tensor

    def __post_init__(self):
        shape = tuple(self.energy.atmosphere.area.shape)
        if tuple(self.fraction.shape) != shape:
            raise ValueError(f"Expected the ocean's fraction of shape {shape}, got {tuple(self.fraction.shape)}")
        if bool(((self.fraction < 0) | (self.fraction > 1)).any()):
            raise ValueError(
                f"Expected an ocean fraction within 0 to 1, got {float(self.fraction.min())} to {float(self.fraction.max())}"
            )
        if not bool((torch.as_tensor(self.depth) > 0).all()):
            raise ValueError(f"Expected a positive depth of the mixed layer in m, got {self.depth!r}")

    @property
    def heat_capacity(self) -> float | Tensor:
        """J m-2 K-1 of ocean."""
        return slab.heat_capacity(self.depth)

    def step(self, temperature: Tensor, state1: State, convergence: float | Tensor = 0.0) -> Tensor:
        """Slab: `Ts + dt (F_net + Q) / (rho c h)`, K.

        Args:
          temperature: sea surface temperature at the start of the step, `(batch, *space)`.
          state1: corrected fields, with the mean fluxes over the step.
          convergence: heat brought by ocean currents, Q, W m-2 of ocean.
        """
        flux, seconds = self.energy.net_surface(state1), self.energy.atmosphere.step_seconds
        warming = slab.warming(flux, convergence, self.depth, seconds)
        return rounding.add(temperature, warming.to(temperature.dtype))

    def implied_convergence(self, before: Tensor, after: Tensor, state1: State) -> Tensor:
        """Prescribed ocean: the Q, W m-2, with which the flux gives the prescribed temperatures: `(batch, *space)`."""
        flux, seconds = self.energy.net_surface(state1), self.energy.atmosphere.step_seconds
        return slab.implied_convergence(after - before, flux, self.depth, seconds)

    def coupled_residual(
        self, states: tuple[State, State], temperatures: tuple[Tensor, Tensor], convergence: float | Tensor = 0.0
    ) -> Tensor:
        """Energy of atmosphere and ocean over a step less what entered from outside, J m-2, `(batch,)` float64.

        Outside are space, ocean currents, land and the data's unaccounted heating.
        """
        (state0, state1), (before, after) = states, temperatures
        air, seconds = self.energy.atmosphere, self.energy.atmosphere.step_seconds
        stored = self.heat_capacity * (after - before) - seconds * (self.energy.net_surface(state1) + convergence)
        return self.energy.residual(state0, state1) + air.mean(self.fraction * stored)
