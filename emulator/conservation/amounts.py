"""Air, water and energy of a state, all from one pass over its fields, which the budgets of one step share.

Budgets ask for the same columns again and again: as scale, as residual, as derivative. Where compiled kernels serve (float32
in the processor's memory), one pass per state gives all of these, in float64 throughout, so that amounts may be subtracted
from each other. Everywhere else each budget forms its own columns from differences; the results agree to rounding.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from emulator.conservation.atmosphere import Atmosphere, State
from emulator.kernels import library


class StepState(dict):
    """Fields of a state during the correction of one step, with what the budgets' evaluations of it share.

    Attributes:
      amounts: gives air, water and energy of the step's states, or None where budgets form their own columns.
      formed: fields formed from others, by name: the names of those, and the tensor. `|` leaves out what it makes untrue.
    """

    def __init__(
        self, fields: State, amounts: "_AmountsByFields | None" = None, formed: dict[str, tuple] | None = None
    ):
        super().__init__(fields)
        self.amounts, self.formed = amounts, formed or {}

    def __or__(self, changed: State) -> "StepState":
        formed = {name: entry for name, entry in self.formed.items() if not set(entry[0]) & set(changed)}
        return StepState({**self, **changed}, self.amounts, formed)


def formed(state: State, name: str) -> Tensor | None:
    """A field that was formed for all evaluations of a state, or None."""
    entry = getattr(state, "formed", {}).get(name)
    return None if entry is None else entry[1]


class Amounts(NamedTuple):
    """Global means of column integrals, `(batch,)` float64, and their derivatives by surface pressure, cell by cell.

    Attributes:
      air, water: kg m-2; energy: J m-2.
      growth: of the three by surface pressure, per Pa, `(batch, 3, *space)` in that order.
    """

    air: Tensor
    water: Tensor
    energy: Tensor
    growth: Tensor


class OnePass:
    """Amounts for the given budgets.

    Args:
      atmosphere: geometry and constants.
      budgets: those that ask for the amounts.
      species: names of the fields whose sum is water, humidity first.
      moist: coefficient of `q T` in the energy per kilogram, J kg-1 K-1.
      temperature, winds: names of these fields, none where no budget counts them.
    """

    def __init__(self, atmosphere: Atmosphere, budgets: Iterable, species, moist: float, temperature, winds):
        self.budgets = frozenset(budgets)
        surface = ("surface_pressure",) if atmosphere.has_surface_pressure else ()
        self.names = dict(zip(("pressure",), surface, strict=False))
        self.names |= zip(("temperature",), temperature, strict=False)
        self.names |= zip(("east", "north"), winds, strict=False)
        self.names |= zip(("vapour", "liquid", "ice"), species, strict=False)
        self._space, self._processes = tuple(atmosphere.area.shape), atmosphere.processes
        constants = atmosphere.constants
        heat = constants.heat_capacity_dry_air, constants.latent_heat_vaporisation
        self.integrals = atmosphere.column_integrals(*heat, moist)

    def begin(self, state0: State, state1: State) -> tuple[State, State] | None:
        """The states of a step, in which amounts are kept from now on; None where no kernels serve."""
        fields = [state[name] for state in (state0, state1) for name in self.names.values()]
        if not library.takes(*fields):
            return None
        amounts = _AmountsByFields(self)
        return StepState(state0, amounts), StepState(state1, amounts)

    def __call__(self, state: State) -> Amounts:
        fields = [state[name] for name in self.names.values()]
        sums, growth = _Sums.apply(self.integrals, tuple(self.names), *fields)
        sums = self._processes.total(sums)
        return Amounts(*sums.unbind(1), growth.reshape(len(sums), 3, *self._space))


class _AmountsByFields:
    """Amounts of the states of one step by the identity of their fields, which it keeps alive."""

    def __init__(self, one_pass: OnePass):
        self.one_pass = one_pass
        self._results: dict[tuple, tuple[list[Tensor], Amounts]] = {}

    def __call__(self, state: State) -> Amounts:
        fields = [state[name] for name in self.one_pass.names.values()]
        traced = torch.is_grad_enabled() and any(field.requires_grad for field in fields)
        key = tuple(map(id, fields))
        for flag in (True,) if traced else (True, False):
            if (key, flag) in self._results:
                return self._results[key, flag][1]
        result = self.one_pass(state)
        self._results[key, traced] = fields, result
        return result


def shared(budget, state: State) -> Amounts | None:
    """The amounts of a state for a budget, or None where it must form its own columns."""
    kept = getattr(state, "amounts", None)
    return kept(state) if kept is not None and budget in kept.one_pass.budgets else None


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx, integrals, names, *fields):
        ctx.set_materialize_grads(False)
        ctx.integrals, ctx.names = integrals, names
        ctx.save_for_backward(*fields)
        return integrals.sums(dict(zip(names, fields, strict=True)))

    @staticmethod
    @once_differentiable
    def backward(ctx, g_sums, g_growth):
        fields = dict(zip(ctx.names, ctx.saved_tensors, strict=True))
        wanted = [name for name, needed in zip(ctx.names, ctx.needs_input_grad[2:], strict=True) if needed]
        condensed = {"liquid": "condensed", "ice": "condensed"}
        if g_sums is None:
            g_sums = torch.zeros(len(fields["vapour"]), 3, dtype=torch.float64)
        gradients = ctx.integrals.gradients(
            fields, g_sums, g_growth, dict.fromkeys(condensed.get(n, n) for n in wanted)
        )
        return None, None, *(gradients[condensed.get(n, n)] if n in wanted else None for n in ctx.names)
