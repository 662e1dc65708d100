"""All budgets at once: the smallest change, measured in error variances, that closes every one of them.

Minimise `<sum_k (dp_k / p00) (x* - x)^2 / sigma^2>` over level fields, plus `<(x* - x)^2 / sigma^2>` over surface fields,
subject to `c(x*) = 0` and `x* >= 0` where a field has no negative values. The norm is that of continuous fields, weighted
by mass and area, so the correction does not depend on how the grid divides the atmosphere. The solution is

    x* = max(0, x - sigma^2 sum_i lambda_i gradient_i),

with one multiplier per budget (or per latitude band), found by Newton's method on `c(x*(lambda)) = 0`. Clipped cells drop
out of the derivative, which is the active-set rule. The increments always start from the prediction, so no rounding
accumulates. Linear budgets without bounds need one step; it is then ProbConserv's update (Hansen et al. 2023).

sigma^2 is the error variance of a step, or with `Projection.among` that of an ensemble's members (`member_variances.py`).
"""

import copy
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from emulator.conservation import fluxes, member_variances, newton
from emulator.conservation.atmosphere import Atmosphere, State
from emulator.conservation.bands import Bands
from emulator.conservation.budgets import Anchor, Budget, Declared
from emulator.conservation.cells import on_levels
from emulator.conservation.compiled import Compiled
from emulator.conservation.compiled_step import CONTROLS, KIND, SIZES, Solution, times
from emulator.conservation.multipliers import REFERENCE_PRESSURE, Problem, ProjectionSetup, Trial
from emulator.conservation.scheme import Correction, Scheme, SchemeOptions, is_mean
from emulator.conservation.steps import ColumnStep
from emulator.kernels import corrections as native
from emulator.kernels.compiled import Layout


