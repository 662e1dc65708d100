"""The multipliers of a projection: what they change, and how the budgets respond.

See `projection.py` for the problem and `docs/conservation.md` for the derivation.
"""

import copy
import dataclasses

import torch
from torch import Tensor

from emulator.conservation import fluxes, newton, rounding
from emulator.conservation.atmosphere import Atmosphere, State
from emulator.conservation.bands import Bands
from emulator.conservation.budgets import Budget
from emulator.conservation.cells import on_levels

REFERENCE_PRESSURE = 1e5  # Pa, p00: the column that a level field's variance is an average over


@dataclasses.dataclass(frozen=True, eq=False)
class ProjectionSetup:
    """What every step's projection has in common.

    Attributes:
      atmosphere: geometry and constants.
      budgets: those that are closed.
      controls: fields that may change, apart from fluxes that follow from them (`fluxes.linked`).
      relative: of these, those whose error variance is proportional to their size; bounded: those that stay non-negative.
      variances: error variances by control, units squared, shaped to broadcast with the field.
      bands: latitude bands, or None to close every budget over the globe alone.
    """

    atmosphere: Atmosphere
    budgets: list[Budget]
    controls: tuple[str, ...]
    relative: tuple[str, ...]
    bounded: tuple[str, ...]
    variances: dict[str, Tensor]
    bands: Bands | None = None
    _copies: dict[tuple, Tensor] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def variance(self, name: str, like: Tensor) -> Tensor:
        """A control's error variance in the type and on the device of its field, made once for each."""
        key = (name, like.dtype, like.device)
        if key not in self._copies:
            self._copies[key] = self.variances[name].to(like.device, like.dtype)
        return self._copies[key]

    def constant(self, numbers, like: Tensor) -> Tensor:
        """Nested lists of numbers as a float64 tensor on the device of `like`, made once for each."""
        key = (repr(numbers), like.device)
        if key not in self._copies:
            self._copies[key] = torch.tensor(numbers, dtype=torch.float64, device=like.device)
        return self._copies[key]


@dataclasses.dataclass(frozen=True)
class Trial:
    """Multipliers `(batch, constraint)`, the changed fields, and the constraints' residuals.

    `raw`: bounded controls as they would be without their bound, negative in the cells that drop out. `at_base`: whether
    the fields are those of the linearisation.
    """

    multipliers: Tensor
    changed: State
    raw: State
    residual: Tensor
    at_base: bool = False


