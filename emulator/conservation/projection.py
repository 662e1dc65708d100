"""All budgets at once: the smallest change, measured in error variances, that closes every one of them.

Minimise `<sum_k (dp_k / p00) (x* - x)^2 / sigma^2>` over level fields, plus `<(x* - x)^2 / sigma^2>` over surface fields,
subject to `c(x*) = 0` and `x* >= 0` where a field has no negative values. The norm is that of continuous fields, weighted
by mass and area, so the correction does not depend on how the grid divides the atmosphere. The solution is

    x* = max(0, x - sigma^2 sum_i lambda_i gradient_i),

with one multiplier per budget (or per latitude band), found by Newton's method on `c(x*(lambda)) = 0`. Clipped cells drop
out of the derivative, which is the active-set rule. The increments always start from the prediction, so no rounding
accumulates. Linear budgets without bounds need one step; it is then ProbConserv's update (Hansen et al. 2023).
"""

import itertools

import torch
from torch import Tensor

from emulator.conservation import fluxes, rounding
from emulator.conservation.atmosphere import Atmosphere, State, on_levels
from emulator.conservation.bands import Bands
from emulator.conservation.budgets import Anchor, Budget
from emulator.conservation.scheme import Options, Scheme
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
RIDGE = 1e-13  # on the scaled system, so that a budget without a free control stays unsolved instead of infinite
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

    def correct(self, state0: State, state1: State, anchor: Anchor | None) -> tuple[State, dict[str, Tensor]]:
        clipped = {name: state1[name].clamp(min=0) for name in (*self.bounded, *self.clipped)}
        base = state1 | clipped
        problem = Problem(self, state0, state1 | {name: base[name] for name in self.clipped}, base, anchor)
        with torch.no_grad():
            multipliers, open_ = problem.solve()
        if torch.is_grad_enabled():
            # One Newton step with the exact Jacobian has the derivative of the solution (implicit function theorem).
            residual, step = problem.newton(multipliers)
            multipliers = multipliers + step(residual)
        changed, free = problem.apply(multipliers)
        changed = {name: changed[name] for name in self.changes if name in changed} | {
            name: base[name] for name in self.clipped if name not in changed
        }
        for column in self.columns:
            changed |= column(state0, state1 | changed, anchor)[0]
        saturations = {f"saturation_{name}": self._share(~mask) for name, mask in free.items()}
        return changed, saturations | {"saturation_projection": open_.to(torch.float64)}

    def _share(self, flag: Tensor) -> Tensor:
        """Area share of a flag, the mean over levels."""
        value = flag.to(torch.float32)
        return self.atmosphere.mean(value.mean(1) if value.ndim == self.atmosphere.space + 2 else value)


class Problem:
    """One projection: the prediction, the budgets linearised at it, and Newton's method on the multipliers."""

    def __init__(self, scheme: Projection, state0: State, start: State, base: State, anchor: Anchor | None):
        self.scheme, self.state0, self.start, self.base, self.anchor = scheme, state0, start, base, anchor
        self.air = scheme.atmosphere
        self.right = [budget.gradient(base) for budget in scheme.solved]
        self.spread = {name: self._spread(name) for name in scheme.controls}
        with torch.no_grad():
            scales = torch.stack([budget.scale(state0) for budget in scheme.solved], dim=1)
        self.scales = scales if scheme.bands is None else scheme.bands.scales(scales)
        self.precision = start[scheme.controls[0]].dtype

    def _spread(self, name: str) -> Tensor:
        """Error variance of a control, constant or growing with the square of the value, mean as given."""
        field = self.base[name]
        variance = self.scheme.variance(name, field)
        if name not in self.scheme.options.relative:
            return variance
        square = field * field
        mean = self.air.mean_by_level(square)
        return variance * square / (mean + TINY).to(field.dtype)

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

    def newton(self, multipliers: Tensor):
        """Residuals `(batch, constraint)`, and a function that gives the multipliers' step for them."""
        changed, free = self.apply(multipliers)
        state = self.base | changed
        values = [budget.residual(self.state0, state, self.anchor) for budget in self.scheme.solved]
        if self.scheme.bands is None:
            residual = torch.stack(values, dim=1)
        else:
            residual = self.scheme.bands.residuals(values, self.state0, state)

        def step(right_hand_side: Tensor) -> Tensor:
            with torch.no_grad():
                matrix = self.jacobian(state, free)
                size = matrix.diagonal(dim1=1, dim2=2).abs().sqrt().clamp(min=TINY)
                scaled = matrix / (size.unsqueeze(1) * size.unsqueeze(2))
                scaled = scaled + RIDGE * torch.eye(scaled.shape[1], dtype=scaled.dtype, device=scaled.device)
                inverse = torch.linalg.inv_ex(scaled).inverse
            return (inverse @ (right_hand_side / size).unsqueeze(2)).squeeze(2) / size

        return residual, step

    def solve(self) -> tuple[Tensor, Tensor]:
        """Multipliers `(batch, constraint)` and whether they were not found to the tolerance, `(batch,)`.

        Every element of the batch stops by itself, so that the result does not depend on the others.
        """
        multipliers = torch.zeros_like(self.scales)
        best = torch.full_like(self.scales[:, 0], torch.inf)
        running = torch.ones_like(best, dtype=torch.bool)
        for _ in range(ITERATIONS):
            residual, step = self.newton(multipliers)
            worst = (residual / self.scales).abs().amax(1)
            stalled = (worst < STALLED[self.precision]) & (worst > best / 2)
            running = running & (worst > TOLERANCE[self.precision]) & ~stalled
            if not bool(running.any()):
                break
            best = torch.minimum(best, worst)
            multipliers = torch.where(running.unsqueeze(1), multipliers + step(residual), multipliers)
        return multipliers, running

    def jacobian(self, state: State, free: dict[str, Tensor]) -> Tensor:
        """Minus the derivative of the residuals by the multipliers: `(batch, constraint, constraint)` float64."""
        left = [budget.gradient(state) for budget in self.scheme.solved]
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
        mean = self.air.mean if self.scheme.bands is None else None
        zero = torch.zeros_like(self.base[self.scheme.controls[0]][:, 0] if layers is None else layers[:, 0])
        filled = [[zero if part is None else part for part in row] for row in cells]
        if mean is None:
            return self.scheme.bands.matrix(filled)
        return torch.stack([torch.stack([mean(part) for part in row], dim=1) for row in filled], dim=1)
