"""One state over several processes: bands of latitude, and how the parts meet.

Every process of a `Space` holds a band of whole rows, from north to south in order of rank; where the rows do not divide,
the first bands have one more. Weights are the same on all. What a process computes adds to what the others compute: a
global mean or a loss is the sum of the parts (`Space.total`), and a gradient by a weight likewise. All of them call the same
functions in the same order, as for any collective operation. A space of one process leaves everything as it is.

With every process's loss defined as its own part, a backward pass gives each its part of the gradient; so the gradient of a
sum over processes, which all of them take in, is the sum of what each hands back (`_Total`), and that of an exchange is the
exchange backwards.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from emulator.planet.grid import Grid


class Space:
    """The processes that hold one state together.

    Args:
      group: of `torch.distributed`; None: this process alone.
    """

    def __init__(self, group: dist.ProcessGroup | None = None):
        self.group = group
        self.size = 1 if group is None else dist.get_world_size(group)
        self.rank = 0 if group is None else dist.get_rank(group)

    @classmethod
    def imagined(cls, size: int, rank: int = 0) -> "Space":
        """One of so many processes that are not there, to see what fits them and what it holds.

        Sums and maxima are of its own part alone, and what the others would send is zero.
        """
        space = cls()
        space.size, space.rank = size, rank
        return space

    def bounds(self, rows: int) -> tuple[int, ...]:
        """Where the bands of `rows` rows begin, and the last ends, `(size + 1,)`.

        Raises `ValueError` for fewer rows than processes.
        """
        if rows < self.size:
            raise ValueError(f"Expected at least a row for each of {self.size} processes, got {rows} rows")
        return even_bounds(rows, self.size)

    def band(self, rows: int) -> slice:
        """The rows of this process."""
        bounds = self.bounds(rows)
        return slice(bounds[self.rank], bounds[self.rank + 1])

    def cut(self, field: Tensor, dim: int = -2) -> Tensor:
        """The rows of this process, of a whole field."""
        if self.size == 1:
            return field
        band = self.band(field.shape[dim])
        return field.narrow(dim, band.start, band.stop - band.start).contiguous()

    def total(self, part: Tensor) -> Tensor:
        """The sum of all processes' parts, the same bits on each; gradients come back."""
        return part if self.group is None else _Total.apply(part, self.group)

    def highest(self, part: Tensor) -> Tensor:
        """The largest of all processes' parts, element by element; without gradients."""
        if self.group is None:
            return part
        found = part.detach().clone()
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.group)
        return found

    def whole(self, band: Tensor, rows: int, dim: int = -2) -> Tensor:
        """All rows of a field of which each process has a band along `dim`, on each; without gradients."""
        if self.size == 1:
            return band
        own, bounds = band.detach().movedim(dim, 0).contiguous(), self.bounds(rows)
        parts = [own.new_empty(stop - start, *own.shape[1:]) for start, stop in itertools.pairwise(bounds)]
        longest = max(len(part) for part in parts)  # gathered parts have to be of one shape
        padded = torch.cat([own, own.new_zeros(longest - len(own), *own.shape[1:])])
        received = [torch.empty_like(padded) for _ in parts]
        dist.all_gather(received, padded, group=self.group)
        return torch.cat([r[: len(part)] for r, part in zip(received, parts, strict=True)]).movedim(0, dim)

    def exchanged(self, x: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
        """Rows in order of the process that they go to -> rows in order of the one they come from; without gradients."""
        return x if self.size == 1 else _exchange(x, sent, received, self.group)

    def __deepcopy__(self, memo) -> "Space":
        return self  # the processes are the same ones

    def turned(self, x: Tensor, inner: Sequence[int], outer: Sequence[int]) -> Tensor:
        """From a share of the first axis and all of the second to all of the first and a share of the second.

        Args:
          x: `(own, all, *rest)`: of the first axis what `outer` gives this process.
          inner, outer: bounds of the shares of the second and of the first axis, `(size + 1,)` each.

        Returns `(all, own, *rest)`. `turned_back` is its inverse and its transpose.
        """
        return x if self.size == 1 else _Turned.apply(x, tuple(inner), tuple(outer), self)

    def turned_back(self, x: Tensor, inner: Sequence[int], outer: Sequence[int]) -> Tensor:
        """`(all, own, *rest)` to `(own, all, *rest)`; see `turned`."""
        return x if self.size == 1 else _TurnedBack.apply(x, tuple(inner), tuple(outer), self)


ALONE = Space()


def band_of(grid: Grid, space: Space) -> slice | None:
    """The rows of a grid that are this process's; None: all of them, of any grid, where it is alone.

    Raises `ValueError` for a grid whose cells lie in no rows, or in too few.
    """
    if space.size == 1:
        return None
    if not grid.has_rows:
        raise ValueError(
            f"Expected rows of latitude to share out to {space.size} processes (parallel.space), got {grid.describe()}"
        )
    return space.band(len(grid.latitude))


def even_bounds(count: int, parts: int) -> tuple[int, ...]:
    """Bounds of `parts` shares of `count` things that differ by one at most, the larger first, `(parts + 1,)`."""
    least, more = divmod(count, parts)
    return tuple(n * least + min(n, more) for n in range(parts + 1))


class Fetch(nn.Module):
    """What a process needs of a set of things, such as rows or nodes, of which each process holds a share.

    Args:
      space: the processes.
      bounds: of the shares in the numbering of the whole set, `(size + 1,)`.
      needed: of a rank, the numbers that it needs, in the order and as often as it needs them. Each process asks it for
        every rank, so that nobody has to be told what others need.
    """

    def __init__(self, space: Space, bounds: Sequence[int], needed: Callable[[int], np.ndarray]):
        super().__init__()
        self.space, me = space, space.rank
        edges = np.asarray(bounds)
        asked = [np.unique(needed(rank)) for rank in range(space.size)]  # each thing comes once

        def of(rank: int, owner: int) -> np.ndarray:
            return asked[rank][(asked[rank] >= edges[owner]) & (asked[rank] < edges[owner + 1])]

        send = [of(rank, me) - edges[me] for rank in range(space.size)]
        self.sent = [len(part) for part in send]
        self.received = [len(of(me, owner)) for owner in range(space.size)]
        # unique numbers come sorted, which is in order of owner
        place = np.searchsorted(asked[me], needed(me))
        self.register_buffer("send", torch.from_numpy(np.concatenate(send)), persistent=False)
        self.register_buffer("place", torch.from_numpy(place), persistent=False)

    def forward(self, own: Tensor) -> Tensor:
        """`(own share, *rest)` -> `(needed, *rest)`; gradients of things that several need add up."""
        sending = own.index_select(0, self.send)
        if self.space.size > 1:
            sending = _Exchanged.apply(sending, self.sent, self.received, self.space.group)
        return sending.index_select(0, self.place)

    def add_back(self, gradient: Tensor, own: Tensor) -> Tensor:
        """Adds to `own`, `(own share, *rest)`, what goes back of `(needed, *rest)`: for gradients that are written out."""
        sending = gradient.new_zeros(sum(self.received), *gradient.shape[1:]).index_add_(0, self.place, gradient)
        if self.space.size > 1:
            sending = _exchange(sending, self.received, self.sent, self.space.group)
        return own.index_add_(0, self.send, sending)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx, part, group):
        ctx.group = group
        total = part.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx, gradient):
        return _Total.apply(gradient, ctx.group), None