class Problem:
    """One projection: the prediction, the budgets linearised at it, and Newton's method on the multipliers.

    `states` are the start of the step, the prediction, and the prediction with its negative values clipped.
    """

    def __init__(self, setup: ProjectionSetup, states: tuple[State, State, State], anchor, scales: dict[str, Tensor]):
        self.setup, self.anchor, self.bands = setup, anchor, setup.bands
        self.state0, self.start, self.base = states
        self.air = setup.atmosphere
        self.right = [budget.gradient(self.base) for budget in setup.budgets]
        self.sizes = {name: self._size(name) for name in setup.controls}
        self.variances = {name: self._variance(name) for name in setup.controls}
        sizes = torch.stack([scales[budget.name] for budget in setup.budgets], dim=1)
        self.scales = sizes if self.bands is None else self.bands.scales(sizes)
        self.precision = self.start[setup.controls[0]].dtype

    def weighted(self, ratios: dict[str, Tensor]) -> "Problem":
        """The same problem with error variances so many times as large, by control, `(batch, [level,] *space)`.

        They are constants for gradients.
        """
        other, sizes = copy.copy(self), self.sizes.items()
        other.sizes = {name: ratios[name] if size is None else size.detach() * ratios[name] for name, size in sizes}
        other.variances = {name: variance.detach() for name, variance in self.variances.items()}
        return other

    def _size(self, name: str) -> Tensor | None:
        """What a relative control's error variance is proportional to, its own size; None for the others."""
        if name not in self.setup.relative:
            return None
        return self.base[name] if name in self.setup.bounded else self.base[name].abs()

    def _variance(self, name: str) -> Tensor:
        """Error variance of a control by level, or per unit of its size with the given mean.

        A variance in proportion to the value makes the increment proportional to it as well: the multiplicative fix.
        """
        size, variance = self.sizes[name], self.setup.variance(name, self.base[name])
        return variance if size is None else variance / (self.air.mean_by_level(size) + newton.TINY).to(size.dtype)

    def spread(self, name: str) -> Tensor:
        """Error variance of a control; broadcasts to its shape."""
        size, variance = self.sizes[name], self.variances[name]
        return variance if size is None else variance * size

    def _reach(self, name: str) -> float:
        """Minus the factor between a derivative by mass and an increment."""
        return -REFERENCE_PRESSURE / self.air.constants.gravity if on_levels(name) else -1.0

    def increments(self, multipliers: Tensor) -> State:
        """What the multipliers add to the controls, but for their bounds."""
        by_budget = multipliers if self.bands is None else self.bands.fields(multipliers)
        # Terms of different budgets nearly cancel: constant derivatives are added in float64 before they meet a field.
        factors = [
            [0.0 if isinstance(value, Tensor) else self._reach(name) * value for value in self._derivatives(name)]
            for name in self.setup.controls
        ]
        totals = torch.tensordot(by_budget, self.setup.constant(factors, by_budget), dims=([1], [1]))
        added = {}
        for number, name in enumerate(self.setup.controls):
            size, dtype = self.sizes[name], self.start[name].dtype
            total = self._shaped(totals[..., number], name).to(dtype)
            for index, value in enumerate(self._derivatives(name)):
                if isinstance(value, Tensor):
                    amount = self._shaped(self._reach(name) * by_budget[:, index], name)
                    total = torch.addcmul(total, amount.to(dtype), value)
            total = self.variances[name] * total
            added[name] = total if size is None else total * size
        return added

    def apply(self, multipliers: Tensor) -> tuple[State, State]:
        """Corrected controls with what follows from them, and the bounded ones as they would be without their bound."""
        changed, raw = {}, {}
        for name, increment in self.increments(multipliers).items():
            changed[name] = rounding.add(self.start[name], increment)
            if name in self.setup.bounded:
                raw[name] = changed[name]
                changed[name] = changed[name].clamp(min=0)
        return changed | self._linked(changed), raw

    def _linked(self, changed: State) -> State:
        return fluxes.linked(self.base, changed, self.air.constants.latent_heat_vaporisation)

    def _derivatives(self, name: str, gradients=None) -> list:
        """A control's derivative in every budget, 0 where it has none."""
        return [gradient.get(name, 0.0) for gradient in (gradients or self.right)]

    def _shaped(self, values: Tensor, name: str) -> Tensor:
        """A multiplier, `(batch,)` or with bands `(batch, *space)`, to broadcast with its control."""
        if self.bands is None:
            return self.air.spread(values, on_levels(name))
        return values.unsqueeze(1) if on_levels(name) else values

    def evaluate(self, multipliers: Tensor) -> Trial:
        """The fields for given multipliers, and how far they are from closing the budgets."""
        return self._trial(multipliers, *self.apply(multipliers))

    def _trial(self, multipliers: Tensor, changed: State, raw: State) -> Trial:
        state = self.base | changed
        values = [budget.residual(self.state0, state, self.anchor) for budget in self.setup.budgets]
        if self.bands is not None:
            return Trial(multipliers, changed, raw, self.bands.residuals(values, self.state0, state))
        return Trial(multipliers, changed, raw, torch.stack(values, dim=1))

    def step(self, trial: Trial) -> Tensor:
        """Newton's step of the multipliers."""
        with torch.no_grad():
            matrix = self.jacobian(None if trial.at_base else self.base | trial.changed, trial.raw)
        return newton.solve(matrix, trial.residual)

    def moved(self, trial: Trial) -> State:
        """The fields of a trial that solves the problem, moved by one more Newton step to first order in it."""
        fixed = self._detached()
        changed = {}
        for name, increment in fixed.increments(self.step(trial)).items():
            raw = trial.raw.get(name)
            changed[name] = trial.changed[name] + (increment if raw is None else increment * (raw >= 0))
        return changed | self._linked(changed)

    def _detached(self) -> "Problem":
        """The same problem as far as increments go, without gradients."""
        other = copy.copy(self)
        other.right = [
            {name: value.detach() if isinstance(value, Tensor) else value for name, value in gradient.items()}
            for gradient in self.right
        ]
        other.sizes = {name: None if size is None else size.detach() for name, size in self.sizes.items()}
        other.variances = {name: variance.detach() for name, variance in self.variances.items()}
        return other

    def first(self) -> Trial:
        """The prediction itself, clipped at its bounds."""
        raw = {name: self.start[name] for name in self.setup.bounded}
        changed = {name: self.base[name] for name in self.setup.controls}
        trial = self._trial(torch.zeros_like(self.scales), changed | self._linked(changed), raw)
        return dataclasses.replace(trial, at_base=True)

    def solve(self, trial: Trial) -> tuple[Trial, Tensor]:
        """The solution from a first trial, and whether it was not found to the tolerance, `(batch,)`."""
        return newton.iterate(trial, self.step, self.evaluate, self.scales, self.precision)

    def jacobian(self, state: State | None, raw: State) -> Tensor:
        """Minus the derivative of the residuals by the multipliers at `state`, None standing for the linearisation's.

        `(batch, constraint, constraint)` float64: the sum over controls of `<gradient variance gradient>`.
        """
        gradients = self.right if state is None else [budget.gradient(state) for budget in self.setup.budgets]
        state = self.base if state is None else state
        matrix, means, outer = 0.0, [], []
        for name in self.setup.controls:
            left, right = self._derivatives(name, gradients), self._derivatives(name)
            if self.bands is None and not any(isinstance(value, Tensor) for value in (*left, *right)):
                means.append(self._mean_weight(name, state, raw.get(name)))
                outer.append([[a * b for b in right] for a in left])
            else:
                matrix = matrix + self._product(self._weight(name, state, raw.get(name)), left, right)
        if means:
            means = torch.stack(means, dim=1)
            matrix = matrix + torch.tensordot(means, self.setup.constant(outer, means), dims=1)
        return matrix

    @property
    def _layer_scale(self) -> float:
        """Weight of a level field's variance in the Jacobian, per Pa of its layer."""
        return REFERENCE_PRESSURE / self.air.constants.gravity**2

    def _weight(self, name: str, state: State, raw: Tensor | None) -> Tensor:
        """A control's variance where its bound leaves it alone, by mass: of the control's shape."""
        weight = self.spread(name) if raw is None else self.spread(name) * (raw >= 0)
        if on_levels(name):
            layers = self.air.thickness(self.air.surface_pressure(state), state[name])
            weight = weight * (self._layer_scale * layers)
        return weight.expand_as(state[name])

    def _mean_weight(self, name: str, state: State, raw: Tensor | None) -> Tensor:
        """The mean of `_weight`, the sum over levels, `(batch,)` float64, from one pass over the field."""
        like, size, variance = state[name], self.sizes[name], self.variances[name].to(torch.float64)
        variance = variance.flatten(1) if variance.ndim else variance.reshape(1, 1)
        if on_levels(name):
            means = self.air.mean_by_layer(size, state, raw, like)
            return self._layer_scale * (means * variance).sum(1)
        if raw is not None:
            size = (raw >= 0) * (1.0 if size is None else size)
        return (variance[:, 0] if size is None else self.air.mean(size) * variance[:, 0]).expand(len(like))

    def _product(self, weight: Tensor, left: list, right: list) -> Tensor:
        """Mean of `left weight right` over all constraints: `(batch, constraint, constraint)`."""
        levels = weight.ndim == self.air.space + 2

        def stacked(values):
            fields = [v if isinstance(v, Tensor) else weight.new_full((), v) for v in values]
            fields = torch.stack([field.expand_as(weight) for field in fields], dim=1).to(torch.float64)
            return (fields if self.bands is None else self.bands.expand(fields, levels)).flatten(2)

        shares = (weight.to(torch.float64) * self.air.area_of(weight)).flatten(1).unsqueeze(1)
        return self.air.processes.total((stacked(left) * shares) @ stacked(right).transpose(1, 2))
