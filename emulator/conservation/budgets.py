"""Budgets of dry air, of water, of water column by column, and of any other registered quantity. Energy has its own file.

A budget is an object with a `name`, the fields it needs (`required`), its imbalance over one step for every column
(`columns`), the global residual in natural units (`residual`), the amount it is compared with (`scale`) and its
derivative (`gradient`). `docs/conservation.md` derives the formulas and shows how to add a quantity.
"""

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from emulator.conservation import amounts, fluxes
from emulator.conservation.atmosphere import Atmosphere, State
from emulator.conservation.sea import Sea
from emulator.planet.quantities.registry import Quantity

TINY = 1e-30


@dataclasses.dataclass(frozen=True)
class Anchor:
    """What a step is held to.

    Attributes:
      dry_mass: kg m-2, `(batch,)` float64, of the global mean at the start of the step; None: that of the state there.
      left: of an open domain what leaves it by its sides over the step, in the budgets' units, `(batch,)` float64 by budget.
    """

    dry_mass: Tensor | None
    left: Mapping[str, Tensor] | None = None


def left(anchor: Anchor | None, name: str) -> Tensor | float:
    """What a step lets out by the sides of a domain, in the budget's units; 0 of a closed one."""
    return 0.0 if anchor is None or anchor.left is None else anchor.left[name]


class Budget(Protocol):
    """One conserved quantity. `state0` and `state1` are the start and the end of a step, fluxes being in `state1`."""

    name: str
    units: str
    required: tuple[str, ...]

    def columns(self, state0: State, state1: State) -> Tensor:
        """Imbalance of every column over the step, transport included, in `units`: `(batch, *space)`."""

    def residual(self, state0: State, state1: State, anchor: Anchor | None = None) -> Tensor:
        """Mean imbalance over the step, in `units`: `(batch,)` float64. Zero where the budget closes.

        Of the globe, or of a domain whose `anchor` says what left it by its sides.
        """

    def scale(self, state: State) -> Tensor:
        """Global mean amount, in `units`, that a relative residual is a share of: `(batch,)` float64."""

    def gradient(self, state: State) -> dict[str, Tensor | float]:
        """Derivative of `columns` by the fields of `state1`: per unit of area for surface fields, by mass for levels.

        For a level field x the column's derivative is `gradient * dp / g`. Values broadcast to the field's shape.
        """


@dataclasses.dataclass(frozen=True, eq=False)
class DryAir:
    """Mass of dry air, `M_d = <(ps - p_top) / g - I(q)>`, kg m-2; q is total water, as far as `species` names it.

    `creep` [kg m-2 s-1] is a constant rate by which the data's own dry mass grows.
    """

    atmosphere: Atmosphere
    species: tuple[str, ...] = (fluxes.HUMIDITY,)
    creep: float = 0.0
    name = "dry_air"
    units = "kg m-2"

    @property
    def required(self) -> tuple[str, ...]:
        return (*self.species, *_surface(self.atmosphere))

    def mass(self, state: State) -> Tensor:
        """Global mean dry mass, kg m-2: `(batch,)` float64."""
        if means := amounts.shared(self, state):
            return means.air - means.water
        air, gravity = self.atmosphere, self.atmosphere.constants.gravity
        pressure = air.surface_pressure(state)
        water = fluxes.total(state, self.species)
        vapour = air.integral(water, pressure)
        # Only the large term needs float64 in the column: water is a four-hundredth of it.
        return air.mean(air.column_pressure(pressure, vapour) / gravity - vapour)

    def columns(self, state0: State, state1: State) -> Tensor:
        air, gravity = self.atmosphere, self.atmosphere.constants.gravity
        water = _column_change(
            air, fluxes.total(state0, self.species), fluxes.total(state1, self.species), state0, state1
        )
        expected = self.creep * air.step_seconds
        if not air.has_surface_pressure:
            return -water - expected
        before, after = (air.surface_pressure(state) for state in (state0, state1))
        change = air.column_pressure(after, after) - air.column_pressure(before, before)
        return change / gravity - water - expected

    def residual(self, state0: State, state1: State, anchor: Anchor | None = None) -> Tensor:
        """Dry mass at the end minus the reference, which is the anchor's or else that of `state0`, and the creep."""
        expected, out = self.creep * self.atmosphere.step_seconds, left(anchor, self.name)
        if anchor is None or anchor.dry_mass is None:
            if amounts.shared(self, state1):
                return self.mass(state1) - self.mass(state0) - expected + out
            return self.atmosphere.mean(self.columns(state0, state1)) + out
        return self.mass(state1) - anchor.dry_mass - expected + out

    def scale(self, state: State) -> Tensor:
        return self.mass(state)

    def gradient(self, state: State) -> dict[str, Tensor | float]:
        result: dict[str, Tensor | float] = dict.fromkeys(self.species, -1.0)
        if self.atmosphere.has_surface_pressure:
            result["surface_pressure"] = self.response(state)
        return result

    def response(self, state: State) -> Tensor:
        """Growth of a column's dry mass with its surface pressure, kg m-2 Pa-1: `(batch, *space)`."""
        if means := amounts.shared(self, state):
            return means.growth[:, 0] - means.growth[:, 1]
        water = fluxes.total(state, self.species)
        growth = self.atmosphere.growth(state["surface_pressure"], water)
        return ((1 - water) * growth).sum(1) / self.atmosphere.constants.gravity