class _Exchanged(torch.autograd.Function):
    """Rows in order of the process that they go to -> rows in order of the process that they come from."""

    @staticmethod
    def forward(ctx, x, sent, received, group):
        ctx.counts, ctx.group = (sent, received), group
        return _exchange(x, sent, received, group)

    @staticmethod
    def backward(ctx, gradient):
        sent, received = ctx.counts
        return _Exchanged.apply(gradient, received, sent, ctx.group), None, None, None


def _exchange(x: Tensor, sent: Sequence[int], received: Sequence[int], group) -> Tensor:
    out, x = x.new_empty(sum(received), *x.shape[1:]), x.contiguous()
    if group is None:  # imagined processes
        return out.zero_()
    dist.all_to_all_single(out, x, list(received), list(sent), group=group)
    return out


class _Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, inner, outer, space):
        ctx.how = inner, outer, space
        rows, rest = len(x), x.shape[2:]
        packed = torch.cat([x[:, start:stop].flatten() for start, stop in itertools.pairwise(inner)])
        own, each = inner[space.rank + 1] - inner[space.rank], rest.numel()
        sent = [rows * (stop - start) * each for start, stop in itertools.pairwise(inner)]
        received = [(stop - start) * own * each for start, stop in itertools.pairwise(outer)]
        return _exchange(packed, sent, received, space.group).view(outer[-1], own, *rest)

    @staticmethod
    def backward(ctx, gradient):
        return _TurnedBack.apply(gradient, *ctx.how), None, None, None


class _TurnedBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, inner, outer, space):
        ctx.how = inner, outer, space
        own, rest = x.shape[1], x.shape[2:]
        rows, each = outer[space.rank + 1] - outer[space.rank], rest.numel()
        sent = [(stop - start) * own * each for start, stop in itertools.pairwise(outer)]
        received = [rows * (stop - start) * each for start, stop in itertools.pairwise(inner)]
        flat = _exchange(x.flatten(), sent, received, space.group)
        parts = [
            part.view(rows, stop - start, *rest)
            for part, (start, stop) in zip(flat.split(received), itertools.pairwise(inner), strict=True)
        ]
        return torch.cat(parts, 1)

    @staticmethod
    def backward(ctx, gradient):
        return _Turned.apply(gradient, *ctx.how), None, None, None
