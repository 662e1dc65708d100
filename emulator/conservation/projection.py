"""All budgets at once: the smallest change, measured in error variances, that closes every one of them.

Minimise `<sum_k (dp_k / p00) (x* - x)^2 / sigma^2>` over level fields, plus `<(x* - x)^2 / sigma^2>` over surface fields,
subject to `c(x*) = 0` and `x* >= 0` where a field has no negative values. The norm is that of continuous fields, weighted
by mass and area, so the correction does not depend on how the grid divides the atmosphere. The solution is

    x* = max(0, x - sigma^2 sum_i lambda_i gradient_i),

with one multiplier per budget (or per latitude band), found by Newton's method on `c(x*(lambda)) = 0`. Clipped cells drop
out of the derivative, which is the active-set rule. The increments always start from the prediction, so no rounding
accumulates. Linear budgets without bounds need one step; it is then ProbConserv's update (Hansen et al. 2023).
"""

import dataclasses
import itertools

import torch
from torch import Tensor

from emulator.conservation import fluxes, rounding
from emulator.conservation.atmosphere import Atmosphere, State, on_levels
from emulator.conservation.bands import Bands
from emulator.conservation.budgets import Anchor, Budget
from emulator.conservation.scheme import Correction, Options, Scheme
from emulator.conservation.sequential import ColumnStep

REFERENCE_PRESSURE = 1e5  # Pa, p00: the column that a level field's variance is an average over
CONTROLS = ("surface_pressure", "temperature", fluxes.HUMIDITY, fluxes.PRECIPITATION, fluxes.EVAPORATION)
ITERATIONS = 12
# Relative residual at which Newton's method stops, a little above what rounding leaves on grids of a few hundred cells.
TOLERANCE = {torch.float32: 1e-9, torch.float64: 1e-14}
STALLED = {
    torch.float32: 1e-6,
    torch.float64: 1e-11,
}  # below it, stop as well when a step no longer halves the residual
RIDGE = 1e-13  # on the scaled system, which two budgets with the same free controls would make singular
TINY = 1e-30


Gradient = dict[str, Tensor | float]


class Projection(Scheme):
    """Variance-weighted projection on all budgets.

    Attributes:
      controls: fields that may change, apart from fluxes that follow from them (`fluxes.linked`).
      variances: error variances by control, units squared, `(level,)` or one number.
      bounded: the controls that stay non-negative.
      bands: `Bands`, or None to close every budget over the globe alone.
    """

    def __init__(
        self, options: Options, atmosphere: Atmosphere, budgets: dict[str, Budget], variables, variances, bands=None
    ):
        super().__init__(options, atmosphere, budgets)
        self.solved = [budget for name, budget in budgets.items() if name != "column_water"]
        self.controls = options.controls or tuple(name for name in CONTROLS if name in self.required)
        variables = set(variables)
        if missing := [name for name in self.controls if name not in variables]:
            raise ValueError(f"Expected the projection's controls among the variables, got {missing}")
        self.bands = None if bands is None else Bands(bands, atmosphere, self.solved, variables)
        self.variances = {name: self._variance(name, variances or {}) for name in self.controls}
        self._copies: dict[tuple, Tensor] = {}
        self.bounded = tuple(name for name in fluxes.NON_NEGATIVE if name in self.controls)
        self.clipped = tuple(name for name in fluxes.NON_NEGATIVE if name in variables - set(self.controls))
        changes = (*self.controls, *self.clipped)
        self.columns = tuple(ColumnStep(budget) for name, budget in budgets.items() if name == "column_water")
        linked = fluxes.linked_names(changes, variables)
        self.changes = (*changes, *linked, *(name for step in self.columns for name in step.changes))
        self.required = tuple(dict.fromkeys((*self.required, *self.changes)))

    def _variance(self, name: str, variances) -> Tensor:
        """A control's error variance, shaped to broadcast with its field."""
        if name not in variances:
            raise ValueError(f"Expected an error variance of the control {name}, got variances of {sorted(variances)}")
        value = torch.as_tensor(variances[name], dtype=torch.float64)
        if not bool((torch.isfinite(value) & (value >= 0)).all()) or not bool((value > 0).any()):
            raise ValueError(f"Expected finite error variances of {name}, not all zero, got {value.tolist()}")
        count = len(self.atmosphere.levels)
        if value.numel() == 1:
            return value.reshape(())
        if value.shape != (count,) or not on_levels(name):
            expected = f"{count} error variances" if on_levels(name) else "one error variance"
            raise ValueError(f"Expected {expected} of {name}, got {tuple(value.shape)}")
        return value.reshape(1, -1, *(1,) * self.atmosphere.space)

    def variance(self, name: str, like: Tensor) -> Tensor:
        """A control's error variance in the type and on the device of its field, made once for each."""
        key = (name, like.dtype, like.device)
        if key not in self._copies:
            self._copies[key] = self.variances[name].to(like.device, like.dtype)
        return self._copies[key]

    def correct(self, state0: State, state1: State, anchor: Anchor | None, scales: dict[str, Tensor]) -> Correction:
        clipped = {name: state1[name].clamp(min=0) for name in (*self.bounded, *self.clipped)}
        base = state1 | clipped
        problem = Problem(self, (state0, state1, base), anchor, scales)
        with torch.no_grad():
            trial, open_ = problem.solve()
        residuals = {}
        if torch.is_grad_enabled():
            # One Newton step with the exact Jacobian has the derivative of the solution (implicit function theorem).
            trial = problem.evaluate(trial.multipliers)
            changed, free = problem.apply(trial.multipliers + problem.step(trial))
        else:
            changed, free = trial.changed, trial.free
            if self.bands is None:
                residuals = {budget.name: trial.residual[:, i] for i, budget in enumerate(self.solved)}
        changed = {name: base[name] for name in self.clipped} | changed
        for column in self.columns:
            changed |= column(state0, state1 | changed, anchor)[0]
        saturations = {name: self._share(~mask) for name, mask in free.items()}
        saturations["projection"] = open_.to(torch.float64)
        return Correction({name: changed[name] for name in self.changes}, saturations, residuals)

    def _share(self, flag: Tensor) -> Tensor:
        """Area share of a flag, the mean over levels."""
        value = flag.to(torch.float32)
        return self.atmosphere.mean(value.mean(1) if value.ndim == self.atmosphere.space + 2 else value)


