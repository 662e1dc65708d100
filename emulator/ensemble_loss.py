"""Proper scores of an ensemble as losses, in the fair form: their mean does not depend on the number of members.

Fair CRPS of members x_i and truth y: mean_i |x_i - y| - sum_ij |x_i - x_j| / (2 M (M - 1)) (Ferro 2014). The energy score
takes the norm of whole states in place of the absolute value of single ones (Gneiting and Raftery 2007), and so sees
whether the fields of a member belong together.
"""

import torch
from torch import Tensor


def fair_crps(members: Tensor, truth: Tensor) -> Tensor:
    """Fair CRPS of every value: `(member, *shape)` and `(*shape)` to `(*shape)`. Raises `ValueError` below 2 members."""
    count = _count(members, truth)
    skill = (members - truth).abs().mean(0)
    # sum over pairs of sorted members: each counts once for every member below it, and once less for every one above
    ordered = members.sort(dim=0).values
    rank = torch.arange(count, device=members.device, dtype=members.dtype)
    factor = (2 * rank - count + 1).view(-1, *[1] * truth.dim())
    return skill - (factor * ordered).sum(0) / (count * (count - 1))


def fair_energy_score(members: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Fair energy score of every sample, `(batch,)`.

    Args:
      members: `(member, batch, channel, *space)`. truth: `(batch, channel, *space)`.
      weight: `(channel, *space)`: area shares times channel weights over squared scales, as `ScaledError.factor`.
    """
    count = _count(members, truth)

    def norm(difference):
        return (difference.square() * weight).flatten(-weight.dim()).sum(-1).clamp(min=1e-24).sqrt()

    skill = norm(members - truth).mean(0)
    spread = sum(norm(members[i] - members[j]) for i in range(count) for j in range(i))
    return skill - spread / (count * (count - 1))


def _count(members: Tensor, truth: Tensor) -> int:
    if members.shape[1:] != truth.shape or len(members) < 2:
        raise ValueError(
            f"Expected 2 members or more of the truth's shape {tuple(truth.shape)}, got {tuple(members.shape)}"
        )
    return len(members)
