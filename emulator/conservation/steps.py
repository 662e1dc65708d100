"""One correction each: dry air, water, energy, the divergence of moisture, and any quantity by scaling one of its fields."""

import dataclasses

import torch
from torch import Tensor

from emulator.conservation import amounts, fluxes, rounding
from emulator.conservation.budgets import TINY, Anchor, ColumnWater, Declared, DryAir, Water
from emulator.conservation.cells import State, on_levels
from emulator.conservation.energy import Energy

DRY_AIR_FORMS = ("ratio", "offset", "humidity")
WATER_FORMS = ("precipitation", "evaporation")
ENERGY_FORMS = ("uniform", "ratio")
TINY_RATE = 1e-12  # kg m-2 s-1, a ten-millionth of a millimetre a day: below it there is no flux to scale
# Surface pressure enters linearly on sigma and hybrid levels. On pressure levels and with bounds the response is
# piecewise linear, and each pass settles which pieces are in force.
PASSES = 4


@dataclasses.dataclass(frozen=True, eq=False)
class DryAirStep:
    """Bring dry mass to the reference.

    `form` "ratio" scales surface pressure (CREDIT on model levels), "offset" adds one amount of dry pressure to every
    column (ACE2), "humidity" scales the dry share 1 - q at the levels from `from_level` down (CREDIT on pressure levels).
    """

    budget: DryAir
    form: str = "ratio"
    from_level: int = 0

    def __post_init__(self):
        if self.form not in DRY_AIR_FORMS:
            raise ValueError(f"Expected the dry-air correction among {DRY_AIR_FORMS}, got {self.form!r}")
        if self.form != "humidity" and not self.budget.atmosphere.has_surface_pressure:
            raise ValueError(f"Expected surface_pressure among the variables for the dry-air correction {self.form!r}")

    @property
    def changes(self) -> tuple[str, ...]:
        return (fluxes.HUMIDITY,) if self.form == "humidity" else ("surface_pressure",)

    def __call__(self, state0: State, state: State, anchor: Anchor) -> tuple[State, dict[str, Tensor]]:
        if self.form == "humidity":
            return self._humidity(state0, state, anchor)
        air = self.budget.atmosphere
        exact = air.levels.kind != "pressure"
        start = state["surface_pressure"]
        pattern = start if self.form == "ratio" else 1 / (air.constants.gravity * self.budget.response(state))
        amount, pressure = start.new_zeros(start.shape[0], dtype=torch.float64), start
        for _ in range(1 if exact else PASSES):
            current = state | {"surface_pressure": pressure}
            missing = -self.budget.residual(state0, current, anchor)
            amount = amount + missing / air.mean(self.budget.response(current) * pattern)
            pressure = rounding.add(start, air.spread(amount, False).to(start.dtype) * pattern)
        return {"surface_pressure": pressure}, {}

    def _humidity(self, state0: State, state: State, anchor: Anchor) -> tuple[State, dict[str, Tensor]]:
        air = self.budget.atmosphere
        start = state[fluxes.HUMIDITY]
        layers = air.thickness(air.surface_pressure(state), start) / air.constants.gravity
        below = torch.arange(start.shape[1], device=start.device) >= self.from_level
        dry = (1 - fluxes.total(state, self.budget.species)) * below.reshape(1, -1, *(1,) * air.space)
        ratio, humidity, raw = start.new_zeros(start.shape[0], dtype=torch.float64), start, start
        for _ in range(PASSES):
            missing = -self.budget.residual(state0, state | {fluxes.HUMIDITY: humidity}, anchor)
            # Cells at the bound take part again only where the next change leads away from it.
            free = (raw > 0) | ((raw == 0) & air.spread(missing < 0, True))
            response = air.mean((dry * free * layers).sum(1))
            ratio = ratio + missing / response.clamp(min=TINY_RATE)
            # 1 - q* = (1 - q) r, as a change of q; what the bound takes away is asked of the other cells.
            raw = rounding.add(start, -air.spread(ratio, True).to(start.dtype) * dry)
            humidity = raw.clamp(min=0)
        stuck = air.mean(((humidity <= 0) & (start > 0)).to(torch.float64).mean(1))
        return {fluxes.HUMIDITY: humidity}, {"dry_air": stuck}


@dataclasses.dataclass(frozen=True, eq=False)
class WaterStep:
    """Bring `<P>` or `<E>` to what the change of water asks for, by one ratio over the globe.

    The ratio stays within 1 / `limit` and `limit`. What it cannot supply, because there is no flux to scale or the
    needed flux has the wrong sign, is rained or evaporated uniformly: the budget closes for every input, signs hold,
    and the saturation `water` is 1.
    """

    budget: Water
    form: str = "precipitation"
    limit: float = 10.0

    def __post_init__(self):
        if self.form not in WATER_FORMS:
            raise ValueError(f"Expected the water correction among {WATER_FORMS}, got {self.form!r}")
        if not self.limit > 1:
            raise ValueError(f"Expected a limit of the water correction's ratio above 1, got {self.limit!r}")

    @property
    def changes(self) -> tuple[str, ...]:
        return (fluxes.PRECIPITATION, fluxes.EVAPORATION)

    @property
    def scaled(self) -> str:
        """The flux that gets the ratio."""
        return fluxes.PRECIPITATION if self.form == "precipitation" else fluxes.EVAPORATION

    def __call__(self, state0: State, state: State, anchor: Anchor) -> tuple[State, dict[str, Tensor]]:
        air = self.budget.atmosphere
        scaled = self.scaled
        missing = -self.budget.residual(state0, state, anchor) / air.step_seconds
        # Fluxes as amounts: evaporation counts with its sign turned round.
        sign = 1.0 if scaled == fluxes.PRECIPITATION else -1.0
        mean = sign * air.mean(state[scaled])
        factor, rest, saturated = self.split(sign, mean, missing)
        changed = {
            name: state[name] + air.spread(part, False).to(state[name].dtype)
            for name, part in ((fluxes.PRECIPITATION, rest.clamp(min=0)), (fluxes.EVAPORATION, rest.clamp(max=0)))
        }
        changed[scaled] = changed[scaled] + air.spread(factor, False).to(state[scaled].dtype) * state[scaled]
        return changed, {"water": saturated.to(torch.float64)}

    def split(self, sign: float, mean, missing):
        """What closes the budget: the ratio less 1, what is left over, kg m-2 s-1, and whether something is, `(batch,)`.

        `mean`: of the scaled flux as an amount, whose `sign` is that of the flux; `missing`: of precipitation and
        evaporation together. Both, and what comes out, tensors or arrays of NumPy.
        """
        wanted = (mean + sign * missing) / mean.clip(min=TINY_RATE) - 1
        usable = mean > TINY_RATE
        factor = wanted.clip(min=1 / self.limit - 1, max=self.limit - 1) * usable
        saturated = ~usable | (factor != wanted)
        # Rounding of the division must not become a uniform drizzle.
        return factor, (missing - sign * factor * mean) * saturated, saturated


