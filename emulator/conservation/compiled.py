"""Newton's method of a projection with every trial in one pass over the fields, where compiled kernels serve.

With the usual budgets and controls all derivatives are numbers, but for those by surface pressure. Then a trial's residuals
and its Jacobian are linear in 18 sums over the sphere, which `emulator/native` forms while it moves the controls.
"""

import dataclasses

import torch
from torch import Tensor

from emulator.conservation import amounts, fluxes, rounding
from emulator.conservation.atmosphere import on_levels
from emulator.conservation.budgets import DryAir, Water
from emulator.conservation.energy import Energy
from emulator.conservation.multipliers import Problem, Trial
from emulator.native import columns as native

CONTROLS = ("surface_pressure", "temperature", fluxes.HUMIDITY, fluxes.PRECIPITATION, fluxes.EVAPORATION)
# Budgets by air, water and energy, which is the order of the kernels' sums.
PARTS = {DryAir: (1.0, -1.0, 0.0), Water: (0.0, 1.0, 0.0), Energy: (0.0, 0.0, 1.0)}


class Compiled(Problem):
    """A problem whose trials come from the kernels; gradients do not pass."""

    def __init__(self, problem: Problem, kept):
        self.__dict__.update(problem.__dict__)
        known, one_pass = kept(self.base), kept.one_pass
        fields = {kind: self.base[name].detach() for kind, name in one_pass.names.items()}
        controls = {native.CONTROLS[CONTROLS.index(name)]: self._control(name) for name in self.scheme.controls}
        self._trials = native.Trials(one_pass.plan, fields, controls, known.growth.detach().flatten(2))
        self._totals, self._sums = (self.scheme.kept(part, self.scales, self._constants) for part in (0, 1))
        self._offset = None

    @staticmethod
    def of(problem: Problem) -> "Compiled | None":
        """The same problem for the kernels, or None where they do not serve."""
        kept, scheme = problem.base.get(amounts.KEPT), problem.scheme
        if kept is None or scheme.bands is not None or not set(scheme.controls) <= set(CONTROLS):
            return None
        if any(type(budget) not in PARTS or budget not in kept.one_pass.budgets for budget in scheme.solved):
            return None
        if any(budget.moist for budget in scheme.solved if isinstance(budget, Energy)):  # trials know no product q T
            return None
        numbers = [name for name in scheme.controls if name != "surface_pressure"]
        if any(isinstance(gradient.get(name), Tensor) for gradient in problem.right for name in numbers):
            return None
        return Compiled(problem, kept) if native.serves(*(problem.start[name] for name in scheme.controls)) else None

    def _control(self, name: str) -> native.Control:
        field, variance = self.start[name].detach(), self.variances[name].detach().to(torch.float64)
        levels = field.shape[1] if on_levels(name) else 1
        variance = variance.reshape(variance.shape[:2] if levels > 1 and variance.ndim else (-1, 1))
        variance = variance.expand(len(field), levels).contiguous()
        pattern = rounding.pattern_of(tuple(field.shape[1:]), field.device)
        return native.Control(
            field, variance, pattern, name in self.scheme.options.relative, name in self.scheme.bounded
        )

    def _constants(self) -> tuple[list, list]:
        """What the kernels add for a multiplier, `(budget, 5 + 3)`, and residuals and Jacobian by sum."""
        parts = [PARTS[type(budget)] for budget in self.scheme.solved]
        slopes = {name: [0.0] * len(parts) for name in CONTROLS}
        slopes |= {name: self._derivatives(name) for name in self.scheme.controls if name != "surface_pressure"}
        totals = [[self._reach(name) * slopes[name][i] for name in CONTROLS] for i in range(len(parts))]
        totals = [[*row, *(-share for share in part)] for row, part in zip(totals, parts, strict=True)]
        nothing = [0.0] * len(parts) ** 2
        sums = [[*(part[n] for part in parts), *nothing] for n in range(3)]
        for name in CONTROLS[1:]:
            scale = self._layer_scale if on_levels(name) else 1.0
            outer = [scale * a * b for a in slopes[name] for b in slopes[name]]
            sums.append([*[0.0] * len(parts), *outer])
        sums += [[*slopes[name], *nothing] for name in CONTROLS[3:]]
        for m in range(3):
            sums += [[*[0.0] * len(parts), *(a[m] * b[n] for a in parts for b in parts)] for n in range(3)]
        return totals, sums

    def solve(self, trial: Trial) -> tuple[Trial, Tensor]:
        """As in every problem; `trial` is the first one."""
        start = self.evaluate(trial.multipliers)
        self._offset = trial.residual - start.residual
        found, open_ = super().solve(dataclasses.replace(trial, jacobian=start.jacobian))
        return (self._whole(found) if found.measured is not None else found), open_

    def evaluate(self, multipliers: Tensor) -> Trial:
        """The controls for given multipliers without their bounds, their residuals and the Jacobian there."""
        moved, sums = self._trials(multipliers @ self._totals)
        changed = {name: moved[native.CONTROLS[CONTROLS.index(name)]] for name in self.scheme.controls}
        count = len(self.scheme.solved)
        residual, jacobian = (sums[:, : len(self._sums)] @ self._sums).split([count, count**2], dim=1)
        residual = residual if self._offset is None else residual + self._offset
        return Trial(multipliers, changed, {}, residual, jacobian.unflatten(1, (count, count)), sums)

    def _whole(self, trial: Trial) -> Trial:
        """A trial with bounds, with what follows from its controls, and what was measured of them."""
        raw = {name: trial.changed[name] for name in self.scheme.bounded}
        changed = trial.changed | {name: field.clamp(min=0) for name, field in raw.items()}
        squares, bound = {}, {}
        for name in self.scheme.controls:
            n = len(self._sums) + CONTROLS.index(name)
            levels = changed[name].shape[1] if on_levels(name) else 1
            squares[name], bound[name] = (trial.measured[:, m] / levels for m in (n, n + len(CONTROLS)))
        return dataclasses.replace(
            trial, changed=changed | self._linked(changed), raw=raw, squares=squares, bound=bound
        )
