"""One step of a correction from compiled kernels, and its gradient by the implicit function theorem.

The few numbers that it consists of are arrays of NumPy, whose calls cost a quarter of torch's.
"""

import dataclasses
import functools

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from emulator.conservation import fluxes, newton
from emulator.conservation.budgets import Anchor
from emulator.conservation.cells import State, on_levels
from emulator.kernels import corrections as native
from emulator.kernels.compiled import Layout

CONTROLS = ("surface_pressure", "temperature", fluxes.HUMIDITY, fluxes.PRECIPITATION, fluxes.EVAPORATION)
KIND = dict(zip(CONTROLS, native.CONTROLS, strict=True))
AIR, WATER, ENERGY, RAIN, EVAPORATION = AMOUNTS = range(5)  # the sums that budgets consist of
# Places of the mean sizes among the sums.
SIZES = {"pressure": Layout.PRESSURE_SIZE, "rain": Layout.RAIN_SIZE, "evaporation": Layout.EVAPORATION_SIZE}


@dataclasses.dataclass
class Solution:
    """What closes the budgets of a step.

    Attributes:
      first, last: sums of the kernels as predicted and as corrected, `(batch, sum)`.
      totals: what controls are moved by, `(batch, Layout.TOTALS)`, and `directions`, their derivatives by as many unknowns as
        there are budgets, `(batch or 1, m, Layout.TOTALS)`.
      weights: variances in the places of the sums of sizes, `(batch or 1, sum)`.
      saturations: by what saturated.
    """

    first: np.ndarray
    last: np.ndarray
    totals: np.ndarray
    directions: np.ndarray
    weights: np.ndarray
    saturations: dict[str, np.ndarray]


