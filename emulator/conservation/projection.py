"""All budgets at once: the smallest change, measured in error variances, that closes every one of them.

Minimise `<sum_k (dp_k / p00) (x* - x)^2 / sigma^2>` over level fields, plus `<(x* - x)^2 / sigma^2>` over surface fields,
subject to `c(x*) = 0` and `x* >= 0` where a field has no negative values. The norm is that of continuous fields, weighted
by mass and area, so the correction does not depend on how the grid divides the atmosphere. The solution is

    x* = max(0, x - sigma^2 sum_i lambda_i gradient_i),

with one multiplier per budget (or per latitude band), found by Newton's method on `c(x*(lambda)) = 0`. Clipped cells drop
out of the derivative, which is the active-set rule. The increments always start from the prediction, so no rounding
accumulates. Linear budgets without bounds need one step; it is then ProbConserv's update (Hansen et al. 2023).
"""

import torch
from torch import Tensor

from emulator.conservation import fluxes
from emulator.conservation.atmosphere import Atmosphere, State, on_levels
from emulator.conservation.bands import Bands
from emulator.conservation.budgets import Anchor, Budget
from emulator.conservation.compiled import Compiled
from emulator.conservation.multipliers import Problem, Trial
from emulator.conservation.scheme import Correction, Options, Scheme
from emulator.conservation.sequential import ColumnStep

CONTROLS = ("surface_pressure", "temperature", fluxes.HUMIDITY, fluxes.PRECIPITATION, fluxes.EVAPORATION)


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

    def constant(self, numbers, like: Tensor) -> Tensor:
        """Nested lists of numbers as a float64 tensor on the device of `like`, made once for each."""
        key = (repr(numbers), like.device)
        if key not in self._copies:
            self._copies[key] = torch.tensor(numbers, dtype=torch.float64, device=like.device)
        return self._copies[key]

    def kept(self, part: int, like: Tensor, make) -> Tensor:
        """One of the constant tables that `make` gives, float64 on the device of `like`, made once."""
        key = (make.__name__, part, like.device)
        if key not in self._copies:
            self._copies[key] = torch.tensor(make()[part], dtype=torch.float64, device=like.device)
        return self._copies[key]

    def correct(self, state0: State, state1: State, anchor: Anchor | None, scales: dict[str, Tensor]) -> Correction:
        clipped = {name: state1[name].clamp(min=0) for name in (*self.bounded, *self.clipped)}
        base = state1 | clipped
        problem = Problem(self, (state0, state1, base), anchor, scales)
        with torch.no_grad():
            first = problem.first()
            trial, open_ = (Compiled.of(problem) or problem).solve(first)
        before, after, squares = {}, {}, {}
        if torch.is_grad_enabled():
            # One Newton step with the exact Jacobian has the derivative of the solution (implicit function theorem). Its
            # value is rounding, so that it may be added to the fields, and what it multiplies needs no derivative.
            trial = problem.evaluate(trial.multipliers)
            changed = problem.moved(trial)
        else:
            changed = trial.changed
            after, squares = self._known(trial), trial.squares
        if not self.clipped and all(bool((raw >= 0).all()) for raw in first.raw.values()):
            before = self._known(first)
        changed = {name: base[name] for name in self.clipped} | changed
        for column in self.columns:
            changed |= column(state0, state1 | changed, anchor)[0]
        saturations = {
            name: trial.bound[name] if name in trial.bound else self.atmosphere.share(raw < 0)
            for name, raw in trial.raw.items()
        }
        saturations["projection"] = open_.to(torch.float64)
        return Correction({name: changed[name] for name in self.changes}, saturations, before, after, squares)

    def _known(self, trial: Trial) -> dict[str, Tensor]:
        """Residuals of a trial by budget, where its constraints are the budgets."""
        if self.bands is not None:
            return {}
        return {budget.name: trial.residual[:, index].detach() for index, budget in enumerate(self.solved)}