@dataclasses.dataclass(frozen=True, eq=False)
class EnergyStep:
    """Close the energy budget with temperature: one increment everywhere, or one ratio of the energy (CREDIT).

    Both forms of energy are linear in temperature, so that one pass is exact.
    """

    budget: Energy
    form: str = "uniform"

    def __post_init__(self):
        if self.form not in ENERGY_FORMS:
            raise ValueError(f"Expected the energy correction among {ENERGY_FORMS}, got {self.form!r}")

    @property
    def changes(self) -> tuple[str, ...]:
        return ("temperature",)

    def __call__(self, state0: State, state: State, anchor: Anchor) -> tuple[State, dict[str, Tensor]]:
        air = self.budget.atmosphere
        temperature = state["temperature"]
        missing = -self.budget.residual(state0, state, anchor)
        capacity = self.budget.heat_capacity_of(state)
        pattern = 1.0 if self.form == "uniform" else self._ratio_pattern(state, capacity)
        amount = air.spread(missing / self._response(state, capacity * pattern), True).to(temperature.dtype)
        return {"temperature": rounding.add(temperature, amount * pattern)}, {}

    def _response(self, state: State, content: Tensor | float) -> Tensor:
        """Growth of the global energy with the amount of warming, J m-2 K-1: `(batch,)` float64."""
        air, temperature = self.budget.atmosphere, state["temperature"]
        if not isinstance(content, Tensor):
            if means := amounts.shared(self.budget, state):
                return content * means.air
            content = torch.full_like(temperature, content)
        return air.mean(air.integral(content, air.surface_pressure(state)))

    def _ratio_pattern(self, state: State, capacity: Tensor | float) -> Tensor:
        """Change of temperature for a relative change of energy: `(batch, level, *space)`, K."""
        content = self.budget.content(state)
        orography = self.budget.atmosphere.orography(content)
        return (content if orography is None else content + orography) / capacity


@dataclasses.dataclass(frozen=True, eq=False)
class ColumnStep:
    """Diagnose the divergence of moisture transport anew, so that every column closes (ACE2)."""

    budget: ColumnWater

    @property
    def changes(self) -> tuple[str, ...]:
        return (fluxes.DIVERGENCE,)

    def __call__(self, state0: State, state: State, anchor: Anchor) -> tuple[State, dict[str, Tensor]]:
        surplus = self.budget.columns(state0, state) / self.budget.water.atmosphere.step_seconds
        return {fluxes.DIVERGENCE: state[fluxes.DIVERGENCE] - surplus.to(state[fluxes.DIVERGENCE].dtype)}, {}


@dataclasses.dataclass(frozen=True, eq=False)
class ScalingStep:
    """Close the budget of a quantity that has no correction of its own with one ratio of its control, or one increment.

    A ratio stays at 0 or above, so that nothing changes sign; where that, or an empty field, leaves the budget open, the
    saturation by the quantity's name is 1. An increment is the same in all cells that hold something.
    """

    budget: Declared

    @property
    def control(self) -> str:
        return self.budget.quantity.control

    @property
    def changes(self) -> tuple[str, ...]:
        return (self.control,)

    def __call__(self, state0: State, state: State, anchor: Anchor) -> tuple[State, dict[str, Tensor]]:
        air, name = self.budget.atmosphere, self.control
        start = field = state[name]
        levels = on_levels(name, start.ndim == air.space + 2)
        scaled = self.budget.quantity.correction == "ratio"
        pattern = start if scaled else air.existing(torch.ones_like(start))
        ratio = start.new_zeros(start.shape[0], dtype=torch.float64)
        for _ in range(PASSES):
            current = state | {name: field}
            missing = -self.budget.residual(state0, current, anchor)
            moved = self.budget.gradient(current)[name] * pattern.to(torch.float64)
            response = air.mean(air.integral(moved, air.surface_pressure(state)) if levels else moved)
            empty = response.abs() < TINY
            wanted = ratio + missing / torch.where(empty, 1.0, response)
            ratio = torch.where(empty, ratio, wanted.clamp(min=-1) if scaled else wanted)
            field = rounding.add(start, air.spread(ratio, levels).to(start.dtype) * pattern)
        return {name: field}, {self.budget.name: (empty | (scaled & (wanted < -1))).to(torch.float64)}