def times(vectors: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Products of `(batch, n)` and `(n, m)`, each by itself, so that the batch does not change a bit."""
    return np.matmul(vectors[:, None], matrix)[:, 0]


class Step:
    """One step's correction, and what its gradient needs.

    Args:
      compiled: the scheme's `compiled.Compiled`.
      anchor: with the dry mass to keep, or None for that of the step's start, and what leaves an open domain.

    Attributes:
      reference, left: of the anchor, `(batch,)` and `(batch, budget)`, or None each.
    """

    def __init__(self, compiled, anchor: Anchor):
        self.compiled, self.reference = compiled, anchor.dry_mass
        self.left = None if anchor.left is None else torch.stack(list(anchor.left.values()), 1)
        latent = (fluxes.LATENT_HEAT,) if compiled.linked else ()
        self.results = (*compiled.moved.values(), *latent)
        self.record: State = {}

    def correct(self, fields: list[Tensor]) -> tuple[State, State]:
        """The changed fields and the record, from the stored fields of both states and the fluxes of energy."""
        given = (*fields, self.reference, self.left)
        if torch.is_grad_enabled() and any(x.requires_grad for x in given if x is not None):
            moved = _Corrected.apply(self, self.reference, self.left, *fields)
        else:
            moved = self.forward(fields)
        return dict(zip(self.results, moved, strict=True)), self.record

    def split(self, fields) -> tuple[State, State, State]:
        """The stored fields of both states by the kernels' names, and the fluxes of energy by their own."""
        compiled = self.compiled
        counts = (len(compiled.stored), len(compiled.names))
        states = fields[: counts[0]], fields[counts[0] : sum(counts)], fields[sum(counts) :]
        names = compiled.stored, compiled.names, compiled.gains
        return tuple(dict(zip(n, x, strict=True)) for n, x in zip(names, states, strict=True))

    def forward(self, fields) -> list[Tensor]:
        compiled, scheme = self.compiled, self.compiled.scheme
        state0, state1, energy = self.split(fields)
        gains = [(compiled.gains[name], field) for name, field in energy.items()]
        heat = energy[fluxes.LATENT_HEAT] if compiled.linked else None
        how = compiled.modes, compiled.moved, heat, compiled.air.totals
        self.kernels = native.Correction(compiled.integrals, state1, gains, *how)
        before = compiled.air.totals(compiled.integrals.sums(state0, derivatives=False)[0].numpy())
        mass = before[:, AIR] - before[:, WATER]
        reference = mass if self.reference is None else self.reference.detach().numpy()
        scales = {"dry_air": mass, "water": before[:, WATER], "energy": before[:, ENERGY]}
        scales = np.stack([scales[name] for name in scheme.budgets], axis=1)
        residual = functools.partial(self._residual, before=before, reference=reference)
        self.solution = compiled.solve(self.kernels, residual, scales)
        self.record = self._record(residual(self.solution.first), scales)
        return list(self.kernels.take().values())

    def _residual(self, first: np.ndarray, before: np.ndarray, reference: np.ndarray):
        """Residuals of the budgets by amounts: `(batch, 5) -> (batch, m)`."""
        compiled, budgets = self.compiled, self.compiled.scheme.budgets
        seconds, rows = compiled.air.step_seconds, compiled.rows.T
        offset = np.empty((len(first), len(budgets)))
        for number, (name, budget) in enumerate(budgets.items()):
            if name == "dry_air":
                offset[:, number] = -reference - budget.creep * seconds
            elif name == "water":
                offset[:, number] = -before[:, WATER] - seconds * budget.moistening
            else:
                gained = first[:, Layout.GAIN] + compiled.latent * first[:, EVAPORATION] + budget.heating
                offset[:, number] = -before[:, ENERGY] - seconds * gained
        if self.left is not None:
            offset += self.left.detach().numpy()
        return lambda amounts: times(amounts[:, : len(AMOUNTS)], rows) + offset

    def _record(self, residual, scales: np.ndarray) -> State:
        compiled, scheme, solution = self.compiled, self.compiled.scheme, self.solution
        raw = solution.first[:, : len(AMOUNTS)].copy()
        lost = solution.first[:, Layout.CLIPPED_HUMIDITY]
        raw[:, WATER] += lost
        raw[:, ENERGY] += compiled.air.constants.latent_heat_vaporisation * lost
        raw[:, RAIN] += solution.first[:, Layout.CLIPPED_RAIN]
        before, after = (residual(amounts) / scales for amounts in (raw, solution.last))
        values = {f"residual_before_{name}": before[:, n] for n, name in enumerate(scheme.budgets)}
        values |= {f"residual_after_{name}": after[:, n] for n, name in enumerate(scheme.budgets)}
        sizes = np.sqrt(solution.last[:, Layout.SQUARES : Layout.ON_BOUND])
        for number, name in enumerate(CONTROLS):
            if name in scheme.changes:
                levels = compiled.levels if on_levels(name) else 1
                values[f"correction_rms_{name}"] = sizes[:, number] / levels**0.5
        if compiled.linked:
            values[f"correction_rms_{fluxes.LATENT_HEAT}"] = np.sqrt(solution.last[:, Layout.HEATED])
        values |= scheme.shares(values)
        values |= {f"saturation_{name}": value for name, value in solution.saturations.items()}
        return {name: torch.from_numpy(value) for name, value in values.items()}

    def backward(self, fields, gradients, needed) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Gradients of the reference and of what left, and of the fields; `needed`: of all of them.

        The unknowns y solve `c(F(y, x), x) = 0`, F being the moved controls, so that `dy = A^-1 dc` with A minus the
        derivative of c by y. With G the gradient by the moved controls and `w = A^-T F_y^T G`, the gradient by x is
        `(G + c_F^T w) F_x + w c_x`.
        """
        compiled, solution, air = self.compiled, self.solution, self.compiled.air
        state0, _, _ = self.split(fields)
        seconds, latent = air.step_seconds, compiled.latent
        given = {kind: g for kind, g in zip(compiled.moved, gradients, strict=False) if g is not None}
        heat = gradients[-1] if compiled.linked else None
        if heat is not None:
            given["evaporation"] = (
                torch.add(given["evaporation"], heat, alpha=latent) if "evaporation" in given else latent * heat
            )
        pulled = self.kernels.pull(given)
        matrix = compiled.matrix(solution.last, solution.weights, solution.directions).swapaxes(1, 2)
        force = newton.solve(matrix, (solution.directions * self._by_totals(pulled)[:, None]).sum(2))
        by_amount = times(force, compiled.rows)
        needed = needed[2:]
        wanted = [kind for kind, need in zip(compiled.names, needed[len(state0) :], strict=False) if need]
        results = self.kernels.push(by_amount, self._by_means(pulled, by_amount), wanted)
        of = dict(zip(compiled.scheme.budgets, force.T, strict=True))
        nothing = np.zeros(len(force))
        by_flux = self._spread(-seconds * of.get("energy", nothing))
        if compiled.linked and "evaporation" in results:
            results["evaporation"] += latent * (by_flux if heat is None else by_flux - heat)
        by_sign = {1: by_flux, 0: None, -1: -by_flux}
        last = [by_sign[sign] for sign in compiled.gains.values()]
        if heat is not None:
            number = list(compiled.gains).index(fluxes.LATENT_HEAT)
            last[number] = heat if last[number] is None else last[number] + heat
        first = self._by_start(state0, of, needed[: len(state0)])
        share = air.processes.size  # all of them have a copy of the number, whose gradients add up
        by_reference = None if self.reference is None else torch.from_numpy(-of.get("dry_air", nothing) / share)
        by_left = None if self.left is None else torch.from_numpy(force / share)
        return [by_reference, by_left], [*first, *(results.get(kind) for kind in compiled.names), *last]

    def _spread(self, values: np.ndarray) -> Tensor:
        """Gradient of a mean over the sphere by its field, `(batch,)` -> `(batch, *space)` float32."""
        area = self.compiled.air.area
        return (torch.from_numpy(values).reshape(-1, *[1] * area.ndim) * area).to(torch.float32)

    def _by_start(self, state0: State, of: dict[str, np.ndarray], needed) -> list[Tensor | None]:
        wanted = [kind for kind, need in zip(state0, needed, strict=True) if need]
        if not wanted:
            return [None] * len(state0)
        nothing = np.zeros(len(state0["vapour"]))
        mass = of.get("dry_air", nothing) if self.reference is None else nothing
        by_amount = np.stack([-mass, mass - of.get("water", nothing), -of.get("energy", nothing)], axis=1)
        gradients = self.compiled.integrals.gradients(state0, torch.from_numpy(by_amount), None, wanted)
        return [gradients.get(kind) for kind in state0]

    def _by_totals(self, pulled: np.ndarray) -> np.ndarray:
        """Gradients by the totals, `(batch, Layout.TOTALS)`, of the moved controls', from the kernels' sums of these."""
        weights, levels = self.solution.weights, self.compiled.levels
        result = np.empty((len(pulled), Layout.TOTALS))
        result[:, 0] = pulled[:, Layout.PULLED_PRESSURE] * weights[:, Layout.PRESSED]
        for n, heavy in ((0, Layout.MEASURED + levels), (1, Layout.MEASURED + 3 * levels)):
            moved = pulled[:, Layout.PULLED + n * levels : Layout.PULLED + (n + 1) * levels]
            result[:, n + 1] = (moved * weights[:, heavy : heavy + levels]).sum(1)
        sized = pulled[:, Layout.PULLED_RAIN : Layout.PULLED : 2]
        result[:, 3:5] = sized * weights[:, Layout.RAIN_SIZE : Layout.PRESSURE_SIZE]
        along = pulled[:, Layout.PULLED_ALONG : Layout.PULLED_RAIN]
        result[:, Layout.ALONG : Layout.UNIFORM] = along * weights[:, Layout.PRESSED, None]
        result[:, Layout.UNIFORM :] = pulled[:, Layout.PULLED_RAIN_UNIFORM : Layout.PULLED : 2]
        return result

    def _by_means(self, pulled: np.ndarray, by_amount: np.ndarray) -> np.ndarray:
        """Gradients by the mean sizes that variances are divided by, in the kernels' order: `(batch, 3 + 2 levels)`.

        An increment falls as the mean grows, in proportion: minus the sum of gradient times increment over the mean.
        """
        compiled, solution, levels = self.compiled, self.solution, self.compiled.levels
        constants, sums, weights, totals = compiled.air.constants, solution.last, solution.weights, solution.totals
        result = np.zeros((len(pulled), 3 + 2 * levels))
        if "pressure" in compiled.normalised:
            pressed = by_amount[:, :3]
            slopes = sums[:, Layout.PRESSED : Layout.PRESSED_ALONG]
            along = sums[:, Layout.PRESSED_ALONG : Layout.RAIN_SIZE].reshape(-1, 3, 3)
            by_size = pulled[:, Layout.PULLED_PRESSURE] + (pressed * slopes).sum(1)
            by_slopes = pulled[:, Layout.PULLED_ALONG : Layout.PULLED_RAIN] + (pressed[:, :, None] * along).sum(1)
            moved = totals[:, 0] * by_size + (totals[:, Layout.ALONG : Layout.UNIFORM] * by_slopes).sum(1)
            result[:, 0] = -weights[:, Layout.PRESSED] * moved / (solution.first[:, SIZES["pressure"]] + newton.TINY)
        for n, kind in enumerate(("rain", "evaporation")):
            if kind in compiled.normalised:
                size = SIZES[kind]
                moved = totals[:, 3 + n] * (pulled[:, Layout.PULLED_RAIN + 2 * n] + by_amount[:, 3 + n] * sums[:, size])
                result[:, 1 + n] = -weights[:, size] * moved / (solution.first[:, size] + newton.TINY)
        of_energy = by_amount[:, ENERGY]
        by_content = {
            "temperature": constants.heat_capacity_dry_air * of_energy,
            "vapour": by_amount[:, WATER] + constants.latent_heat_vaporisation * of_energy,
        }
        for n, kind in enumerate(by_content):
            if kind in compiled.normalised:
                mean, heavy = (Layout.MEASURED + (2 * n + m) * levels for m in (0, 1))
                mean, heavy = slice(mean, mean + levels), slice(heavy, heavy + levels)
                moved = pulled[:, Layout.PULLED + n * levels : Layout.PULLED + (n + 1) * levels]
                moved = moved + by_content[kind][:, None] / constants.gravity * sums[:, heavy]
                moved = moved * weights[:, heavy] * totals[:, n + 1 : n + 2]
                result[:, 3 + n * levels : 3 + (n + 1) * levels] = -moved / (solution.first[:, mean] + newton.TINY)
        return result


class _Corrected(torch.autograd.Function):
    @staticmethod
    def forward(ctx, step, reference, left, *fields):
        ctx.set_materialize_grads(False)
        ctx.step = step
        ctx.save_for_backward(*fields)  # which sees to it that nobody has changed them in the meantime
        return tuple(step.forward(fields))

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        needed = ctx.needs_input_grad[1:]
        numbers, fields = ctx.step.backward(ctx.saved_tensors, gradients, needed)
        return None, *(x if need else None for x, need in zip((*numbers, *fields), needed, strict=True))