class Projection(Scheme):
    """Variance-weighted projection on all budgets.

    Attributes:
      setup: the budgets, the controls and their variances.
      clipped: fields without negative values that are no controls.
      members: that are corrected with variances from their own spread, consecutive rows of a batch; 0: with the step's.
    """

    members = 0

    def __init__(
        self, options: SchemeOptions, atmosphere: Atmosphere, budgets: dict[str, Budget], variables, variances
    ):
        super().__init__(options, atmosphere, budgets)
        solved = [budget for name, budget in budgets.items() if name != "column_water"]
        declared = [budget.quantity for budget in solved if isinstance(budget, Declared)]
        others = tuple(quantity.control for quantity in declared)
        controls = options.controls or (*(name for name in CONTROLS if name in self.required), *others)
        variables = set(variables)
        if missing := [name for name in controls if name not in variables]:
            raise ValueError(f"Expected the projection's controls among the variables, got {missing}")
        self.setup = ProjectionSetup(
            atmosphere,
            solved,
            controls,
            relative=(*options.relative, *(each.control for each in declared if each.correction == "ratio")),
            bounded=tuple(name for name in fluxes.NON_NEGATIVE if name in controls),
            bands=Bands(options.bands, atmosphere, solved, variables) if options.bands else None,
            variances={name: self._variance(name, variances or {}) for name in controls},
        )
        self.clipped = tuple(name for name in fluxes.NON_NEGATIVE if name in variables - set(controls))
        changes = (*controls, *self.clipped)
        self.columns = tuple(ColumnStep(budget) for name, budget in budgets.items() if name == "column_water")
        linked = fluxes.linked_names(changes, variables)
        self.changes = (*changes, *linked, *(name for step in self.columns for name in step.changes))
        self.required = tuple(dict.fromkeys((*self.required, *self.changes)))
        self.compiled = CompiledProjection(self) if CompiledProjection.fits(self) else None

    def among(self, members: int) -> "Projection":
        """The same projection of ensembles, with variances from the spread of the members of each.

        A batch has all members of a start one after the other. They are then corrected as the others' spread tells, not each
        by itself. Gradients take the variances as constants. Raises `ValueError` for less than two members.
        """
        if members < 2:
            raise ValueError(f"Expected two members or more for variances from their spread, got {members}")
        other = copy.copy(self)
        other.members, other.compiled, other._lasting = members, None, {1.0: other}
        if self.of_length is not None:
            other.of_length = lambda length: self.lasting(length).among(members)
        return other

    def _variance(self, name: str, variances) -> Tensor:
        """A control's error variance, shaped to broadcast with its field."""
        if name not in variances:
            raise ValueError(f"Expected an error variance of the control {name}, got variances of {sorted(variances)}")
        value = torch.as_tensor(variances[name], dtype=torch.float64)
        if not bool((torch.isfinite(value) & (value >= 0)).all()) or not bool((value > 0).any()):
            raise ValueError(f"Expected finite error variances of {name}, not all zero, got {value.tolist()}")
        count = self.atmosphere.layers[0]
        if value.numel() == 1:
            return value.reshape(())
        if value.shape != (count,) or not on_levels(name):
            expected = f"{count} error variances" if on_levels(name) else "one error variance"
            raise ValueError(f"Expected {expected} of {name}, got {tuple(value.shape)}")
        return value.reshape(1, -1, *(1,) * self.atmosphere.space)

    def correct(self, state0: State, state1: State, anchor: Anchor | None, scales: dict[str, Tensor]) -> Correction:
        clipped = {name: state1[name].clamp(min=0) for name in (*self.setup.bounded, *self.clipped)}
        base = state1 | clipped
        problem = Problem(self.setup, (state0, state1, base), anchor, scales)
        with torch.no_grad():
            first = problem.first()
            told: dict[str, Tensor] = {}
            if self.members:
                ratios = self._ratios(problem, first)
                problem, told = problem.weighted(ratios), self._told(problem, ratios)
            trial, open_ = problem.solve(first)
        before, after = {}, {}
        if torch.is_grad_enabled():
            # One Newton step with the exact Jacobian has the derivative of the solution (implicit function theorem). Its
            # value is rounding, so that it may be added to the fields, and what it multiplies needs no derivative.
            trial = problem.evaluate(trial.multipliers)
            changed = problem.moved(trial)
        else:
            changed, after = trial.changed, self._known(trial)
        if not self.clipped and self._nowhere_negative(first.raw.values()):
            before = self._known(first)
        changed = {name: base[name] for name in self.clipped} | changed
        for column in self.columns:
            changed |= column(state0, state1 | changed, anchor)[0]
        saturations = {name: self.atmosphere.share(raw < 0) for name, raw in trial.raw.items()}
        saturations["projection"] = open_.to(torch.float64)
        return Correction({name: changed[name] for name in self.changes}, saturations, before, after, told)

    def _ratios(self, problem: Problem, first: Trial) -> dict[str, Tensor]:
        """What the step's variances are multiplied by, by control, `(batch, [level,] *space)`.

        A start of which a member is no longer finite has the step's variances, so that the others go on.
        """
        rows = len(first.residual)
        if rows % self.members:
            raise ValueError(f"Expected all {self.members} members of every start in a batch, got {rows} rows")
        finite = first.residual.isfinite().all(1).unflatten(0, (-1, self.members)).all(1)
        ratios = {}
        for name in self.setup.controls:
            values = problem.base[name]
            if name in problem.state0 and not is_mean(name):
                values = values - problem.state0[name]
            found = member_variances.ratios(values, problem.spread(name), self.members, self.atmosphere)
            sound = finite.view(-1, *[1] * (found.ndim - 1))
            ratios[name] = torch.where(sound, found, 1.0).repeat_interleave(self.members, 0)
        return ratios

    def _told(self, problem: Problem, ratios: dict[str, Tensor]) -> dict[str, Tensor]:
        """Ratio of the mean variances, over levels too, and the largest of any cell, for the record."""
        air, told = self.atmosphere, {}
        for name, ratio in ratios.items():
            step = air.existing(problem.spread(name).expand_as(ratio))
            ours, theirs = (
                mean if mean.ndim == 1 else mean.sum(1) for mean in (air.mean(step * ratio), air.mean(step))
            )
            told[f"variance_ratio_mean_{name}"] = ours / (theirs + newton.TINY)
            largest = ratio.flatten(1).amax(1).to(torch.float64)
            told[f"variance_ratio_largest_{name}"] = air.processes.highest(largest)
        return told

    def _nowhere_negative(self, fields: Iterable[Tensor]) -> bool:
        """Whether no value on the globe is below 0, or no number, as far as the host can tell without waiting for a GPU."""
        fields = list(fields)
        if not all(field.is_cpu for field in fields):
            return False
        wrong = not all(bool((field >= 0).all()) for field in fields)
        return not float(self.atmosphere.processes.highest(torch.tensor(float(wrong))))

    def _known(self, trial: Trial) -> dict[str, Tensor]:
        """Residuals of a trial by budget, where its constraints are the budgets."""
        if self.setup.bands is not None:
            return {}
        return {budget.name: trial.residual[:, index].detach() for index, budget in enumerate(self.setup.budgets)}


