"""Soft constraints: the budgets' residuals as terms of a loss.

The same residuals as the hard corrections use, squared in units of a tolerance. The standard deviation of the truth's
own residual is the natural one (`anchors.truth_residuals`): a forecast that closes its budgets as well as the data do
costs about 1 per budget, and nothing is gained by closing them better than that.
"""

import dataclasses

import torch
from torch import Tensor

from emulator.conservation.anchors import TruthResiduals
from emulator.conservation.atmosphere import State
from emulator.conservation.budgets import Anchor, Budget


@dataclasses.dataclass(frozen=True, eq=False)
class Penalty:
    """`sum_i weight_i (residual_i / tolerance_i)^2` over budgets.

    Attributes:
      budgets: by name.
      tolerances: residual per step that costs 1, in the budget's units, by name.
      weights: by name, 1 where absent.
    """

    budgets: dict[str, Budget]
    tolerances: dict[str, float]
    weights: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name in self.budgets:
            if not self.tolerances.get(name, 0) > 0:
                raise ValueError(
                    f"Expected a positive tolerance of the budget {name}, got {self.tolerances.get(name)!r}"
                )
        if unknown := sorted(set(self.weights) - set(self.budgets)):
            raise ValueError(f"Expected weights of the budgets {sorted(self.budgets)}, got {unknown}")

    @classmethod
    def from_truth(cls, budgets: dict[str, Budget], truth: TruthResiduals, weights: dict[str, float] | None = None):
        """Penalty whose tolerances are those of the truth's residuals."""
        return cls(budgets, {name: truth.tolerance(name) for name in budgets}, weights or {})

    def __call__(self, state0: State, state1: State, anchor: Anchor | None = None) -> Tensor:
        """Penalty of a predicted step, `(batch,)` float64; fields as for the hard corrections."""
        first = next(iter(self.budgets.values()))
        with torch.autocast(state1[first.required[0]].device.type, enabled=False):
            terms = [
                self.weights.get(name, 1.0) * (budget.residual(state0, state1, anchor) / self.tolerances[name]) ** 2
                for name, budget in self.budgets.items()
            ]
        return torch.stack(terms).sum(0)
