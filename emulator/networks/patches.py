"""Patches of fields to tokens and back, by weights of each variable's own, so that any subset of variables will do.

As in Aurora (Bodnar et al. 2025): what the variables of a level give is added up, so that a missing one is one that is zero.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from emulator.networks.layers import apply_linear
from emulator.networks.level_tables import Ages, ByLevel


def key(name: str) -> str:
    """A variable's name as parameters can have it."""
    return name.replace(".", "·")


class PatchEmbedding(nn.Module):
    """The variables of each level of a state to a token for every patch and level.

    Args:
      channels: positions of the inputs of every variable.
      patch: cells of a patch in latitude and in longitude. width: of the tokens.

    The weights of a variable are `(width, age, patch, patch)`; those of the first ages serve a shorter history.
    """

    by_variable = by_age = ("weights",)  # what a start from weights has at zero where it is new

    def __init__(self, channels: Mapping[str, Ages], patch: int, width: int):
        super().__init__()
        self.patch = patch
        self.weights = nn.ParameterDict()
        for name, ages in channels.items():
            weight = nn.Parameter(torch.empty(width, len(ages), patch, patch))
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
            self.weights[key(name)] = weight
        bound = 1 / (patch * math.sqrt(max(len(ages) for ages in channels.values())))
        self.bias = nn.Parameter(torch.empty(width).uniform_(-bound, bound))
        self.by_level = ByLevel(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, channel, row, column)` of whole patches -> `(batch, patch, level, width)`."""
        p, x = self.patch, self.by_level(x)
        x = x.unflatten(4, (-1, p)).unflatten(3, (-1, p))  # (batch, level, column, row, p, column, p)
        x = x.permute(0, 3, 5, 1, 2, 4, 6).flatten(4).flatten(1, 2)
        return apply_linear(x, torch.cat([*self.weights.values()], 1).flatten(1), self.bias, "float32")

    def levels_of(self, present: torch.Tensor) -> torch.Tensor:
        """From which channels there are, `(batch, channel)` of bool, at which levels there are some, `(batch, level)`."""
        return self.by_level(present).any(-1)


class PatchHeads(nn.Module):
    """Tokens to patches of fields, by a linear layer for each variable.

    Args:
      names: of the variables. width: of the tokens. patch: cells of a patch in latitude and in longitude.
    """

    by_variable = "weights", "biases"

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
        x = apply_linear(x, weight, bias, "float32").unflatten(3, (-1, p, p)).unflatten(1, (-1, columns))
        # (batch, row, column, level, variable, p, p)
        return x.permute(0, 4, 3, 1, 5, 2, 6).flatten(5).flatten(3, 4).flatten(1, 2)
