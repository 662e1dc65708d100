"""Cross-attention of a few queries to a set of any size, as the Perceiver does it (Jaegle et al. 2021).

Residuals are added after the norm, as in Swin V2 and in Aurora (Bodnar et al. 2025).
"""

import torch
from torch import nn

from emulator.networks.attention import attention, by_torch
from emulator.networks.layers import MLP, Linear


class Perceiver(nn.Module):
    """Layers of attention and a perceptron, each followed by a norm and added to the queries.

    Args:
      width: of queries and context; a multiple of `heads`. depth: layers. mlp_ratio: hidden width over `width`.
    Raises `ValueError` for a width that the heads do not divide.
    """

    def __init__(self, width: int, heads: int, depth: int = 1, mlp_ratio: float = 4.0):
        super().__init__()
        if width % heads:
            raise ValueError(f"Expected a width in a multiple of {heads} heads, got {width}")
        self.layers = nn.ModuleList(_Layer(width, heads, int(width * mlp_ratio)) for _ in range(depth))

    def forward(
        self, queries: torch.Tensor, context: torch.Tensor, present: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the queries read.

        Args:
          queries: `(batch or 1, query, width)`; 1 where they are the same for all, which are then projected once.
          context: `(batch, member, width)`.
          present: `(batch, member)` of bool, which members there are; None: all.
        Returns `(batch, query, width)`.
        """
        for layer in self.layers:
            queries = layer(queries, context, present)
        return queries


class _Layer(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.heads = heads
        self.query = Linear(width, width, bias=False)
        self.key_value = Linear(width, 2 * width, bias=False)
        self.out = Linear(width, width, bias=False)
        self.mlp = MLP((width, hidden, width))
        self.norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, queries, context, present):
        # (batch, n, 1, part, head, channel)
        query = self.query(queries)[:, :, None].unflatten(-1, (1, self.heads, -1)).expand(len(context), *[-1] * 5)
        both = self.key_value(context)[:, :, None].unflatten(-1, (2, self.heads, -1))
        if present is None:
            read = attention(query, both)
        else:  # of which there may be none, and then nothing is read, which the kernel does not know
            bias = both.new_zeros(1).where(present, -torch.inf)[:, None, None]
            read = by_torch(query[..., 0, :, :], *both.unbind(-3), bias, query.shape[-1] ** -0.5)
        queries = queries + self.norm(self.out(read.flatten(2)))
        return queries + self.mlp_norm(self.mlp(queries))
