"""Steps of several lengths, and of calendar months, which differ: what changes of a step with its length.

Lengths are in steps of the store. A variable of variance s^2 whose change over one step has the variance c^2 has the
autocorrelation r = 1 - c^2 / (2 s^2). In a first-order autoregression, the process behind the damping too
(`emulator.model.step`), it is r^n over n steps, so that the change's variance is 2 s^2 (1 - r^n).
"""

import torch
from torch import Tensor

from emulator.conservation.budgets import Anchor
from emulator.conservation.scheme import Scheme


def growth(change: Tensor, spread: Tensor, length: Tensor | float) -> Tensor:
    """How much larger than over one step the change over some steps is: all broadcast together; 1 for what never changes."""
    lost = (change.double() / torch.where(spread > 0, spread, 1.0)).square() / 2
    kept = torch.where((spread > 0) & (change > 0), (1 - lost).clamp(min=0), 0.0)
    return ((1 - kept**length) / (1 - kept)).sqrt().to(change.dtype)


def over_length(change: Tensor, damping: Tensor, spread: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviation of the change and damping `(channel, 1, 1)` over steps of some lengths `(batch,)`.

    Gives both as `(batch, channel, 1, 1)`.
    """
    length = length.view(-1, *[1] * change.dim())
    return change * growth(change, spread, length), (1 - (1 - damping.double()) ** length).to(damping.dtype)


def corrected(
    scheme: Scheme, before: dict, after: dict, anchor: Anchor | None, length: Tensor | None
) -> tuple[dict, dict, Anchor | None]:
    """Changed fields, record and the next anchor of a step, each row by the budgets over its own length.

    `before`, `after`: fields by name, `(batch, [level,] *space)`; `length`: `(batch,)`, None for one step of the store.
    """
    if length is None:
        return *scheme(before, after, anchor), scheme.advance(anchor)
    values = length.unique().tolist()
    if len(values) == 1:
        own = scheme.lasting(values[0])
        return *own(before, after, anchor), own.advance(anchor)
    order, parts = [], []
    for value in values:
        rows = torch.nonzero(length == value).flatten()
        some = [{name: field[rows] for name, field in fields.items()} for fields in (before, after)]
        held = None if anchor is None else Anchor(anchor.dry_mass[rows])
        own = scheme.lasting(value)
        parts.append((*own(*some, held), own.advance(held)))
        order.append(rows)
    back = torch.cat(order).argsort()
    changed, record = ({name: torch.cat([p[k][name] for p in parts])[back] for name in parts[0][k]} for k in (0, 1))
    onward = None if parts[0][2] is None else Anchor(torch.cat([p[2].dry_mass for p in parts])[back])
    return changed, record, onward
