"""A whole correction in a few passes over the fields, where compiled kernels serve: float32 in the processor's memory.

With the usual budgets all that a correction needs of the fields are a few sums over the sphere, and each of five controls
(surface pressure, temperature, humidity, precipitation, evaporation) moves by what a few numbers tell, its totals. So a
scheme reads the sums of both states, finds the totals that close its budgets, and moves the controls in a pass that gives
the sums of the result: no field is formed in between. `docs/conservation.md` has the derivation of the gradient. Schemes
outside this frame, and other types and devices, take the formulas of the budgets, to which these agree within rounding.
The few numbers are arrays of NumPy, whose calls cost a quarter of torch's.
"""

import dataclasses
import functools
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from emulator.conservation import fluxes, newton
from emulator.conservation.atmosphere import State, on_levels
from emulator.conservation.budgets import Anchor, DryAir, Water
from emulator.conservation.energy import Energy
from emulator.kernels import columns
from emulator.kernels import corrections as native
from emulator.kernels.corrections import ALONG, MEASURED, PULLED, TOTALS, UNIFORM

if TYPE_CHECKING:
    from emulator.conservation.scheme import Scheme

CONTROLS = ("surface_pressure", "temperature", fluxes.HUMIDITY, fluxes.PRECIPITATION, fluxes.EVAPORATION)
KIND = dict(zip(CONTROLS, native.CONTROLS, strict=True))
AIR, WATER, ENERGY, RAIN, EVAPORATION = AMOUNTS = range(5)  # the sums that budgets consist of
SIZES = {"pressure": 32, "rain": 30, "evaporation": 31}  # places of the mean sizes among the sums,
HEATED = 33  # and of the square of the change of the latent heat flux


