"""An ocean's network under an atmosphere's: it takes the mean fluxes of an interval and gives its surface's temperature."""

import dataclasses

import torch
from torch import Tensor

from emulator.conservation.budgets import Anchor
from emulator.data.channels import Layout
from emulator.data.forcing import StepInputs
from emulator.model.coupled import SEA_TEMPERATURE, HeatFlux, OceanStep
from emulator.model.stepper import Stepper, newest

HEAT = "mean_downward_heat_flux_into_sea_water"
WATER_TEMPERATURE = "sea_water_potential_temperature"


@dataclasses.dataclass(frozen=True, eq=False)
class Exchange:
    """What goes through the surface between an atmosphere and an ocean's network.

    Attributes:
      flux: the net heat flux into the surface, which the ocean gets as `mean_downward_heat_flux_into_sea_water`.
      fields: mean rates that the ocean gets under the name that the atmosphere has for them, such as precipitation.
      heat: whether the ocean is given the heat flux.
    """

    flux: HeatFlux
    fields: tuple[str, ...]
    heat: bool

    @classmethod
    def between(cls, flux: HeatFlux, atmosphere: Layout, ocean: Layout) -> "Exchange":
        """All of the ocean's forcing that the atmosphere predicts. Raises `ValueError` where that is nothing, and for an
        ocean that is given it at another moment than over its step."""
        predicted = {*atmosphere.prognostic.names, *atmosphere.diagnostic.names}
        fields = tuple(name for name in ocean.forcing.names if name in predicted)
        exchange = cls(flux, fields, HEAT in ocean.forcing.names)
        if not exchange.names:
            raise ValueError(
                f"Expected an ocean's network with forcing that the atmosphere's predicts, {HEAT} or "
                f"{', '.join(sorted(n for n in predicted if n.startswith('mean_')))}, got "
                f"{', '.join(ocean.forcing.names) or 'no forcing'}"
            )
        moments = dict(zip(ocean.forcing.names, ocean.moments, strict=True))
        if wrong := [name for name in exchange.names if moments[name] not in ("end", "mean")]:
            raise ValueError(
                f"Expected an ocean's network to be given {wrong[0]} as the mean over its step, got forcing_moments "
                f"{moments[wrong[0]]!r}"
            )
        return exchange

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what is exchanged, in the ocean's forcing."""
        return (HEAT,) * self.heat + self.fields

    @property
    def takes(self) -> tuple[str, ...]:
        """Names of the atmosphere's fields behind it."""
        return tuple(dict.fromkeys((*(self.flux.takes if self.heat else ()), *self.fields)))

    def of(self, received: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rates over a step of the atmosphere by their names in the ocean's forcing, `(batch, *space)` float64."""
        found = {HEAT: self.flux(received)} if self.heat else {}
        return found | {name: received[name].double() for name in self.fields}


class OceanEmulator:
    """A network of the ocean with a step of `every` steps of the atmosphere; see `emulator.model.coupled.Ocean`.

    The sea's temperature stays what it is over the interval, at whose end the ocean steps with the means of the fluxes since
    its start. Its state holds the network's, `state`, the sums of the rates, `sum.<name>`, and what budgets are pinned to.

    Args:
      network: the ocean's stepper. exchange: see there. every: steps of the atmosphere in one of its own.
      surface: channel of its state that is the temperature of its surface.
      wet: where it has one, `(*space)` bool; elsewhere the prescribed temperature stays.
      sst: channel of the prescribed temperature at the end of the atmosphere's step in what it is given of its own, whose
        `ocean` is what the network is given, at the steps at whose end it steps.
    """

    def __init__(self, network: Stepper, exchange: Exchange, every: int, surface: int, wet: Tensor, sst: int = 1):
        self.network, self.exchange, self.every, self.surface, self.wet = network, exchange, every, surface, wet
        self.takes, self._sst = exchange.takes, sst
        self._places = {name: network.layout.given.slices[name].start for name in exchange.names}

    def start(self, given: StepInputs) -> dict[str, Tensor]:
        raise ValueError(
            "Expected the ocean's initial state in the Carry that a coupled forecast starts from, got none"
        )

    def begun(self, state: Tensor) -> dict[str, Tensor]:
        """What a forecast from a state of the network, `(batch, [history,] channel, *space)`, starts with."""
        anchor = self.network.anchor(state)
        zero = torch.zeros(len(state), *state.shape[-2:], dtype=torch.float64, device=state.device)
        pinned = {} if anchor is None else {"pinned": anchor.dry_mass}
        return {"state": state, **{f"sum.{name}": zero for name in self.exchange.names}, **pinned}

    def temperature(self, state: dict[str, Tensor], prescribed: Tensor) -> Tensor:
        return torch.where(self.wet, self._surface(state), prescribed)

    def _surface(self, state: dict[str, Tensor]) -> Tensor:
        return newest(state["state"], self.network.layout)[:, self.surface]

    def step(self, state: dict[str, Tensor], received: dict[str, Tensor], given: StepInputs, number: int) -> OceanStep:
        rates = self.exchange.of(received)
        state = state | {f"sum.{name}": state[f"sum.{name}"] + rate for name, rate in rates.items()}
        result = None
        if number % self.every == 0:
            means = {name: (state[f"sum.{name}"] / self.every).float() for name in rates}
            result = self._stepped(state, means, given.ocean)
            emptied = {f"sum.{name}": torch.zeros_like(rate) for name, rate in rates.items()}
            pinned = {} if result.anchor is None else {"pinned": result.anchor.dry_mass}
            state = state | emptied | pinned | {"state": result.onward}
        prescribed = given.forcing[:, self._sst].double()
        beside = {SEA_TEMPERATURE: torch.where(self.wet, self._surface(state).double(), prescribed)}
        return OceanStep(state, beside, result)

    def _stepped(self, state: dict[str, Tensor], means: dict[str, Tensor], given: StepInputs):
        """The network's step over the interval, and beside it the rates that it was given, where there is sea."""
        forcing = given.forcing.clone()
        for name, at in self._places.items():
            forcing[:, at] = torch.where(self.wet, means[name], forcing[:, at])
        anchor = Anchor(state["pinned"]) if "pinned" in state else None
        result = self.network(state["state"], forcing, given.clock, anchor, None, **given.more())
        dry = torch.zeros((), device=forcing.device)
        return dataclasses.replace(result, beside={n: torch.where(self.wet, m, dry) for n, m in means.items()})
