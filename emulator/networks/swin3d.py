"""A U-Net of Swin transformer blocks over levels, rows and columns of tokens, as in Aurora (Bodnar et al. 2025).

Tokens are `(batch, token, channel)`, in the order of levels, rows and columns. Levels stay as many; rows and columns halve.
Of several processes each has the tokens of a band of rows on every stage.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from emulator.kernels.compiled import Layout
from emulator.kernels.layers import row_norm_backward, row_norm_forward
from emulator.kernels.library import takes
from emulator.networks.attention import attention
from emulator.networks.conditions import NoiseModulation
from emulator.networks.dropout import DropPath
from emulator.networks.edges import SPHERE, Edges
from emulator.networks.halos import Rows
from emulator.networks.layers import MLP, Linear
from emulator.networks.windows3d import Size, Windows
from emulator.parallel.space import ALONE, Space

EPS = 1e-5  # of the norms' variances, torch's default


@dataclasses.dataclass(frozen=True)
class SwinDesign:
    """What the stages of a U-Net have in common.

    Attributes:
      window: tokens of a window, in levels, rows and columns. context: channels of what conditions the norms.
      mlp_ratio: hidden width of a block's perceptron over its width. noise: fields of noise, 0 for none.
      checkpointing: whether blocks are computed again in the backward pass.
    """

    window: Size
    context: int
    mlp_ratio: float = 4.0
    noise: int = 0
    checkpointing: bool = False


class AdaptiveNorm(nn.Module):
    """Layer norm whose scale and shift are a linear map of a context; both start at zero, and so does what it gives."""

    def __init__(self, width: int, context: int):
        super().__init__()
        self.modulation = nn.Linear(context, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: torch.Tensor, context: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
        """`(batch, token, width)` and `(batch, context)` -> `(batch, token, width)`, added to `onto` where that is given."""
        modulation = self.modulation(F.silu(context))
        if onto is not None and takes(x, modulation, onto, fits=not x.shape[-1] % Layout.LANES):
            return _OntoNorm.apply(x, modulation, onto)
        x = self._normal(x, modulation)
        return x if onto is None else onto + x

    @staticmethod
    def _normal(x, modulation):
        if len(x) == 1:  # the norm and its gradients are fused with them
            shift, scale = modulation[0].to(x.dtype).chunk(2)
            return F.layer_norm(x, x.shape[-1:], scale, shift)
        x = F.layer_norm(x, x.shape[-1:])
        shift, scale = modulation[:, None].to(x.dtype).chunk(2, -1)
        return torch.addcmul(shift, x, scale)


class _OntoNorm(torch.autograd.Function):
    """Norm, scale, shift and sum in one pass each way."""

    @staticmethod
    def forward(ctx, x, modulation, onto):
        x, modulation, onto = x.contiguous(), modulation.contiguous(), onto.contiguous()
        y, moments = row_norm_forward(x, modulation, onto, EPS)
        ctx.save_for_backward(x, modulation, moments)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return *row_norm_backward(g.contiguous(), *ctx.saved_tensors), g


class Block(nn.Module):
    """Attention within windows, then a perceptron, each normalised and then added to what it took."""

    def __init__(self, width: int, heads: int, windows: Windows, design: SwinDesign, drop_path: float):
        super().__init__()
        self.heads, self.windows = heads, windows
        self.query_key_value, self.out = Linear(width, 3 * width), Linear(width, width)
        self.mlp = MLP((width, int(width * design.mlp_ratio), width))
        self.norm, self.mlp_norm = AdaptiveNorm(width, design.context), AdaptiveNorm(width, design.context)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """`(batch, token, width)` -> the same."""
        if self.drop_path.active:
            x = x + self._dropped(self.norm(self._attended(x), context))
            return x + self._dropped(self.mlp_norm(self.mlp(x), context))
        x = self.norm(self._attended(x), context, x)
        return self.mlp_norm(self.mlp(x), context, x)

    def _attended(self, x):
        windows, barrier, batch = self.windows, self.windows.barrier, len(x)
        x = self.query_key_value(windows.split(x))
        count, width = batch * (x.shape[1] // windows.tokens), x.shape[-1] // (3 * self.heads)
        read = attention(x.view(count, windows.tokens, 1, 3, self.heads, width), bias=barrier)
        return windows.join(self.out(read.view(*x.shape[:2], self.heads * width)))

    def _dropped(self, x):
        return self.drop_path(x.transpose(0, 1)).transpose(0, 1)


class Stage(nn.Module):
    """Blocks on one resolution, every second one with its windows shifted.

    Args:
      tokens: of the stage. drop_paths: the probability that a block is left out, of each block.
    """

    def __init__(self, width: int, heads: int, tokens: "Tokens", drop_paths: Sequence[float], design: SwinDesign):
        super().__init__()
        if width % heads:
            raise ValueError(f"Expected a width in a multiple of {heads} heads, got {width}")
        held = tokens.space, tokens.bounds, tokens.edges
        windows = [Windows(tokens.shape, design.window, shifted, *held) for shifted in (False, True)]
        self.blocks = nn.ModuleList(
            Block(width, heads, windows[n % 2], design, drop) for n, drop in enumerate(drop_paths)
        )
        self.noise = NoiseModulation(design.noise, width) if design.noise else None
        self.checkpointing = design.checkpointing

    def forward(self, x: torch.Tensor, context: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """`(batch, token, width)`, a context and noise `(batch, token, field)` -> `(batch, token, width)`."""
        x = x if noise is None else self.noise(x, noise)
        for block in self.blocks:
            saving = self.checkpointing and torch.is_grad_enabled()
            x = checkpoint(block, x, context, use_reentrant=False) if saving else block(x, context)
        return x


class Tokens(NamedTuple):
    """The tokens of a stage.

    Attributes:
      shape: all levels, rows and columns. space: the processes. bounds: of their bands of rows, `(size + 1,)`.
      edges: what lies beyond the first and last of them.
    """

    shape: Size
    space: Space
    bounds: tuple[int, ...]
    edges: Edges

    @classmethod
    def of(cls, shape: Size, space: Space = ALONE, edges: Edges = SPHERE) -> "Tokens":
        """Shared out evenly."""
        return cls(shape, space, space.bounds(shape[1]), edges)

    @property
    def own(self) -> Size:
        """Levels, rows and columns of this process."""
        start, stop = self.bounds[self.space.rank : self.space.rank + 2]
        return self.shape[0], stop - start, self.shape[2]

    def halved(self) -> "Tokens":
        """Those of the next stage, whose rows are where the first of their two is."""
        levels, rows, columns = self.shape
        bounds = tuple(-(-bound // 2) for bound in self.bounds)
        return Tokens((levels, -(-rows // 2), -(-columns // 2)), self.space, bounds, self.edges)

    def rows(self, wanted: Sequence[range]) -> Rows | None:
        """What fetches tokens of those rows for every rank; None where each has its own."""
        rows = Rows(self.space, self.bounds, wanted, self.edges)
        return None if rows.as_they_are else rows


def with_rows(x: torch.Tensor, own: Size, rows: Rows | None) -> torch.Tensor:
    """`(batch, token, channel)` of own levels, rows and columns -> `(batch, level, row, column, channel)`, rows fetched."""
    x = x.unflatten(1, own)
    if rows is None:
        return x
    maps = rows(x.flatten(0, 1).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last))
    return maps.permute(0, 2, 3, 1).unflatten(0, (-1, own[0]))


class Merging(nn.Module):
    """Two by two tokens to one of twice the channels.

    The row that an odd number lacks is the last one half a turn on, which lies beyond the pole; the column is the first one.
    On a region the last ones are repeated.
    """

    def __init__(self, width: int, tokens: Tokens):
        super().__init__()
        self.own, self.odd = tokens.own, tokens.shape[2] % 2
        self.after = slice(0, 1) if tokens.edges.round else slice(-1, None)  # the column that an odd number lacks
        pairs = itertools.pairwise(tokens.halved().bounds)
        self.rows = tokens.rows([range(2 * start, 2 * stop) for start, stop in pairs])
        self.norm = nn.LayerNorm(4 * width)
        self.linear = Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, token, width)` -> `(batch, token / 4, 2 width)`."""
        return self.linear(self.norm(self.gathered(x).flatten(-2).flatten(1, 3)))

    def means(self, x: torch.Tensor) -> torch.Tensor:
        """Means of the merged tokens, for fields that go along."""
        return self.gathered(x).mean(-2).flatten(1, 3)

    def gathered(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, level, row / 2, column / 2, 4, channel)`, of the four those of the northern row first."""
        x = with_rows(x, self.own, self.rows)
        if self.odd:
            x = torch.cat([x, x[:, :, :, self.after]], 3)
        x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
        return x.transpose(3, 4).flatten(4, 5)


class Splitting(nn.Module):
    """One token to two by two of half the channels, back to the shape that was merged."""

    def __init__(self, width: int, tokens: Tokens):
        super().__init__()
        self.own, coarser = tokens.own, tokens.halved()
        self.coarse, self.start = coarser.own, tokens.bounds[tokens.space.rank] % 2
        pairs = itertools.pairwise(tokens.bounds)
        self.rows = coarser.rows([range(start // 2, -(-stop // 2)) for start, stop in pairs])
        self.first = Linear(2 * width, 4 * width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.second = Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, token / 4, 2 width)` -> `(batch, token, width)`."""
        _, rows, columns = self.own
        x = self.first(with_rows(x, self.coarse, self.rows)).unflatten(-1, (2, 2, -1))
        x = x.transpose(3, 4).flatten(4, 5).flatten(2, 3)[:, :, self.start : self.start + rows, :columns]
        return self.second(self.norm(x).flatten(1, 3))


class Stages(NamedTuple):
    """The parts of a U-Net, lists of modules, so that a network can hold each by itself."""

    down: nn.ModuleList
    merge: nn.ModuleList
    split: nn.ModuleList
    up: nn.ModuleList


def make_stages(
    width: int,
    shape: Size,
    depths: tuple[Sequence[int], Sequence[int]],
    heads: Sequence[int],
    design: SwinDesign,
    drop_path: float = 0.0,
    space: Space = ALONE,
    edges: Edges = SPHERE,
) -> Stages:
    """Stages down to coarser tokens and up again.

    Args:
      width: of the first stage; it doubles from stage to stage. shape: tokens of the first stage.
      depths: blocks of the stages on the way down, and on the way up from the coarsest. heads: on the way down.
      drop_path: probability that the last block of either way is left out; it rises linearly.
      space: the processes that hold the tokens together. edges: what lies beyond them.
    Raises `ValueError` for fewer than two stages, too few tokens or rows for the processes, and heads that do not divide a
    width.
    """
    down, up = depths
    if not 2 <= len(down) == len(up) == len(heads):
        raise ValueError(
            f"Expected blocks and heads of 2 stages or more, as many down as up, got {down}, {up}, {heads}"
        )
    tokens = [Tokens.of(shape, space, edges)]
    for _ in down[1:]:
        if min(tokens[-1].shape[1:]) < 2:
            raise ValueError(f"Expected {len(down) - 1} halvings of the patches, got {shape[1]} x {shape[2]} of them")
        tokens.append(tokens[-1].halved())
    if (last := tokens[-1].shape[1]) < space.size:
        raise ValueError(
            f"Expected patches in a row for each of {space.size} processes in the last stage, got {last} rows"
        )
    widths = [width * 2**n for n in range(len(down))]

    def stages(counts, order):
        last = max(sum(counts) - 1, 1)
        rates = iter([drop_path * n / last for n in range(sum(counts))])
        return nn.ModuleList(
            Stage(widths[n], heads[n], tokens[n], [next(rates) for _ in range(count)], design)
            for n, count in zip(order, counts, strict=True)
        )

    return Stages(
        stages(down, range(len(down))),
        nn.ModuleList(Merging(*pair) for pair in zip(widths[:-1], tokens[:-1], strict=True)),
        nn.ModuleList(Splitting(*pair) for pair in zip(widths[:-1], tokens[:-1], strict=True)),
        stages(up, reversed(range(len(down)))),
    )


def run_stages(
    stages: Stages, x: torch.Tensor, context: torch.Tensor, noise: torch.Tensor | None = None
) -> torch.Tensor:
    """`(batch, token, width)` -> `(batch, token, 2 width)`: what leaves the last stage, joined by what left the first.

    Of the skips across, the one at the coarsest but one is left out, as in the published network. `noise`: `(batch, token,
    field)`, of which coarser stages see means.
    """
    kept, noises, last = [], [noise], len(stages.merge)
    for n, stage in enumerate(stages.down):
        if n:
            merge = stages.merge[n - 1]
            x = merge(x)
            noises.append(None if noise is None else merge.means(noises[-1]))
        x = stage(x, context, noises[n])
        kept.append(x)
    for n, stage in zip(reversed(range(last + 1)), stages.up, strict=True):
        if n < last:
            x = stages.split[n](x)
            x = x + kept[n] if n < last - 1 else x
        x = stage(x, context, noises[n])
    return torch.cat([x, kept[0]], -1)
