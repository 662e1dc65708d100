"""Corrections one after the other: non-negativity, dry air, water, energy, each exact and none undoing the one before.

Dry air moves surface pressure (or humidity), so it comes first: both others count the columns' mass. Water moves
precipitation or evaporation, with the latent heat flux that goes along, and no state. Energy moves temperature, on which
neither of the others depends. So all three close at the end. Other quantities follow, each with a field of its own.
"""

import numpy as np
import torch
from torch import Tensor

from emulator.conservation import fluxes
from emulator.conservation.atmosphere import Atmosphere, State
from emulator.conservation.budgets import Anchor, Budget
from emulator.conservation.compiled import Compiled
from emulator.conservation.compiled_step import AIR, AMOUNTS, EVAPORATION, KIND, RAIN, WATER, Solution
from emulator.conservation.scheme import Correction, Scheme, SchemeOptions
from emulator.conservation.steps import ColumnStep, DryAirStep, EnergyStep, ScalingStep, WaterStep
from emulator.kernels import corrections as native
from emulator.kernels.compiled import Layout


class Sequential(Scheme):
    """Non-negativity, then a correction for each chosen budget in the order of the module's docstring."""

    def __init__(self, options: SchemeOptions, atmosphere: Atmosphere, budgets: dict[str, Budget], variables):
        super().__init__(options, atmosphere, budgets)
        dry_air = options.dry_air or ("ratio" if atmosphere.has_surface_pressure else "humidity")
        makers = {
            "dry_air": lambda budget: DryAirStep(budget, dry_air, options.humidity_from_level),
            "water": lambda budget: WaterStep(budget, options.water),
            "energy": lambda budget: EnergyStep(budget, options.temperature),
            "column_water": ColumnStep,
        }
        self.steps = [makers.get(name, ScalingStep)(budget) for name, budget in budgets.items()]
        variables = set(variables)
        self.clipped = tuple(name for name in fluxes.NON_NEGATIVE if name in variables)
        changes = dict.fromkeys((*self.clipped, *(name for step in self.steps for name in step.changes)))
        self.changes = (*changes, *fluxes.linked_names(changes, variables))
        self.required = tuple(dict.fromkeys((*self.required, *self.changes)))
        self.compiled = CompiledSequential(self) if CompiledSequential.fits(self) else None

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
        modes = {kind: (0, Layout.FIRST) for kind in ("vapour", "rain")} | {"pressure": (Layout.SIGNED, 0)}
        moving = [KIND[name] for step in scheme.steps for name in step.changes]
        if self.water is not None:
            self.scaled = self.water.scaled
            modes[KIND[self.scaled]] = (Layout.SIGNED, modes.get(KIND[self.scaled], (0, 0))[1])
        super().__init__(scheme, modes, {kind: torch.ones((), dtype=torch.float64) for kind in moving})

    @staticmethod
    def fits(scheme: Sequential) -> bool:
        if not Compiled.fits(scheme):
            return False
        for step in scheme.steps:
            linear = scheme.atmosphere.levels.kind != "pressure"
            if isinstance(step, DryAirStep) and not (step.form == "ratio" and linear):
                return False
            if isinstance(step, EnergyStep) and step.form != "uniform":
                return False
        return True

    def solve(self, step: native.Correction, residual, scales: np.ndarray) -> Solution:
        totals, weights = self.at_rest(len(scales))
        first = step.start(totals, weights)
        residual, response = residual(first), self.response(first, weights)
        saturations = {name: self.on_bound(first, name) for name in self.scheme.clipped}
        amounts, number = first[:, : len(AMOUNTS)], 0
        directions = np.zeros((len(scales), len(self.rows), Layout.TOTALS))
        if self.dry_air is not None:
            totals[:, 0] = -residual(amounts)[:, number] / (response[:, AIR, 0] - response[:, WATER, 0])
            amounts = amounts + totals[:, :1] * response[:, :, 0]
            directions[:, number, 0], number = 1, number + 1
        if self.water is not None:
            part, sign = (RAIN, 1.0) if self.scaled == fluxes.PRECIPITATION else (EVAPORATION, -1.0)
            missing = -residual(amounts)[:, number] / self.air.step_seconds
            totals[:, part], rest, saturated = self.water.split(sign, sign * amounts[:, part], missing)
            totals[:, Layout.UNIFORM], totals[:, Layout.UNIFORM + 1] = np.maximum(rest, 0), np.minimum(rest, 0)
            amounts = amounts + (response[:, :, 3:] * totals[:, None, 3:]).sum(2)
            directions[:, number, part] = ~saturated
            directions[:, number, Layout.UNIFORM] = saturated & (rest > 0)
            directions[:, number, Layout.UNIFORM + 1] = saturated & ~(rest > 0)
            saturations["water"], number = saturated.astype(np.float64), number + 1
        if self.energy is not None:
            capacity = self.air.constants.heat_capacity_dry_air
            totals[:, 1] = -residual(amounts)[:, number] / (capacity * amounts[:, AIR])
            directions[:, number, 1] = 1
        last = step.trial(totals, weights)
        return Solution(first, last, totals, directions, weights, saturations)