class CompiledProjection(Compiled):
    """The projection from the kernels' sums: its multipliers are the unknowns, and move every control."""

    def __init__(self, scheme: Projection):
        setup = scheme.setup
        relative = [name for name in setup.controls if name in setup.relative]
        bounded = [name for name in (*setup.bounded, *scheme.clipped) if name in KIND]
        modes = {KIND[name]: (Layout.SIZED * (name in relative), Layout.AFTER * (name in bounded)) for name in CONTROLS}
        variances = {KIND[name]: variance for name, variance in setup.variances.items()}
        super().__init__(scheme, modes, variances, [KIND[name] for name in relative])
        self.directions = self.rows @ self._by_amount()
        self._relative, self._mean_sizes = self._places()

    @staticmethod
    def fits(scheme: Projection) -> bool:
        return Compiled.fits(scheme) and scheme.setup.bands is None and set(scheme.setup.controls) <= set(CONTROLS)

    def _by_amount(self) -> np.ndarray:
        """What a multiplier of each amount adds to the totals: minus the amount's derivatives, `(5, TOTALS)`."""
        constants = self.air.constants
        result = np.zeros((5, Layout.TOTALS))
        for amount in range(3):
            result[amount, Layout.ALONG + amount] = -1
        result[3, 3] = result[4, 4] = -1
        reach = REFERENCE_PRESSURE / constants.gravity
        result[1, 2] = -reach
        result[2, 1] = -reach * constants.heat_capacity_dry_air
        result[2, 2] = -reach * constants.latent_heat_vaporisation
        return result

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Among the sums of sizes, which are of a relative control, and the place of the mean size of each."""
        relative = np.zeros(self.weights.shape[1], dtype=bool)
        places = np.arange(len(relative))
        for kind in self.normalised:
            if kind in SIZES:
                pressed = slice(Layout.PRESSED, Layout.RAIN_SIZE)
                mine = pressed if kind == "pressure" else slice(SIZES[kind], SIZES[kind] + 1)
                places[mine] = SIZES[kind]
            else:
                start = Layout.MEASURED + (0 if kind == "temperature" else 2 * self.levels)
                mine = slice(start + self.levels, start + 2 * self.levels)
                places[mine] = np.arange(start, start + self.levels)
            relative[mine] = True
        return relative, places

    def solve(self, step: native.Correction, residual, scales: np.ndarray) -> Solution:
        totals, weights = self.at_rest(len(scales))
        first = step.start(totals, weights)
        residual = residual(first)
        weights = weights / np.where(self._relative, first[:, self._mean_sizes] + newton.TINY, 1.0)

        def trial(multipliers: np.ndarray, totals: np.ndarray, sums: np.ndarray) -> _Sums:
            return _Sums(multipliers, residual(sums), totals, sums)

        def evaluate(multipliers: np.ndarray) -> _Sums:
            totals = times(multipliers, self.directions)
            return trial(multipliers, totals, step.trial(totals, weights))

        def change(last: _Sums) -> np.ndarray:
            return newton.solve(self.matrix(last.sums, weights, self.directions), last.residual)

        start = trial(np.zeros_like(scales), totals, first)
        last, open_ = newton.iterate(start, change, evaluate, scales, torch.float32)
        last = evaluate(start.multipliers) if last is start else last
        saturations = {name: self.on_bound(last.sums, name) for name in self.scheme.setup.bounded}
        saturations["projection"] = open_.astype(np.float64)
        return Solution(first, last.sums, last.totals, self.directions[None], weights, saturations)


class _Sums(NamedTuple):
    """A trial: multipliers and residuals, `(batch, m)`, the totals they stand for, and the kernels' sums."""

    multipliers: np.ndarray
    residual: np.ndarray
    totals: np.ndarray
    sums: np.ndarray
