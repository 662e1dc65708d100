"""Patches of fields to tokens and back, by weights of each variable's own, so that any subset of variables will do.

As in Aurora (Bodnar et al. 2025): what the variables of a level give is added up, so that a missing one is one that is zero.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from emulator.networks.layers import linear
from emulator.networks.signature import Channel

ATMOSPHERE = 1000.0  # hPa that levels of which nobody knows where they lie are spread over


def places(channels: Sequence[Channel]) -> list[float | None]:
    """Where the level of every channel lies: hPa or m; None for fields without levels."""
    count: dict[str, int] = {}
    for channel in channels:
        if channel.level is not None:
            count[channel.name] = max(count.get(channel.name, 0), channel.level + 1)

    def place(channel):
        if channel.level is None or channel.at is not None:
            return channel.at
        return (channel.level + 0.5) / count[channel.name] * ATMOSPHERE

    return [place(channel) for channel in channels]


def key(name: str) -> str:
    """A variable's name as parameters can have it."""
    return name.replace(".", "·")


class PatchEmbedding(nn.Module):
    """The variables of each level of a state to a token for every patch and level.

    Args:
      channels: positions of inputs by variable, age (0: the newest) and level, `(level, )` lists in the order of the levels,
        -1 where the variable has none there.
      patch: cells of a patch in latitude and in longitude. width: of the tokens.

    The weights of a variable are `(width, age, patch, patch)`; those of the first ages serve a shorter history.
    """

    def __init__(self, channels: Mapping[str, Sequence[Sequence[int]]], patch: int, width: int):
        super().__init__()
        self.patch = patch
        self.weights = nn.ParameterDict()
        for name, ages in channels.items():
            weight = nn.Parameter(torch.empty(width, len(ages), patch, patch))
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
            self.weights[key(name)] = weight
        bound = 1 / (patch * math.sqrt(max(len(ages) for ages in channels.values())))
        self.bias = nn.Parameter(torch.empty(width).uniform_(-bound, bound))
        table = np.array([levels for ages in channels.values() for levels in ages]).T  # (level, column)
        self.shape = table.shape
        self.register_buffer("index", torch.from_numpy(table.clip(0).ravel()), persistent=False)
        self.register_buffer("there", None if table.min() >= 0 else torch.from_numpy(table >= 0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, channel, row, column)` of whole patches -> `(batch, patch, level, width)`."""
        p, there = self.patch, self.there
        x = x.index_select(1, self.index).unflatten(1, self.shape)
        x = x if there is None else x * there[..., None, None].to(x.dtype)
        x = x.unflatten(4, (-1, p)).unflatten(3, (-1, p))  # (batch, level, column, row, p, column, p)
        x = x.permute(0, 3, 5, 1, 2, 4, 6).flatten(4).flatten(1, 2)
        return linear(x, torch.cat([*self.weights.values()], 1).flatten(1), self.bias)

    def levels_of(self, present: torch.Tensor) -> torch.Tensor:
        """From which channels there are, `(batch, channel)` of bool, at which levels there are some, `(batch, level)`."""
        found = present.index_select(1, self.index).unflatten(1, self.shape)
        return (found if self.there is None else found & self.there).any(-1)


class PatchHeads(nn.Module):
    """Tokens to patches of fields, by a linear layer for each variable.

    Args:
      names: of the variables. width: of the tokens. patch: cells of a patch in latitude and in longitude.
    """

    def __init__(self, names: Sequence[str], width: int, patch: int):
        super().__init__()
        self.patch = patch
        self.weights, self.biases = nn.ParameterDict(), nn.ParameterDict()
        for name in names:
            self.weights[key(name)] = nn.Parameter(torch.empty(patch**2, width))
            nn.init.trunc_normal_(self.weights[key(name)], std=0.02)
            self.biases[key(name)] = nn.Parameter(torch.zeros(patch**2))

    def forward(self, x: torch.Tensor, columns: int) -> torch.Tensor:
        """`(batch, patch, level, width)` -> `(batch, variable * level, row, column)`; `columns`: patches in a row."""
        p = self.patch
        weight, bias = torch.cat([*self.weights.values()]), torch.cat([*self.biases.values()])
        x = linear(x, weight, bias).unflatten(3, (-1, p, p)).unflatten(1, (-1, columns))
        # (batch, row, column, level, variable, p, p)
        return x.permute(0, 4, 3, 1, 5, 2, 6).flatten(5).flatten(3, 4).flatten(1, 2)