@dataclasses.dataclass(frozen=True, eq=False)
class Water:
    """Water, `<W1> - <W0> = dt <E - P>`, kg m-2, `W = I(q)`; `moistening` [kg m-2 s-1] is unaccounted and constant."""

    atmosphere: Atmosphere
    species: tuple[str, ...] = (fluxes.HUMIDITY,)
    moistening: float = 0.0
    name = "water"
    units = "kg m-2"
    divergence = fluxes.DIVERGENCE

    @property
    def required(self) -> tuple[str, ...]:
        return (*self.species, *_surface(self.atmosphere), fluxes.PRECIPITATION, fluxes.EVAPORATION)

    def columns(self, state0: State, state1: State) -> Tensor:
        seconds = self.atmosphere.step_seconds
        water = [fluxes.total(state, self.species) for state in (state0, state1)]
        return _column_change(self.atmosphere, *water, state0, state1) - seconds * self.gain(state1)

    def gain(self, state: State) -> Tensor:
        """`E - P` and what is unaccounted, kg m-2 s-1: `(batch, *space)`. Evaporation is negative."""
        return self.moistening - (state[fluxes.EVAPORATION] + state[fluxes.PRECIPITATION])

    def residual(self, state0: State, state1: State, anchor: Anchor | None = None) -> Tensor:
        air, out = self.atmosphere, left(anchor, self.name)
        if means := amounts.shared(self, state1):
            return means.water - self.scale(state0) - air.step_seconds * air.mean(self.gain(state1)) + out
        return air.mean(self.columns(state0, state1)) + out

    def scale(self, state: State) -> Tensor:
        if means := amounts.shared(self, state):
            return means.water
        water = fluxes.total(state, self.species)
        return self.atmosphere.mean(self.atmosphere.integral(water, self.atmosphere.surface_pressure(state)))

    def gradient(self, state: State) -> dict[str, Tensor | float]:
        air, seconds = self.atmosphere, self.atmosphere.step_seconds
        result: dict[str, Tensor | float] = dict.fromkeys(self.species, 1.0)
        result |= {fluxes.PRECIPITATION: seconds, fluxes.EVAPORATION: seconds}
        if air.has_surface_pressure:
            if means := amounts.shared(self, state):
                return result | {"surface_pressure": means.growth[:, 1]}
            water = fluxes.total(state, self.species)
            growth = air.growth(state["surface_pressure"], water)
            result["surface_pressure"] = (water * growth).sum(1) / air.constants.gravity
        return result


