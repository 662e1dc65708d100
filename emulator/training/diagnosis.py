"""What is wrong with an update that cannot be used: the data, the forecast or the gradient, and in which variable."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from emulator.data.batch import Batch
from emulator.model.gaps import REFUSED
from emulator.model.step import Step
from emulator.parallel.distributed import highest, local

NAMED = 5  # variables of a message


def explain(
    step: Step, loss: float, limit: float, batch: Batch, ends: Sequence[tuple[Tensor, Tensor]], starts, times
) -> tuple[tuple[str, str], bool]:
    """What the loss is and what is at fault, in words, and whether a lower rate may help. All processes ask together.

    Args:
      ends: the last states and diagnostics of the parts of the batch, `(row, channel, *space)`.
      starts: the positions in `times` from which this process's rows start, `(row,)`.
    """
    what = f"{loss:.4g}, above {limit:.4g}," if np.isfinite(loss) and loss > limit else "not finite"
    if names := broken_data(step, batch, starts, times):
        return (what, f"the data are not finite: {names}"), False
    if names := broken_forecast(step, ends):
        return (what, f"variables: {names}"), True
    errors = f"largest errors in standard deviations: {largest_errors(step, batch, ends)}"
    weights = broken_gradient(step)
    return (what, errors + f"; gradients that are not finite: {weights}" * bool(weights)), True


def broken_data(step: Step, batch: Batch, starts: np.ndarray, times: np.ndarray) -> str:
    """Which variables of an update's data are not finite, and the last such time; empty where all are finite."""
    states, diagnostics = _wrong(step, batch.state), _wrong(step, batch.diagnostic)  # (row, time, channel)
    if step.layout.gaps != REFUSED:
        states[:, : batch.history] = False  # what was hidden of them is no fault
    length = round(batch.length) if isinstance(batch.length, float) else 1
    names = _named(_labels(step), torch.cat([states.flatten(0, 1).any(0), diagnostics.flatten(0, 1).any(0)]))
    if not names:
        return ""
    when = states.any(2)
    when[:, batch.history :] |= diagnostics.any(2)
    found = when.nonzero().tolist()
    last = max((int(starts[row]) + length * (time + 1 - batch.history) for row, time in found), default=-1)
    return f"{names} at {times[int(highest(torch.tensor([last], dtype=torch.float64)))]}"


def broken_forecast(step: Step, ends: Sequence[tuple[Tensor, Tensor]]) -> str:
    """Which variables of forecasts `(state, diagnostic)`, each `(row, channel, *space)`, are not finite."""
    wrong = [_wrong(step, torch.cat(end, dim=1)).any(0) for end in ends]
    return _named(_labels(step), torch.stack(wrong).any(0))


def broken_gradient(step: Step) -> str:
    """Which weights have a gradient that is not finite."""
    weights = {name: p.grad for name, p in step.named_parameters() if p.grad is not None}
    wrong = [~torch.isfinite(local(gradient)).all() for gradient in weights.values()]
    return _named(list(weights), torch.stack(wrong)) if wrong else ""


def largest_errors(step: Step, batch: Batch, ends: Sequence[tuple[Tensor, Tensor]]) -> str:
    """The variables that forecasts miss by most, in units of their own spread."""
    state, diagnostic = (torch.cat(parts) for parts in zip(*ends, strict=True))
    pairs = (step.state_scale, state, batch.state[:, -1]), (step.diagnostic_scale, diagnostic, batch.diagnostic[:, -1])
    missed = torch.cat([(scale(ours) - scale(truth)).abs().flatten(2).amax((0, 2)) for scale, ours, truth in pairs])
    missed, labels = highest(missed).tolist(), _labels(step)
    order = sorted(range(len(missed)), key=lambda k: -missed[k])[:NAMED]
    return ", ".join(f"{labels[k]} by {missed[k]:.3g}" for k in order)


def _labels(step: Step) -> list[str]:
    return [*step.layout.prognostic.labels(), *step.layout.diagnostic.labels()]


def _wrong(step: Step, fields: Tensor) -> Tensor:
    """Whether a field has any cell that is not finite: `(..., channel, *space)` to `(..., channel)`."""
    space = step.static.dim() - 1
    return (~torch.isfinite(fields)).flatten(fields.dim() - space).any(-1)


def _named(labels: Sequence[str], wrong: Tensor) -> str:
    flags = highest(wrong.float()).tolist()
    bad = [label for label, flag in zip(labels, flags, strict=True) if flag]
    return ", ".join(bad[:NAMED]) + f" and {len(bad) - NAMED} more" * (len(bad) > NAMED)
