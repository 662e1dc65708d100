"""A lead of all rows of a group of forecasts: put together from batches, and averaged over steps."""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from emulator.model.stepper import StepResult


@dataclasses.dataclass(frozen=True)
class Lead:
    """State and diagnostics `(row, channel, *space)`, records `(row,)`, and other fields `(row, *space)` of any type."""

    state: Tensor
    diagnostic: Tensor
    record: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    beside: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    def _with(self, change: Callable[[Tensor], Tensor]) -> "Lead":
        record, beside = ({n: change(v) for n, v in named.items()} for named in (self.record, self.beside))
        return Lead(change(self.state), change(self.diagnostic), record, beside)

    def added(self, total: "Lead | None") -> "Lead":
        """A float64 sum with this one more."""
        if total is None:
            return self._with(torch.Tensor.double)
        record = {n: total.record.get(n, 0.0) + v.double() for n, v in self.record.items()}
        beside = {n: total.beside[n] + v for n, v in self.beside.items()}
        return Lead(total.state + self.state, total.diagnostic + self.diagnostic, record, beside)

    def over(self, count: int, like: "Lead") -> "Lead":
        """A sum as the mean over `count` steps, of the types that the leads have."""
        mean = self._with(lambda total: total / count)
        beside = {n: v.to(like.beside[n].dtype) for n, v in mean.beside.items()}
        return dataclasses.replace(mean._with(torch.Tensor.float), beside=beside)


def joined(results: Sequence[StepResult], order: Tensor) -> Lead:
    """Of all rows from the results of their batches; `order`: where each row is among these."""
    if len(results) == 1:
        only = results[0]
        return Lead(only.state, only.diagnostic, only.record, only.beside)
    names = {name for result in results for name in result.record}
    zeros = [torch.zeros(len(result.state), device=order.device) for result in results]
    record = {
        name: torch.cat([r.record.get(name, zero).float() for r, zero in zip(results, zeros, strict=True)])
        for name in names
    }
    beside = {name: torch.cat([result.beside[name] for result in results]) for name in results[0].beside}
    state, diagnostic = (torch.cat([getattr(result, what) for result in results]) for what in ("state", "diagnostic"))
    return Lead(state, diagnostic, record, beside)._with(lambda part: part.index_select(0, order))
