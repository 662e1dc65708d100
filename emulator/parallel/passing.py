"""Things that pass from process to process, such as cells that are shared out in another way: none is lost or comes twice."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from emulator.parallel.space import Space


class Passing(nn.Module):
    """A set of things of which every process has some, from one sharing and order to another, and back.

    Args:
      space: the processes.
      before, after: of every rank the numbers of the things that it has, in its order; each thing is with one process.
    """

    def __init__(self, space: Space, before: Sequence[np.ndarray], after: Sequence[np.ndarray]):
        super().__init__()
        self.space, me = space, space.rank
        sender, receiver = _process_of(before), _process_of(after)
        send = np.argsort(receiver[before[me]], kind="stable")  # by the process that they go to
        arriving = np.concatenate([part[receiver[part] == me] for part in before])
        at = np.empty(len(sender), np.int64)
        at[arriving] = np.arange(len(arriving))
        place = at[after[me]]
        self.sent, self.received = (
            np.bincount(process[own[me]], minlength=space.size).tolist()
            for process, own in ((receiver, before), (sender, after))
        )
        tables = {"place": place, "unplace": np.argsort(place)}
        if space.size > 1:
            tables |= {"send": send, "unsend": np.argsort(send)}
        for name, table in tables.items():
            self.register_buffer(name, torch.from_numpy(table), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(own before, *rest)` -> `(own after, *rest)`."""
        return moved(x, self.place, self.unplace) if self.space.size == 1 else _Passed.apply(x, self, False)

    def back(self, x: torch.Tensor) -> torch.Tensor:
        """The inverse, which is the transpose."""
        return moved(x, self.unplace, self.place) if self.space.size == 1 else _Passed.apply(x, self, True)


def moved(x: torch.Tensor, order: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """Rows in another order, and gradients back by the inverse one, another tensor: no sums in any order."""
    return _Moved.apply(x, order, inverse)


class _Moved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, order, inverse):
        ctx.save_for_backward(order, inverse)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx, g):
        order, inverse = ctx.saved_tensors
        return _Moved.apply(g, inverse, order), None, None


class _Passed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, passing, back):
        ctx.how = passing, back
        if back:
            x = passing.space.exchanged(x.index_select(0, passing.unplace), passing.received, passing.sent)
            return x.index_select(0, passing.unsend)
        x = passing.space.exchanged(x.index_select(0, passing.send), passing.sent, passing.received)
        return x.index_select(0, passing.place)

    @staticmethod
    def backward(ctx, g):
        passing, back = ctx.how
        return _Passed.apply(g, passing, not back), None, None


def _process_of(shares):
    """Of every thing the process that has it."""
    found = np.empty(sum(len(share) for share in shares), np.int64)
    for rank, share in enumerate(shares):
        found[share] = rank
    return found