@dataclasses.dataclass(frozen=True, eq=False)
class ColumnWater:
    """Water column by column, `dW/dt = A + E - P`, where the data has A: minus the divergence of moisture transport.

    `<A> = 0` on a sphere, so that closing every column also asks for the global budget.
    """

    water: Water
    name = "column_water"
    units = "kg m-2"

    @property
    def required(self) -> tuple[str, ...]:
        return (*self.water.required, fluxes.DIVERGENCE)

    def columns(self, state0: State, state1: State) -> Tensor:
        return self.water.columns(state0, state1) + self.water.atmosphere.step_seconds * state1[fluxes.DIVERGENCE]

    def residual(self, state0: State, state1: State, anchor: Anchor | None = None) -> Tensor:
        """Root mean square over the columns, kg m-2: a mean would hide errors that cancel."""
        # The bound keeps the root's derivative finite where every column closes.
        return self.water.atmosphere.mean(self.columns(state0, state1) ** 2).clamp(min=TINY).sqrt()

    def scale(self, state: State) -> Tensor:
        return self.water.scale(state)

    def gradient(self, state: State) -> dict[str, Tensor | float]:
        return self.water.gradient(state) | {fluxes.DIVERGENCE: self.water.atmosphere.step_seconds}


@dataclasses.dataclass(frozen=True, eq=False)
class Declared:
    """The budget of a quantity of air or sea from its declaration alone, in float64, with derivatives by torch."""

    atmosphere: Atmosphere | Sea
    quantity: Quantity

    @property
    def name(self) -> str:
        return self.quantity.name

    @property
    def units(self) -> str:
        return self.quantity.units

    @property
    def required(self) -> tuple[str, ...]:
        return (*self.quantity.state, *_surface(self.atmosphere), *self.quantity.fluxes)

    def _content(self, state: State) -> Tensor:
        return self.atmosphere.existing(self.quantity.content(self._exact(state), self.atmosphere.constants))

    def _exact(self, state: State) -> State:
        """The fields that count, in float64: what is formed here are differences of large amounts."""
        names = (*self.required, *self.quantity.optional, *self.quantity.optional_fluxes)
        return {name: state[name].to(torch.float64) for name in names if name in state}

    def columns(self, state0: State, state1: State) -> Tensor:
        air = self.atmosphere
        before, after = self._exact(state0), self._exact(state1)
        change = _column_change(air, self._content(state0), self._content(state1), before, after)
        gained = self.quantity.gained(after, air.constants)
        return change - air.step_seconds * (air.existing(gained) if isinstance(gained, Tensor) else gained)

    def residual(self, state0: State, state1: State, anchor: Anchor | None = None) -> Tensor:
        return self.atmosphere.mean(self.columns(state0, state1)) + left(anchor, self.name)

    def scale(self, state: State) -> Tensor:
        air = self.atmosphere
        return air.mean(air.integral(self._content(state), air.surface_pressure(self._exact(state))))

    def gradient(self, state: State) -> dict[str, Tensor | float]:
        air, fields = self.atmosphere, {name: state[name] for name in self.quantity.state}
        traced = torch.is_grad_enabled() and any(x.requires_grad for x in fields.values())
        with torch.enable_grad():
            fields = {n: x if traced and x.requires_grad else x.detach().requires_grad_() for n, x in fields.items()}
            content = self._content(state | fields)
            derivatives = torch.autograd.grad(
                content.sum(), list(fields.values()), create_graph=traced, allow_unused=True, materialize_grads=True
            )
        result: dict[str, Tensor | float] = dict(zip(fields, derivatives, strict=True))
        result |= {name: -air.step_seconds * sign for name, sign in self.quantity.fluxes.items()}
        if air.has_surface_pressure:
            content = content if traced else content.detach()
            growth = air.growth(state["surface_pressure"], content)
            moved = (content * growth).sum(1) / air.constants.gravity
            result["surface_pressure"] = moved.to(state["surface_pressure"].dtype)
        return result


def _surface(air: Atmosphere | Sea) -> tuple[str, ...]:
    return ("surface_pressure",) if air.has_surface_pressure else ()


def _column_change(air: Atmosphere | Sea, before: Tensor, after: Tensor, state0: State, state1: State) -> Tensor:
    """Change of a column integral over the step, from differences: `(batch, *space)`."""
    change = after - before
    pressures = (air.surface_pressure(state) for state in (state0, state1))
    return air.integral_change(change, torch.add(before, change, alpha=0.5), *pressures)
