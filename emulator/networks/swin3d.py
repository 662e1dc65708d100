"""A U-Net of Swin transformer blocks over levels, rows and columns of tokens, as in Aurora (Bodnar et al. 2025).

Tokens are `(batch, token, channel)`, in the order of levels, rows and columns. Levels stay as many; rows and columns halve.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from emulator.networks.conditions import NoiseModulation
from emulator.networks.layers import MLP, DropPath, Linear
from emulator.networks.windows3d import Size, Windows


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

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """`(batch, token, width)` and `(batch, context)` -> `(batch, token, width)`."""
        shift, scale = self.modulation(F.silu(context))[:, None].chunk(2, -1)
        x = F.layer_norm(x, x.shape[-1:])
        return torch.addcmul(shift.to(x.dtype), x, scale.to(x.dtype))


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
        x = x + self._dropped(self.norm(self._attended(x), context))
        return x + self._dropped(self.mlp_norm(self.mlp(x), context))

    def _attended(self, x):
        windows, barrier = self.windows, self.windows.barrier
        x = self.query_key_value(windows.split(x))
        parts = x.view(-1, windows.tokens, 3, self.heads, x.shape[-1] // (3 * self.heads)).transpose(1, 3).unbind(2)
        if barrier is not None:
            barrier = barrier.to(parts[0].dtype)
            batch = len(parts[0]) // len(barrier)
            barrier = barrier if batch == 1 else barrier.repeat(batch, 1, 1, 1)
        read = F.scaled_dot_product_attention(*parts, attn_mask=barrier)  # (batch * window, head, token, channel)
        return windows.join(self.out(read.transpose(1, 2).reshape(*x.shape[:2], -1)))

    def _dropped(self, x):
        return self.drop_path(x.transpose(0, 1)).transpose(0, 1) if self.drop_path.active else x


class Stage(nn.Module):
    """Blocks on one resolution, every second one with its windows shifted.

    Args:
      shape: tokens. drop_paths: the probability that a block is left out, of each block.
    """

    def __init__(self, width: int, heads: int, shape: Size, drop_paths: Sequence[float], design: SwinDesign):
        super().__init__()
        if width % heads:
            raise ValueError(f"Expected a width in a multiple of {heads} heads, got {width}")
        windows = [Windows(shape, design.window, shifted) for shifted in (False, True)]
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


class Merging(nn.Module):
    """Two by two tokens to one of twice the channels.

    The row that an odd number lacks is the last one half a turn on, which lies beyond the pole; the column is the first one.
    """

    def __init__(self, width: int, shape: Size):
        super().__init__()
        self.shape = shape
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
        x = x.unflatten(1, self.shape)
        if self.shape[1] % 2:
            x = torch.cat([x, x[:, :, -1:].roll(self.shape[2] // 2, 3)], 2)
        if self.shape[2] % 2:
            x = torch.cat([x, x[:, :, :, :1]], 3)
        x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
        return x.transpose(3, 4).flatten(4, 5)


class Splitting(nn.Module):
    """One token to two by two of half the channels, back to the shape that was merged."""

    def __init__(self, width: int, shape: Size):
        super().__init__()
        self.shape = shape
        self.first = Linear(2 * width, 4 * width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.second = Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, token / 4, 2 width)` -> `(batch, token, width)`."""
        levels, rows, columns = self.shape
        x = self.first(x).unflatten(1, (levels, -(-rows // 2), -(-columns // 2))).unflatten(-1, (2, 2, -1))
        x = x.transpose(3, 4).flatten(4, 5).flatten(2, 3)[:, :, :rows, :columns]
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
) -> Stages:
    """Stages down to coarser tokens and up again.

    Args:
      width: of the first stage; it doubles from stage to stage. shape: tokens of the first stage.
      depths: blocks of the stages on the way down, and on the way up from the coarsest. heads: on the way down.
      drop_path: probability that the last block of either way is left out; it rises linearly.
    Raises `ValueError` for fewer than two stages, too few tokens, and heads that do not divide a width.
    """
    down, up = depths
    if not 2 <= len(down) == len(up) == len(heads):
        raise ValueError(
            f"Expected blocks and heads of 2 stages or more, as many down as up, got {down}, {up}, {heads}"
        )
    shapes = [shape]
    for _ in down[1:]:
        levels, rows, columns = shapes[-1]
        if min(rows, columns) < 2:
            raise ValueError(f"Expected {len(down) - 1} halvings of the patches, got {shape[1]} x {shape[2]} of them")
        shapes.append((levels, -(-rows // 2), -(-columns // 2)))
    widths = [width * 2**n for n in range(len(down))]

    def stages(counts, order):
        last = max(sum(counts) - 1, 1)
        rates = iter([drop_path * n / last for n in range(sum(counts))])
        return nn.ModuleList(
            Stage(widths[n], heads[n], shapes[n], [next(rates) for _ in range(count)], design)
            for n, count in zip(order, counts, strict=True)
        )

    return Stages(
        stages(down, range(len(down))),
        nn.ModuleList(Merging(w, s) for w, s in zip(widths[:-1], shapes[:-1], strict=True)),
        nn.ModuleList(Splitting(w, s) for w, s in zip(widths[:-1], shapes[:-1], strict=True)),
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
