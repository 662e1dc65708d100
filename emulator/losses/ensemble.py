"""Proper scores of an ensemble as losses, in the fair form: their mean does not depend on the number of members.

Fair CRPS of members x_i and truth y: mean_i |x_i - y| - sum_ij |x_i - x_j| / (2 M (M - 1)) (Ferro 2014). The energy score
takes the norm of whole states in place of the absolute value of single ones (Gneiting and Raftery 2007), and so sees
whether the fields of a member belong together.

The almost-fair score (Lang et al. 2024, arXiv 2412.15832) is alpha times the fair one plus 1 - alpha times the plain one,
that is the fair one with the distances of members times 1 - (1 - alpha) / M.
"""

import torch
from torch import Tensor, nn

from emulator.losses.options import LossOptions
from emulator.losses.registry import loss
from emulator.losses.scaled import ScaledError
from emulator.parallel.space import ALONE, Space


class EnsembleError(nn.Module):
    """A proper score of the members of every sample, area and channels weighted as `ScaledError` does.

    Without spread, the CRPS is the absolute error (`ScaledError` of kind "l1") and the energy score the root of the squared
    one, so that predicting "no change" scores about the mean channel weight or less.

    Args:
      error: what gives scales and weights: of kind "l1" for the CRPS, of kind "mse" for the energy score.
      kind: "crps" (of every value) or "energy" (of whole states). members: of a sample, 2 or more.
      space: the processes that hold a state together, each of which gives its part. alpha: of the almost-fair score.
    Raises `ValueError` for another kind or fewer members.
    """

    def __init__(self, error: ScaledError, kind: str, members: int, space: Space = ALONE, alpha: float = 1.0):
        super().__init__()
        wanted = {"crps": "l1", "energy": "mse"}.get(kind)
        if error.kind != wanted or members < 2:
            raise ValueError(
                f"Expected crps of an l1 error or energy of an mse error, and 2 members or more, got {kind!r} of "
                f"{error.kind!r} with {members} members"
            )
        self.kind, self.members, self.space, self.alpha = kind, members, space, alpha
        weight = error.factor * error.unit if kind == "crps" else error.factor
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, state: Tensor, diagnostic: Tensor, true_state: Tensor, true_diagnostic: Tensor) -> Tensor:
        """Mean over the samples; all `(sample * members, channel, *space)`, the truth the same for a sample's members."""
        values = torch.cat([state, diagnostic], 1).unflatten(0, (-1, self.members)).transpose(0, 1)
        truth = torch.cat([true_state[:: self.members], true_diagnostic[:: self.members]], 1)
        if self.kind == "energy":
            return fair_energy_score(values, truth, self.weight, self.space, self.alpha).mean() / self.space.size
        return (fair_crps(values, truth, self.alpha) * self.weight).sum() / len(truth)


def spread_share(count: int, alpha: float = 1.0) -> float:
    """What the distances of members count by in an almost-fair score, over what they do in the fair one."""
    return 1 - (1 - alpha) / count


def fair_crps(members: Tensor, truth: Tensor, alpha: float = 1.0) -> Tensor:
    """Fair CRPS of every value: `(member, *shape)` and `(*shape)` to `(*shape)`; with `alpha` below 1 the almost-fair one.

    Raises `ValueError` below 2 members.
    """
    count = _count(members, truth)
    skill = (members - truth).abs().mean(0)
    if count == 2:  # 6 times as fast as sorting, and members that are equal get no gradient from one another
        return skill - (members[0] - members[1]).abs() / 2 * spread_share(2, alpha)
    # sum over pairs of sorted members: each counts once for every member below it, and once less for every one above
    ordered = members.sort(dim=0).values
    rank = torch.arange(count, device=members.device, dtype=members.dtype)
    factor = (2 * rank - count + 1).view(-1, *[1] * truth.dim())
    return skill - (factor * ordered).sum(0) / (count * (count - 1)) * spread_share(count, alpha)


def fair_energy_score(
    members: Tensor, truth: Tensor, weight: Tensor, space: Space = ALONE, alpha: float = 1.0
) -> Tensor:
    """Fair energy score of every sample, `(batch,)`.

    Args:
      members: `(member, batch, channel, *space)`. truth: `(batch, channel, *space)`.
      weight: `(channel, *space)`: area shares times channel weights over squared scales, as `ScaledError.factor`.
      space: the processes whose rows make up the fields; all get the score. alpha: below 1 of the almost-fair score.
    """
    count = _count(members, truth)

    def norm(difference):
        return space.total((difference.square() * weight).flatten(-weight.dim()).sum(-1)).clamp(min=1e-24).sqrt()

    skill = norm(members - truth).mean(0)
    spread = sum(norm(members[i] - members[j]) for i in range(count) for j in range(i))
    return skill - spread / (count * (count - 1)) * spread_share(count, alpha)


def _count(members: Tensor, truth: Tensor) -> int:
    if members.shape[1:] != truth.shape or len(members) < 2:
        raise ValueError(
            f"Expected 2 members or more of the truth's shape {tuple(truth.shape)}, got {tuple(members.shape)}"
        )
    return len(members)


@loss("crps", LossOptions, bands=True)
def crps(options, weighted):
    return EnsembleError(weighted.error("l1"), "crps", options.members, alpha=options.alpha)


@loss("energy", LossOptions, bands=True)
def energy(options, weighted):
    return EnsembleError(weighted.error("mse"), "energy", options.members, weighted.space, options.alpha)