@dataclasses.dataclass
class Solution:
    """What closes the budgets of a step.

    Attributes:
      first, last: sums of the kernels as predicted and as corrected, `(batch, sum)`.
      totals: what controls are moved by, `(batch, TOTALS)`, and `directions`, their derivatives by as many unknowns as there
        are budgets, `(batch or 1, m, TOTALS)`.
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


class Compiled:
    """A scheme's corrections from the kernels; subclasses provide `solve`.

    Args:
      scheme: one of which `possible` is true.
      modes: how a control's variance and bound are meant, by the kernels' names.
      variances: by control, `()` or `(level,)` float64; what has none does not move.
      normalised: controls whose variance, as given, is that at the mean of their sizes, level by level.
    """

    def __init__(
        self, scheme: "Scheme", modes: dict[str, tuple[int, int]], variances: dict[str, Tensor], normalised=()
    ):
        self.scheme, self.modes, self.normalised = scheme, modes, tuple(normalised)
        self.air = scheme.atmosphere
        self.plan = scheme.one_pass.plan
        self.stored = scheme.one_pass.names
        self.names = self.stored | {KIND[name]: name for name in CONTROLS[3:] if name in scheme.required}
        self.moved = {KIND[name]: name for name in CONTROLS if name in scheme.changes}
        self.linked = fluxes.LATENT_HEAT in scheme.changes
        latent = self.air.constants.latent_heat_vaporisation
        self.latent = latent if self.linked else 0.0  # of the flux that follows evaporation
        energy = scheme.budgets.get("energy")
        gains = {} if energy is None else dict.fromkeys(energy.top, 1) | dict.fromkeys(energy.surface, -1)
        self.gains = dict.fromkeys((fluxes.LATENT_HEAT,) * self.linked, 0) | gains
        self.rows = np.stack([self._row(budget) for budget in scheme.budgets.values()])
        self.levels = len(self.air.levels)
        self.responses, self.everywhere = self._responses()
        self.weights = self._weights(variances)

    @staticmethod
    def possible(scheme: "Scheme") -> bool:
        """Whether a scheme's budgets and changes are within the frame."""
        budgets = scheme.budgets.values()
        if not scheme.budgets or any(type(budget) not in (DryAir, Water, Energy) for budget in budgets):
            return False
        for budget in budgets:
            if isinstance(budget, Energy):
                usual = len(budget.top) + len(budget.surface) <= native.FLUXES and fluxes.LATENT_HEAT in budget.surface
                if budget.moist or budget.snow or budget.has_top or not usual:
                    return False
            elif budget.species != (fluxes.HUMIDITY,):
                return False
        return set(scheme.changes) <= {*CONTROLS, fluxes.LATENT_HEAT}

    def serves(self, state0: State, state1: State) -> bool:
        """Whether the kernels take a step's fields."""
        read = (*self.names.values(), *self.gains, *self.scheme.changes)
        return columns.serves(*(state0[name] for name in self.stored.values()), *(state1[name] for name in read))

    def _row(self, budget) -> np.ndarray:
        """A budget's residual by the amounts; the latent heat flux follows evaporation (`fluxes.linked`)."""
        seconds, latent = self.air.step_seconds, self.latent
        row = {
            DryAir: (1.0, -1.0, 0.0, 0.0, 0.0),
            Water: (0.0, 1.0, 0.0, seconds, seconds),
            Energy: (0.0, 0.0, 1.0, 0.0, seconds * latent),
        }
        return np.array(row[type(budget)])

    def _responses(self) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of the amounts by the totals: from the sums, `(sum, 5 TOTALS)`, and constant ones, `(5, TOTALS)`."""
        constants, levels = self.air.constants, self.levels
        result = np.zeros((MEASURED + 4 * levels, len(AMOUNTS), TOTALS))
        for part in (AIR, WATER, ENERGY):
            result[18 + part, part, 0] = 1
            for along in range(3):
                result[21 + 3 * part + along, part, ALONG + along] = 1
        warmer, moister = (slice(MEASURED + n * levels, MEASURED + (n + 1) * levels) for n in (1, 3))
        result[warmer, ENERGY, 1] = constants.heat_capacity_dry_air / constants.gravity
        result[moister, WATER, 2] = 1 / constants.gravity
        result[moister, ENERGY, 2] = constants.latent_heat_vaporisation / constants.gravity
        result[SIZES["rain"], RAIN, 3] = result[SIZES["evaporation"], EVAPORATION, 4] = 1
        everywhere = np.zeros((len(AMOUNTS), TOTALS))
        everywhere[RAIN, UNIFORM] = everywhere[EVAPORATION, UNIFORM + 1] = 1
        return result.reshape(len(result), -1), everywhere

    def _weights(self, variances: dict[str, Tensor]) -> np.ndarray:
        weights = np.ones((1, MEASURED + 4 * self.levels))
        variances = {kind: variances[kind].numpy().ravel() if kind in variances else 0.0 for kind in native.CONTROLS}
        weights[:, 18:30], weights[:, 30], weights[:, 31] = (variances[k] for k in ("pressure", "rain", "evaporation"))
        for kind, first in (("temperature", 1), ("vapour", 3)):
            start = MEASURED + first * self.levels
            weights[:, start : start + self.levels] = variances[kind]
        return weights

    def response(self, sums: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Derivatives of the amounts by the totals: `(batch, 5, TOTALS)`."""
        return times(sums * weights, self.responses).reshape(-1, len(AMOUNTS), TOTALS) + self.everywhere

    def matrix(self, sums: np.ndarray, weights: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Minus the derivatives of the residuals by the unknowns: `(batch, m, m)`."""
        return -(self.rows @ self.response(sums, weights)) @ directions.swapaxes(-1, -2)

    def held(self, sums: np.ndarray, name: str) -> np.ndarray:
        """Share of a control's cells on its bound, `(batch,)`."""
        return sums[:, 13 + CONTROLS.index(name)] / (self.levels if on_levels(name) else 1)

    def at_rest(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Totals of nothing, `(batch, TOTALS)`, and the weights of the variances as given, `(batch, sum)`."""
        return np.zeros((batch, TOTALS)), np.repeat(self.weights, batch, axis=0)

    def solve(self, step: native.Correction, residual, scales: np.ndarray) -> Solution:
        """Start the step, find what closes the budgets, and leave the controls moved by it.

        `residual` takes the first sums and returns a function of the amounts, `(batch, 5) -> (batch, m)`; `scales`: what
        residuals are compared with.
        """
        raise NotImplementedError

    def __call__(self, state0: State, state1: State, anchor: Anchor | None) -> tuple[State, State]:
        """As the scheme; `anchor` None takes the dry mass of `state0`."""
        step = Step(self, None if anchor is None else anchor.dry_mass)
        fields = [state0[name] for name in self.stored.values()]
        fields += [state1[name] for name in (*self.names.values(), *self.gains)]
        reference = step.reference
        if torch.is_grad_enabled() and any(x.requires_grad for x in (*fields, reference) if x is not None):
            moved = _Corrected.apply(step, reference, *fields)
        else:
            moved = step.forward(fields)
        return dict(zip(step.results, moved, strict=True)), step.record


class Step:
    """One step's correction, and what its gradient needs; `reference` is the dry mass to keep, `(batch,)`, or None."""

    def __init__(self, compiled: Compiled, reference: Tensor | None):
        self.compiled, self.reference = compiled, reference
        latent = (fluxes.LATENT_HEAT,) if compiled.linked else ()
        self.results = (*compiled.moved.values(), *latent)
        self.record: State = {}

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
        self.kernels = native.Correction(compiled.plan, state1, gains, compiled.modes, compiled.moved, heat)
        before = compiled.plan.sums(state0, derivatives=False)[0].numpy()
        mass = before[:, AIR] - before[:, WATER]
        reference = mass if self.reference is None else self.reference.detach().numpy()
        scales = {"dry_air": mass, "water": before[:, WATER], "energy": before[:, ENERGY]}
        scales = np.stack([scales[name] for name in scheme.budgets], axis=1)
        residual = functools.partial(self._residual, before=before, reference=reference)
        self.found = compiled.solve(self.kernels, residual, scales)
        self.record = self._record(residual(self.found.first), scales)
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
                gained = first[:, 5] + compiled.latent * first[:, EVAPORATION] + budget.heating
                offset[:, number] = -before[:, ENERGY] - seconds * gained
        return lambda amounts: times(amounts[:, : len(AMOUNTS)], rows) + offset

    def _record(self, residual, scales: np.ndarray) -> State:
        compiled, scheme, found = self.compiled, self.compiled.scheme, self.found
        raw = found.first[:, : len(AMOUNTS)].copy()
        lost = found.first[:, 6]  # to clipping, as is the next one
        raw[:, WATER] += lost
        raw[:, ENERGY] += compiled.air.constants.latent_heat_vaporisation * lost
        raw[:, RAIN] += found.first[:, 7]
        before, after = (residual(amounts) / scales for amounts in (raw, found.last))
        values = {f"residual_before_{name}": before[:, n] for n, name in enumerate(scheme.budgets)}
        values |= {f"residual_after_{name}": after[:, n] for n, name in enumerate(scheme.budgets)}
        sizes = np.sqrt(found.last[:, 8:13])
        for number, name in enumerate(CONTROLS):
            if name in scheme.changes:
                levels = compiled.levels if on_levels(name) else 1
                values[f"correction_rms_{name}"] = sizes[:, number] / levels**0.5
        if compiled.linked:
            values[f"correction_rms_{fluxes.LATENT_HEAT}"] = np.sqrt(found.last[:, HEATED])
        values |= scheme.shares(values)
        values |= {f"saturation_{name}": value for name, value in found.saturations.items()}
        return {name: torch.from_numpy(value) for name, value in values.items()}

    def backward(self, fields, gradients, needed) -> tuple[Tensor | None, list[Tensor | None]]:
        """Gradients of the reference and of the fields.

        The unknowns y solve `c(F(y, x), x) = 0`, F being the moved controls, so that `dy = A^-1 dc` with A minus the
        derivative of c by y. With G the gradient by the moved controls and `w = A^-T F_y^T G`, the gradient by x is
        `(G + c_F^T w) F_x + w c_x`.
        """
        compiled, found, air = self.compiled, self.found, self.compiled.air
        state0, _, _ = self.split(fields)
        seconds, latent = air.step_seconds, compiled.latent
        given = {kind: g for kind, g in zip(compiled.moved, gradients, strict=False) if g is not None}
        heat = gradients[-1] if compiled.linked else None
        if heat is not None:
            given["evaporation"] = (
                torch.add(given["evaporation"], heat, alpha=latent) if "evaporation" in given else latent * heat
            )
        pulled = self.kernels.pull(given)
        matrix = compiled.matrix(found.last, found.weights, found.directions).swapaxes(1, 2)
        force = newton.solve(matrix, (found.directions * self._by_totals(pulled)[:, None]).sum(2))
        by_amount = times(force, compiled.rows)
        wanted = [kind for kind, need in zip(compiled.names, needed[1 + len(state0) :], strict=False) if need]
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
        first = self._by_start(state0, of, needed[1 : 1 + len(state0)])
        by_reference = None if self.reference is None else torch.from_numpy(-of.get("dry_air", nothing))
        return by_reference, [*first, *(results.get(kind) for kind in compiled.names), *last]

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
        found = self.compiled.plan.gradients(state0, torch.from_numpy(by_amount), None, wanted)
        return [found.get(kind) for kind in state0]

    def _by_totals(self, pulled: np.ndarray) -> np.ndarray:
        """Gradients by the totals, `(batch, TOTALS)`, of the moved controls', from the kernels' sums of these."""
        weights, levels = self.found.weights, self.compiled.levels
        result = np.empty((len(pulled), TOTALS))
        result[:, 0] = pulled[:, 0] * weights[:, 18]
        for n, heavy in ((0, MEASURED + levels), (1, MEASURED + 3 * levels)):
            moved = pulled[:, PULLED + n * levels : PULLED + (n + 1) * levels]
            result[:, n + 1] = (moved * weights[:, heavy : heavy + levels]).sum(1)
        result[:, 3:5] = pulled[:, 4:8:2] * weights[:, 30:32]
        result[:, ALONG : ALONG + 3] = pulled[:, 1:4] * weights[:, 18:19]
        result[:, UNIFORM:] = pulled[:, 5:8:2]
        return result

    def _by_means(self, pulled: np.ndarray, by_amount: np.ndarray) -> np.ndarray:
        """Gradients by the mean sizes that variances are divided by, in the kernels' order: `(batch, 3 + 2 levels)`.

        An increment falls as the mean grows, in proportion: minus the sum of gradient times increment over the mean.
        """
        compiled, found, levels = self.compiled, self.found, self.compiled.levels
        constants, sums, weights, totals = compiled.air.constants, found.last, found.weights, found.totals
        result = np.zeros((len(pulled), 3 + 2 * levels))
        if "pressure" in compiled.normalised:
            pressed = by_amount[:, :3]
            by_size = pulled[:, 0] + (pressed * sums[:, 18:21]).sum(1)
            by_slopes = pulled[:, 1:4] + (pressed[:, :, None] * sums[:, 21:30].reshape(-1, 3, 3)).sum(1)
            moved = totals[:, 0] * by_size + (totals[:, ALONG : ALONG + 3] * by_slopes).sum(1)
            result[:, 0] = -weights[:, 18] * moved / (found.first[:, SIZES["pressure"]] + newton.TINY)
        for n, kind in enumerate(("rain", "evaporation")):
            if kind in compiled.normalised:
                size = SIZES[kind]
                moved = totals[:, 3 + n] * (pulled[:, 4 + 2 * n] + by_amount[:, 3 + n] * sums[:, size])
                result[:, 1 + n] = -weights[:, size] * moved / (found.first[:, size] + newton.TINY)
        of_energy = by_amount[:, ENERGY]
        by_content = {
            "temperature": constants.heat_capacity_dry_air * of_energy,
            "vapour": by_amount[:, WATER] + constants.latent_heat_vaporisation * of_energy,
        }
        for n, kind in enumerate(by_content):
            if kind in compiled.normalised:
                mean, heavy = (MEASURED + (2 * n + m) * levels for m in (0, 1))
                mean, heavy = slice(mean, mean + levels), slice(heavy, heavy + levels)
                moved = pulled[:, PULLED + n * levels : PULLED + (n + 1) * levels]
                moved = moved + by_content[kind][:, None] / constants.gravity * sums[:, heavy]
                moved = moved * weights[:, heavy] * totals[:, n + 1 : n + 2]
                result[:, 3 + n * levels : 3 + (n + 1) * levels] = -moved / (found.first[:, mean] + newton.TINY)
        return result


class _Corrected(torch.autograd.Function):
    @staticmethod
    def forward(ctx, step, reference, *fields):
        ctx.set_materialize_grads(False)
        ctx.step = step
        ctx.save_for_backward(*fields)  # which sees to it that nobody has changed them in the meantime
        return tuple(step.forward(fields))

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        reference, fields = ctx.step.backward(ctx.saved_tensors, gradients, ctx.needs_input_grad[1:])
        needed = ctx.needs_input_grad
        fields = (x if need else None for x, need in zip(fields, needed[2:], strict=True))
        return None, reference if needed[1] else None, *fields
