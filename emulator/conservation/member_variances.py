"""Error variances of a projection from the spread of an ensemble's members, cell by cell and level by level.

What members disagree about is their change over the step, or a flux that is a mean over it: the counterpart of
`difference_std`, with which a step's variances are made. The states' own spread is mostly that of the step's start, which
every member's budget takes as known.

Few members tell a variance badly, so theirs are shrunk towards what the step's variance would be in the same cell, brought to
the members' mean over the level. With `s^2` the members' unbiased variance, `v` the step's and `a = <s^2> / <v>`,

    S = (1 - w) s^2 + w a v,        w = min(1, <2 s^4 / (M + 1)> / <(s^2 - a v)^2>)

which has the least mean square error among such mixtures (Schaefer and Strimmer 2005, Stat. Appl. Genet. Mol. Biol. 4, 32;
Opgen-Rhein and Strimmer 2007, ibid. 6, 9, for variances alone). `2 s^4 / (M + 1)` is the unbiased estimate of the variance
of `s^2` from M Gaussian members; theirs, free of a distribution, is 0 for two members.
"""

import torch
from torch import Tensor

from emulator.conservation.cells import Cells
from emulator.conservation.newton import TINY

# Ratios to the step's variance lie between this and its inverse, a tenth of its deviation and ten times it: no cell is out of
# reach or takes it all, and of members that are all the same the step's variances are left.
LEAST = 1e-2


def ratios(values: Tensor, step: Tensor, members: int, cells: Cells) -> Tensor:
    """What a step's error variance is multiplied by to be that of the members: `(start, [level,] *space)`.

    Args:
      values: what members disagree about, `(start and member, [level,] *space)`, those of a start one after the other.
      step: the step's variance, units squared, broadcasting to `values`.
      members: of a start, 2 or more.
      cells: of the fields.

    `LEAST` where the step's variance is 0 and nothing moves. What a start's are does not depend on others in the batch. No
    gradient goes through it.
    """
    with torch.no_grad():
        each = values.unflatten(0, (-1, members)).unbind(1)
        mean = sum(each) / members
        # float64: one member that runs away would pass float32's range, and take the others with it
        own = sum((one - mean).to(torch.float64).square() for one in each) / (members - 1)
        if step.ndim == values.ndim and len(step) == len(values):
            step = sum(step.unflatten(0, (-1, members)).unbind(1)) / members
        own, step = cells.existing(own), cells.existing(step.to(torch.float64).expand_as(own))
        scale = cells.mean_by_level(own) / (cells.mean_by_level(step) + TINY)
        uncertain = 2 / (members + 1) * cells.mean_by_level(own.square())
        apart = cells.mean_by_level((own - scale * step).square())
        weight = (uncertain / apart).nan_to_num(nan=1.0).clamp(max=1)
        ratio = torch.where(step > 0, (1 - weight) * own / step + weight * scale, 0.0)
        return ratio.clamp(LEAST, 1 / LEAST).to(values.dtype)
