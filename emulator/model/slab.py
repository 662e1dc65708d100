"""A slab under an atmosphere's emulator: a mixed layer of sea that keeps the heat that the atmosphere gave.

`rho c h (T1 - T0) = dt (F + Q)`, explicit in time, T float64 (`emulator.planet.slab`). In ACE2-SOM (Clark et al. 2024, arXiv
2412.04418) F lacks the heat of fusion of snow that the atmosphere's budget has, so that energy is lost between the two.
"""

import torch
from torch import Tensor

from emulator.data.channels import Channels
from emulator.data.forcing import StepInputs
from emulator.model.coupled import SEA_TEMPERATURE, HeatFlux, OceanStep
from emulator.planet import slab

SHARE = "slab_share"  # of a cell that the slab takes the heat of in a step; 0 where it is not stepped


class Slab:
    """The mixed layer of the sea's cells, stepped with every step of the atmosphere.

    It is stepped in cells of which the sea has more than half, and where these are frozen over, unless `under_ice`, and
    everywhere else the temperature at the end of a step is the prescribed one. A stepped cell is warmed by its mean net
    flux, and of the flux's heat the sea's share of the cell enters the slab; the rest enters land, of which no account is
    kept.

    Args:
      flux: the atmosphere's net heat flux into the surface.
      given: channels of what the slab is given of its own: the prescribed temperature at the start and the end of the step,
        and where they come from a store, depth, convergence and ice, as `Layout.given` has them.
      land: share of land in every cell, `(*space)` float64, on the atmosphere's device.
      seconds: length of a step.
      constant: depth, m, and convergence, W m-2, by name, `(*space)` float64, where they do not come from a store.
      under_ice: whether the layer is stepped under sea ice too.
    """

    every = 1

    def __init__(
        self,
        flux: HeatFlux,
        given: Channels,
        land: Tensor,
        seconds: float,
        constant: dict[str, Tensor],
        under_ice: bool = False,
    ):
        self.flux, self.takes, self.given = flux, flux.takes, given
        self.seconds, self.constant, self.under_ice = seconds, constant, under_ice
        self._is_sea, self._sea = slab.is_sea(land), 1 - land

    def start(self, given: StepInputs) -> dict[str, Tensor]:
        """The prescribed temperature."""
        return {SEA_TEMPERATURE: self.given.unpack(given.forcing)[SEA_TEMPERATURE].double()}

    def temperature(self, state: dict[str, Tensor], prescribed: Tensor) -> Tensor:
        return state[SEA_TEMPERATURE]

    def step(self, state: dict[str, Tensor], received: dict[str, Tensor], given: StepInputs, number: int) -> OceanStep:
        fields, before = self.given.unpack(given.forcing), state[SEA_TEMPERATURE]
        depth, convergence, stepped = self._layer(fields, before)
        seconds = self.seconds
        if isinstance(given.length, Tensor):  # calendar steps
            seconds = seconds * given.length.view(-1, *[1] * (before.dim() - 1))
        warming = slab.warming(self.flux(received), convergence, depth, seconds)
        after = torch.where(stepped, before + warming, fields[f"{SEA_TEMPERATURE}@end"].double())
        return OceanStep({SEA_TEMPERATURE: after}, self._written(after, depth, convergence, stepped))

    def beside(self, given: StepInputs) -> dict[str, Tensor]:
        """What is written of the initial time."""
        temperature = self.start(given)[SEA_TEMPERATURE]
        return self._written(temperature, *self._layer(self.given.unpack(given.forcing), temperature))

    def _layer(self, fields: dict[str, Tensor], like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Depth, convergence, and where the layer is stepped, `(batch, *space)` each."""
        named = {
            name: (self.constant[name] if name in self.constant else fields[name].double()).expand_as(like)
            for name in (slab.DEPTH, slab.CONVERGENCE)
        }
        stepped = self._is_sea.expand_as(like)
        if slab.ICE in fields and not self.under_ice:
            stepped = stepped & slab.is_open(fields[slab.ICE])
        return named[slab.DEPTH], named[slab.CONVERGENCE], stepped

    def _written(self, temperature, depth, convergence, stepped) -> dict[str, Tensor]:
        return {
            SEA_TEMPERATURE: temperature,
            slab.DEPTH: depth.float(),
            slab.CONVERGENCE: convergence.float(),
            SHARE: torch.where(stepped, self._sea, 0.0).float(),
        }
