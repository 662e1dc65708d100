"""Corrections one after the other: non-negativity, dry air, water, energy, each exact and none undoing the one before.

Dry air moves surface pressure (or humidity), so it comes first: both others count the columns' mass. Water moves
precipitation or evaporation, with the latent heat flux that goes along, and no state. Energy moves temperature, on which
neither of the others depends. So all three close at the end.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from emulator.conservation import amounts, fluxes, rounding
from emulator.conservation.atmosphere import Atmosphere, State
from emulator.conservation.budgets import Anchor, Budget, ColumnWater, DryAir, Water
from emulator.conservation.compiled import AIR, AMOUNTS, EVAPORATION, KIND, RAIN, WATER, Compiled, Solution
from emulator.conservation.energy import Energy
from emulator.conservation.scheme import Correction, Options, Scheme
from emulator.kernels import corrections as native

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
            if found := amounts.known(self.budget, state):
                return content * found.air
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


class Sequential(Scheme):
    """Non-negativity, then a correction for each chosen budget in the order of the module's docstring."""

    def __init__(self, options: Options, atmosphere: Atmosphere, budgets: dict[str, Budget], variables):
        super().__init__(options, atmosphere, budgets)
        dry_air = options.dry_air or ("ratio" if atmosphere.has_surface_pressure else "humidity")
        makers = {
            "dry_air": lambda budget: DryAirStep(budget, dry_air, options.humidity_from_level),
            "water": lambda budget: WaterStep(budget, options.water),
            "energy": lambda budget: EnergyStep(budget, options.temperature),
            "column_water": ColumnStep,
        }
        self.steps = [makers[name](budget) for name, budget in budgets.items()]
        variables = set(variables)
        self.clipped = tuple(name for name in fluxes.NON_NEGATIVE if name in variables)
        changes = dict.fromkeys((*self.clipped, *(name for step in self.steps for name in step.changes)))
        self.changes = (*changes, *fluxes.linked_names(changes, variables))
        self.required = tuple(dict.fromkeys((*self.required, *self.changes)))
        self.compiled = CompiledSequential(self) if CompiledSequential.possible(self) else None

    def correct(self, state0: State, state1: State, anchor: Anchor | None, scales: dict[str, Tensor]) -> Correction:
        changed: State = {name: state1[name].clamp(min=0) for name in self.clipped}
        saturations = self._clipped_share(state1)
        for step in self.steps:
            current = state1 | changed
            update, saturation = step(state0, current, anchor)
            update |= fluxes.linked(current, update, self.atmosphere.constants.latent_heat_vaporisation)
            changed |= {name: field for name, field in update.items() if name in self.changes}
            saturations |= saturation
        return Correction(changed, saturations)

    def _clipped_share(self, state: State) -> dict[str, Tensor]:
        """Area share of negative values, the mean over levels: by variable, `(batch,)`."""
        return {name: self.atmosphere.share(state[name].detach() < 0) for name in self.clipped}


class CompiledSequential(Compiled):
    """The corrections from the kernels' sums: a ratio of surface pressure, one of a flux or a uniform flux, and a warming.

    The amounts are linear in surface pressure, so that one pass closes all three. Every budget has one unknown.
    """

    def __init__(self, scheme: Sequential):
        steps = {type(step): step for step in scheme.steps}
        self.dry_air, self.water, self.energy = (steps.get(kind) for kind in (DryAirStep, WaterStep, EnergyStep))
        modes = {kind: (0, native.FIRST) for kind in ("vapour", "rain")} | {"pressure": (native.SIGNED, 0)}
        moving = [KIND[name] for step in scheme.steps for name in step.changes]
        if self.water is not None:
            self.scaled = self.water.scaled
            modes[KIND[self.scaled]] = (native.SIGNED, modes.get(KIND[self.scaled], (0, 0))[1])
        super().__init__(scheme, modes, {kind: torch.ones((), dtype=torch.float64) for kind in moving})

    @staticmethod
    def possible(scheme: Sequential) -> bool:
        for step in scheme.steps:
            linear = scheme.atmosphere.levels.kind != "pressure"
            if isinstance(step, DryAirStep) and not (step.form == "ratio" and linear):
                return False
            if isinstance(step, EnergyStep) and step.form != "uniform":
                return False
        return Compiled.possible(scheme)

    def solve(self, step: native.Correction, residual, scales: np.ndarray) -> Solution:
        totals, weights = self.at_rest(len(scales))
        first = step.start(totals, weights)
        residual, response = residual(first), self.response(first, weights)
        saturations = {name: self.held(first, name) for name in self.scheme.clipped}
        amounts, number = first[:, : len(AMOUNTS)], 0
        directions = np.zeros((len(scales), len(self.rows), native.TOTALS))
        if self.dry_air is not None:
            totals[:, 0] = -residual(amounts)[:, number] / (response[:, AIR, 0] - response[:, WATER, 0])
            amounts = amounts + totals[:, :1] * response[:, :, 0]
            directions[:, number, 0], number = 1, number + 1
        if self.water is not None:
            part, sign = (RAIN, 1.0) if self.scaled == fluxes.PRECIPITATION else (EVAPORATION, -1.0)
            missing = -residual(amounts)[:, number] / self.air.step_seconds
            totals[:, part], rest, saturated = self.water.split(sign, sign * amounts[:, part], missing)
            totals[:, native.UNIFORM], totals[:, native.UNIFORM + 1] = np.maximum(rest, 0), np.minimum(rest, 0)
            amounts = amounts + (response[:, :, 3:] * totals[:, None, 3:]).sum(2)
            directions[:, number, part] = ~saturated
            directions[:, number, native.UNIFORM] = saturated & (rest > 0)
            directions[:, number, native.UNIFORM + 1] = saturated & ~(rest > 0)
            saturations["water"], number = saturated.astype(np.float64), number + 1
        if self.energy is not None:
            capacity = self.air.constants.heat_capacity_dry_air
            totals[:, 1] = -residual(amounts)[:, number] / (capacity * amounts[:, AIR])
            directions[:, number, 1] = 1
        last = step.trial(totals, weights)
        return Solution(first, last, totals, directions, weights, saturations)
