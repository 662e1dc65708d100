"""Windows of levels, rows and columns of tokens on the sphere, between whose tokens attention passes (Swin; Liu et al. 2021).

Columns go round. What a shift brings together from the bottom and the top level, or from both poles, is kept apart, as in
Aurora; so are the rows that fill up the last windows. The columns that do so are the first ones again. On a region, whose
columns end, those are kept apart as rows are.

Several processes have a band of rows of the tokens each, and about as many whole windows; tokens go there and come back.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from emulator.networks.edges import SPHERE, Edges
from emulator.parallel.space import ALONE, Fetch, Space, even_bounds

Size = tuple[int, int, int]  # levels, rows, columns


class Windows(nn.Module):
    """A partition of tokens into windows, by tables of which token lies where.

    Args:
      shape: tokens, in levels, rows and columns. window: tokens of a window; no more than there are, and then unshifted.
      shifted: whether windows lie half a window further down, south and east.
      space: processes that hold the tokens together. bounds: of their bands of rows, `(size + 1,)`.
      edges: whether columns go round.
    Raises `ValueError` for levels that are no whole windows.

    Attributes:
      tokens: of a window.
      barrier: of the own windows, `(windows, 1, token, token)`, 0 where one listens to another in a window, else minus
        infinity; None: all listen to all. Numbers in place of flags, which attention would make into such at every call, for
        the time of its products.
    """

    def __init__(
        self,
        shape: Size,
        window: Size,
        shifted: bool,
        space: Space = ALONE,
        bounds: Sequence[int] | None = None,
        edges: Edges = SPHERE,
    ):
        super().__init__()
        window = tuple(min(w, n) for w, n in zip(window, shape, strict=True))
        if shape[0] % window[0]:
            raise ValueError(f"Expected latent levels in a multiple of the window's {window[0]}, got {shape[0]}")
        shift = [w // 2 if shifted and w < n else 0 for w, n in zip(window, shape, strict=True)]
        place = [np.arange(-(-n // w) * w) for w, n in zip(window, shape, strict=True)]
        level, row, column = ((p + by) % n for p, by, n in zip(place, shift, shape, strict=True))
        source = (level[:, None, None] * shape[1] + row[:, None]) * shape[2] + column
        own = np.broadcast_to((place[1] < shape[1])[:, None] & (place[2] < shape[2]), source.shape)
        # from the other side of a shift, and from beyond it: groups that do not listen to each other
        under = (place[0] >= shape[0] - shift[0]).astype(int)
        south, east = ((place[n] >= shape[n] - shift[n]).astype(int) + (place[n] >= shape[n]) for n in (1, 2))
        east = east * (not edges.round)
        group = (3 * under[:, None, None] + south[:, None]) * 3 + east
        source, own, group = (_partition(table, window) for table in (source, own, group))
        of_token = np.empty(shape[0] * shape[1] * shape[2], int)
        of_token[source[own]] = own.nonzero()[0]
        self.tokens = window[0] * window[1] * window[2]
        self.onto = self.back = None
        if space.size > 1:
            counts = [len(p) // w for p, w in zip(place, window, strict=True)]
            bands = _bands(shape, bounds or space.bounds(shape[1]))
            group = self._share(space, counts, bands, source, of_token, group)
        tables = {} if self.onto else {"source": source, "place": of_token, "filled": (~own).nonzero()[0]}
        if not self.onto:
            tables["again"] = (~own & (group // 3 % 3 < 2) & edges.round).nonzero()[0]
        for name, table in tables.items():
            self.register_buffer(name, torch.from_numpy(table), persistent=False)
        group = group.reshape(-1, 1, self.tokens)
        barrier = np.where(group[..., :, None] == group[..., None, :], 0, -np.inf).astype(np.float32)
        self.register_buffer("barrier", torch.from_numpy(barrier) if barrier.any() else None, persistent=False)

    def _share(self, space, counts, bands, source, of_token, group):
        """Whole windows for every process, from north to south as the bands are; returns the groups of the own ones."""
        southward = np.arange(np.prod(counts)).reshape(counts).transpose(1, 0, 2).ravel()
        shares = [n * self.tokens for n in even_bounds(len(southward), space.size)]
        source, group = (table.reshape(-1, self.tokens)[southward].ravel() for table in (source, group))
        window, within = np.divmod(of_token, self.tokens)
        of_token = np.argsort(southward)[window] * self.tokens + within
        number = np.empty(len(of_token), int)  # of tokens as they lie in the bands
        number[np.concatenate(bands)] = np.arange(len(number))
        ends = np.cumsum([0] + [len(band) for band in bands])
        self.onto = Fetch(space, ends, lambda rank: number[source[shares[rank] : shares[rank + 1]]])
        self.back = Fetch(space, shares, lambda rank: of_token[bands[rank]])
        return group[shares[space.rank] : shares[space.rank + 1]]

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, token, channel)` in the order of levels, own rows and columns -> in that of the windows, filled up."""
        if self.onto is not None:
            return self.onto(x.transpose(0, 1)).transpose(0, 1).contiguous()
        return _Split.apply(x, self.source, self.place, self.again, self.filled)

    def join(self, x: torch.Tensor) -> torch.Tensor:
        """The way back."""
        if self.back is not None:
            return self.back(x.transpose(0, 1)).transpose(0, 1)
        return _Join.apply(x, self.source, self.place, self.again, self.filled)


def _bands(shape: Size, bounds: Sequence[int]) -> list[np.ndarray]:
    """The tokens of every process, in the order of levels, own rows and columns."""
    tokens = np.arange(shape[0] * shape[1] * shape[2]).reshape(shape)
    return [tokens[:, start:stop].ravel() for start, stop in itertools.pairwise(bounds)]


def _partition(table: np.ndarray, window: Size) -> np.ndarray:
    """`(level, row, column)` of whole windows, flat, window by window."""
    (a, b, c), (i, j, k) = table.shape, window
    return table.reshape(a // i, i, b // j, j, c // k, k).transpose(0, 2, 4, 1, 3, 5).ravel()


class _Split(torch.autograd.Function):
    """Both ways are copies of rows, where the gradient of `index_select` would add them up one by one.

    Each is the other's gradient but for rows that fill up. No gradient comes from these, since nobody listens to them; only
    from columns that are there again.
    """

    @staticmethod
    def forward(ctx, x, source, place, again, filled):
        ctx.save_for_backward(source, place, again, filled)
        return x.index_select(1, source)

    @staticmethod
    def backward(ctx, g):
        source, place, again, filled = ctx.saved_tensors
        g_x = _Join.apply(g, source, place, again, filled)
        if len(again):  # columns that are there twice and no more, so that the order of the sum does not matter
            g_x.index_add_(1, source.index_select(0, again), g.index_select(1, again))
        return g_x, None, None, None, None


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, source, place, again, filled):
        ctx.save_for_backward(source, place, again, filled)
        return x.index_select(1, place)

    @staticmethod
    def backward(ctx, g):
        tables = ctx.saved_tensors
        g_x, filled = _Split.apply(g, *tables), tables[-1]
        return g_x.index_fill_(1, filled, 0) if len(filled) else g_x, None, None, None, None
