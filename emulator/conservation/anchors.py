"""Constant rates by which the data's own budgets fail to close, estimated so that no scheme enforces what is not true.

Reanalyses add and remove mass, water and heat with every analysis, and models have leaks of their own: the embedded
model loses 3 W m-2 and gains a millionth of its dry mass a step. A budget that includes the mean of the truth's residual
has a mean residual of zero on the truth. Which rate belongs to a quantity, its declaration says (`unaccounted`).
"""

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor

from emulator.conservation.budgets import Anchor, Budget
from emulator.conservation.options import Unaccounted
from emulator.planet.quantities.registry import quantity

# Dry masses of one planet's models agree to a few per mille (orography, year); other planets' differ by far more.
MASS_TOLERANCE = 0.05


@dataclasses.dataclass(frozen=True)
class TruthResiduals:
    """Residuals of the truth per step, in the budgets' units: `mean` and `deviation` by budget, over `samples` steps."""

    mean: dict[str, float]
    deviation: dict[str, float]
    samples: int
    step_seconds: float

    def unaccounted(self) -> Unaccounted:
        """The mean residuals as constant rates, of the quantities that have one."""
        names = {name: quantity(name).unaccounted for name in self.mean}
        return Unaccounted(**{rate: self.mean[name] / self.step_seconds for name, rate in names.items() if rate})

    def tolerance(self, name: str) -> float:
        """What the truth's residual is in the root mean square, without the mean where that counts as a constant rate."""
        if quantity(name).unaccounted:
            return self.deviation[name]
        return (self.mean[name] ** 2 + self.deviation[name] ** 2) ** 0.5


def truth_residuals(budgets: Iterable[Budget], pairs: Iterable[tuple], step_seconds: float) -> TruthResiduals:
    """Mean and standard deviation of the residuals of pairs `(state0, state1)` of true consecutive states.

    Of an open domain `(state0, state1, anchor)`, the anchor having no dry mass and what left by the sides. Build the
    budgets without unaccounted rates, so that the means are what to add. Raises `ValueError` without a pair.
    """
    budgets = list(budgets)
    collected: dict[str, list[Tensor]] = {budget.name: [] for budget in budgets}
    with torch.no_grad():
        for states in pairs:
            for budget in budgets:
                collected[budget.name].append(budget.residual(*states).cpu())
    values = {name: torch.cat(parts) for name, parts in collected.items() if parts}
    if not values:
        raise ValueError("Expected at least one pair of consecutive true states to estimate residuals from, got none")
    samples = len(next(iter(values.values())))
    for name, residuals in values.items():
        if (broken := int((~torch.isfinite(residuals)).sum())) > 0:
            raise ValueError(
                f"Expected finite residuals of the truth's {name} budget, got {broken} of {residuals.numel()} that are not: "
                "a field of it has missing or infinite values"
            )
    return TruthResiduals(
        {name: float(residuals.mean()) for name, residuals in values.items()},
        {name: float(residuals.std(correction=0)) for name, residuals in values.items()},
        samples,
        step_seconds,
    )


def check_mass(reference: Tensor, mass: Tensor) -> None:
    """Refuse a reference dry mass, kg m-2, that is not that of the planet the states are of."""
    off = ((reference - mass) / mass).abs().max()
    if not bool(off <= MASS_TOLERANCE):
        raise ValueError(
            f"Expected a reference dry mass near the states' own {mass.mean():.6g} kg m-2, got {reference.mean():.6g} "
            f"kg m-2 ({float(off):.1%} away): another planet's, or one in another unit"
        )


def make_anchor(kind: str, given: float | None, mass: Tensor) -> Anchor:
    """Reference for states of dry mass `mass`, `(batch,)`: their own, or the given number after a check."""
    if kind == "given":
        reference = torch.full_like(mass, given)
        check_mass(reference, mass)
        return Anchor(reference)
    return Anchor(mass.detach().clone())