@dataclasses.dataclass(frozen=True)
class Trial:
    """Multipliers `(batch, constraint)`, the changed fields, cells off their bound, and the constraints' residuals."""

    multipliers: Tensor
    changed: State
    free: dict[str, Tensor]
    residual: Tensor


class Problem:
    """One projection: the prediction, the budgets linearised at it, and Newton's method on the multipliers.

    `states` are the start of the step, the prediction, and the prediction with its negative values clipped.
    """

    def __init__(self, scheme: Projection, states: tuple[State, State, State], anchor, scales: dict[str, Tensor]):
        self.scheme, self.anchor = scheme, anchor
        self.state0, self.start, self.base = states
        self.air = scheme.atmosphere
        self.right = [budget.gradient(self.base) for budget in scheme.solved]
        self.spread = {name: self._spread(name) for name in scheme.controls}
        sizes = torch.stack([scales[budget.name] for budget in scheme.solved], dim=1)
        self.scales = sizes if scheme.bands is None else scheme.bands.scales(sizes)
        self.precision = self.start[scheme.controls[0]].dtype

    def _spread(self, name: str) -> Tensor:
        """Error variance of a control, constant, or in proportion to the value's size with the given mean.

        A variance in proportion to the value makes the increment proportional to it as well: the multiplicative fix.
        """
        field = self.base[name]
        variance = self.scheme.variance(name, field)
        if name not in self.scheme.options.relative:
            return variance
        size = field.abs()
        return variance * size / (self.air.mean_by_level(size) + TINY).to(field.dtype)

    def multiplier(self, multipliers: Tensor, index: int, levels: bool) -> Tensor:
        """Multiplier of one budget, float64, to broadcast with a level or surface field."""
        if self.scheme.bands is None:
            return self.air.spread(multipliers[:, index], levels)
        field = self.scheme.bands.field(multipliers, index)
        return field.unsqueeze(1) if levels else field

    def apply(self, multipliers: Tensor) -> tuple[State, dict[str, Tensor]]:
        """Corrected controls with what follows from them, and the cells of bounded controls that are off the bound."""
        changed, free = {}, {}
        for name in self.scheme.controls:
            field = self.start[name]
            levels = on_levels(name)
            owners = [index for index, gradient in enumerate(self.right) if name in gradient]
            if not owners:
                changed[name] = self.base[name]
                continue
            # Terms of different budgets nearly cancel: they are added in float64 before they meet the field.
            constant = [i for i in owners if not isinstance(self.right[i][name], Tensor)]
            total = sum(self.multiplier(multipliers, i, levels) * self.right[i][name] for i in constant)
            total = total.to(field.dtype) if constant else 0.0
            for i in owners:
                if i not in constant:
                    total = total + self.multiplier(multipliers, i, levels).to(field.dtype) * self.right[i][name]
            weight = REFERENCE_PRESSURE / self.air.constants.gravity if levels else 1.0
            changed[name] = rounding.add(field, -weight * self.spread[name] * total)
            if name in self.scheme.bounded:
                free[name] = changed[name] > 0
                changed[name] = changed[name].clamp(min=0)
        latent_heat = self.air.constants.latent_heat_vaporisation
        return changed | fluxes.linked(self.base, changed, latent_heat), free

    def evaluate(self, multipliers: Tensor) -> Trial:
        """The fields for given multipliers, and how far they are from closing the budgets."""
        changed, free = self.apply(multipliers)
        state = self.base | changed
        values = [budget.residual(self.state0, state, self.anchor) for budget in self.scheme.solved]
        if self.scheme.bands is not None:
            return Trial(multipliers, changed, free, self.scheme.bands.residuals(values, self.state0, state))
        return Trial(multipliers, changed, free, torch.stack(values, dim=1))

    def step(self, trial: Trial, at_base: bool = False) -> Tensor:
        """Newton's step of the multipliers; `at_base` where the trial's fields are those of the linearisation."""
        with torch.no_grad():
            matrix = self.jacobian(None if at_base else self.base | trial.changed, trial.free)
            diagonal = matrix.diagonal(dim1=1, dim2=2).abs()
            # A budget that no free control can change has an empty row; its multiplier stays where it is.
            dead = diagonal < TINY
            size = torch.where(dead, torch.ones_like(diagonal), diagonal.sqrt())
            scaled = matrix / (size.unsqueeze(1) * size.unsqueeze(2))
            inverse = torch.linalg.inv_ex(scaled + torch.diag_embed(torch.where(dead, 1.0, RIDGE))).inverse
        target = (trial.residual / size).masked_fill(dead, 0.0)
        return (inverse @ target.unsqueeze(2)).squeeze(2) / size

    def solve(self) -> tuple[Trial, Tensor]:
        """The solution, and whether it was not found to the tolerance, `(batch,)`.

        Every element of the batch stops by itself, so that the result does not depend on the others.
        """
        trial = self.evaluate(torch.zeros_like(self.scales))
        best = torch.full_like(self.scales[:, 0], torch.inf)
        running = torch.ones_like(best, dtype=torch.bool)
        for number in range(ITERATIONS):
            worst = (trial.residual / self.scales).abs().amax(1)
            stalled = (worst < STALLED[self.precision]) & (worst > best / 2)
            running = running & (worst > TOLERANCE[self.precision]) & ~stalled
            if not bool(running.any()):
                break
            best = torch.minimum(best, worst)
            step = self.step(trial, at_base=number == 0)
            trial = self.evaluate(torch.where(running.unsqueeze(1), trial.multipliers + step, trial.multipliers))
        return trial, running

    def jacobian(self, state: State | None, free: dict[str, Tensor]) -> Tensor:
        """Minus the derivative of the residuals by the multipliers at `state`, None standing for the linearisation's.

        `(batch, constraint, constraint)` float64.
        """
        left = self.right if state is None else [budget.gradient(state) for budget in self.scheme.solved]
        state = self.base if state is None else state
        layers = None
        count = len(left)
        cells: list[list[Tensor | None]] = [[None] * count for _ in range(count)]
        for name in self.scheme.controls:
            field = state[name]
            weight = self.spread[name] * free[name] if name in free else self.spread[name]
            if on_levels(name):
                if layers is None:
                    scale = REFERENCE_PRESSURE / self.air.constants.gravity**2
                    layers = scale * self.air.thickness(self.air.surface_pressure(state), field)
                weight = weight * layers
            weight = weight.expand_as(field)
            owners = [index for index in range(count) if name in left[index]]
            plain = weight.sum(1) if on_levels(name) else weight
            for i, j in itertools.product(owners, owners):
                a, b = left[i][name], self.right[j][name]
                if isinstance(a, Tensor) or isinstance(b, Tensor):
                    part = weight * a * b
                    part = part.sum(1) if on_levels(name) else part
                else:
                    part = plain * (a * b)
                cells[i][j] = part if cells[i][j] is None else cells[i][j] + part
        surface = self.base[self.scheme.controls[0]]
        zero = torch.zeros_like(surface[:, 0] if on_levels(self.scheme.controls[0]) else surface)
        filled = [[zero if part is None else part for part in row] for row in cells]
        if self.scheme.bands is not None:
            return self.scheme.bands.matrix(filled)
        return torch.stack([torch.stack([self.air.mean(part) for part in row], dim=1) for row in filled], dim=1)
