"""An atmosphere's emulator and an ocean that step together: fluxes one way, the temperature of the sea the other.

The atmosphere steps with the sea's temperature as the ocean left it; the ocean takes the mean of the very fluxes that left
the atmosphere's budgets, after all corrections, over as many of its steps as one of the ocean has. A slab is the simplest
ocean (`emulator.model.slab`), another network the usual one (`emulator.model.ocean_emulator`).
"""

import dataclasses
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from emulator.conservation import fluxes
from emulator.data.channels import Layout
from emulator.data.forcing import StepInputs
from emulator.model.stepper import Carry, Stepper, StepResult
from emulator.planet.constants import Constants
from emulator.planet.slab import SEA_TEMPERATURE


class Ocean(Protocol):
    """What an atmosphere can be coupled with. All tensors are on the atmosphere's device.

    Attributes:
      every: steps of the atmosphere in one of the ocean.
      takes: names of the atmosphere's fields that it is given, mean rates.
    """

    every: int
    takes: tuple[str, ...]

    def start(self, given: StepInputs) -> dict[str, Tensor]:
        """The state before the first step. Raises `ValueError` where that has to be given in a `Carry`."""
        ...

    def temperature(self, state: dict[str, Tensor], prescribed: Tensor) -> Tensor:
        """Temperature of the sea that the atmosphere's step starts from, K, `(batch, *space)`."""
        ...

    def step(
        self, state: dict[str, Tensor], received: dict[str, Tensor], given: StepInputs, number: int
    ) -> "OceanStep":
        """What becomes of the ocean in step `number` of the atmosphere, from `received` by `takes`, `(batch, *space)`."""
        ...


@dataclasses.dataclass(frozen=True)
class OceanStep:
    """The state to go on from, fields to be written beside the atmosphere's, and a network's result where its step ended."""

    state: dict[str, Tensor]
    beside: dict[str, Tensor]
    result: StepResult | None = None


class Coupled:
    """A stepper whose sea temperature an ocean steps.

    Args:
      atmosphere: a stepper with `sea_surface_temperature` among its forcing, given at the start of a step.
      ocean: takes what the atmosphere's step ends with.
      number: of the step that this one makes, counted from 1; see `at`.

    Results have the ocean's fields as `beside`, and their `anchor` is a `Carry`. Raises `ValueError` for an atmosphere that
    has no such forcing or does not predict what the ocean takes.
    """

    def __init__(self, atmosphere: Stepper, ocean: Ocean, number: int = 1):
        check_coupling(atmosphere.layout, ocean.takes)
        check_single_steps([atmosphere])
        self.atmosphere, self.ocean, self._number = atmosphere, ocean, number
        self.layout, self.noise, self.device = atmosphere.layout, atmosphere.noise, atmosphere.device
        self._at = self.layout.given.slices[SEA_TEMPERATURE].start

    def at(self, number: int) -> "Coupled":
        return Coupled(self.atmosphere.at(number), self.ocean, number)

    def anchor(self, state: Tensor) -> Carry:
        return Carry(self.atmosphere.anchor(state))

    def __call__(
        self,
        state: Tensor,
        forcing: Tensor,
        clock: Tensor,
        anchor: Carry | None = None,
        noise: Tensor | None = None,
        *,
        ocean: StepInputs,
        **more,
    ) -> StepResult:
        """A step; `ocean`: what the ocean is given of its own in this one."""
        carry = self.anchor(state) if anchor is None else anchor
        sea = carry.kept or self.ocean.start(ocean)
        temperature = self.ocean.temperature(sea, forcing[:, self._at])
        forcing = forcing.clone()
        forcing[:, self._at] = temperature.to(forcing.dtype)
        result = self.atmosphere(state, forcing, clock, carry.anchor, noise, **more)
        fields = self.layout.prognostic.unpack(result.state) | self.layout.diagnostic.unpack(result.diagnostic)
        with torch.autocast(state.device.type, enabled=False):
            stepped = self.ocean.step(sea, {n: fields[n] for n in self.ocean.takes}, ocean, self._number)
        carry = Carry(result.anchor, stepped.state)
        return dataclasses.replace(result, anchor=carry, beside=stepped.beside, ocean=stepped.result)


def check_single_steps(steppers: Iterable[Stepper]) -> None:
    """Raises `ValueError` where one, or a stage of one, makes steps that belong to windows, which no ocean steps between."""
    stages = [stage for each in steppers for _, stage in getattr(each, "stages", ((0, each),))]
    if any(getattr(stage, "horizon", 1) > 1 for stage in stages):
        raise ValueError(
            "Expected networks that step by themselves with an ocean, got one whose steps belong to windows (dyffusion)"
        )


def check_coupling(layout: Layout, takes: tuple[str, ...], name: str = "the atmosphere's network") -> None:
    """Raises `ValueError` where an atmosphere cannot be coupled with an ocean that takes some of its fields."""
    moments = dict(zip(layout.forcing.names, layout.moments, strict=True))
    if SEA_TEMPERATURE not in moments:
        has = ", ".join(layout.forcing.names) or "none"
        raise ValueError(
            f"Expected {name} with {SEA_TEMPERATURE} as forcing, which an ocean gives it, got forcing {has}"
        )
    if moments[SEA_TEMPERATURE] != "start":
        raise ValueError(
            f"Expected {name} to be given {SEA_TEMPERATURE} at the start of a step, since the ocean steps with the fluxes of "
            f"that step, got forcing_moments {moments[SEA_TEMPERATURE]!r}"
        )
    predicted = (*layout.prognostic.names, *layout.diagnostic.names)
    if lacking := [field for field in takes if field not in predicted]:
        raise ValueError(f"Expected {name} to predict what the ocean takes, it does not predict {', '.join(lacking)}")


class HeatFlux:
    """The net heat flux into the surface as the atmosphere's energy budget has it, W m-2.

    Args:
      atmosphere: whose energy budget is asked, where its scheme has one.
      constants: of the data, where it has none.
    """

    def __init__(self, atmosphere: Stepper, constants: Constants):
        layout = atmosphere.layout
        predicted = (*layout.prognostic.names, *layout.diagnostic.names)
        energy = getattr(getattr(atmosphere, "scheme", None), "budgets", {}).get("energy")
        snow = energy.snow if energy is not None else fluxes.SNOWFALL in predicted
        constants = energy.atmosphere.constants if energy is not None else constants
        self.names = energy.surface if energy is not None else fluxes.SURFACE_FLUXES
        self.takes = (*self.names, *(fluxes.SNOWFALL,) * snow)
        self._fusion = constants.latent_heat_fusion if snow else None

    def __call__(self, fields: dict[str, Tensor]) -> Tensor:
        """Of fields `(batch, *space)` in whatever type, in float64."""
        return fluxes.net_surface({name: fields[name].double() for name in self.takes}, self.names, self._fusion)
