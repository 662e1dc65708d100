"""Weights divided by their largest singular value, so that no layer stretches a difference (Miyato et al. 2018)."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize


def limit(network: nn.Module) -> None:
    """Has every convolution and linear layer of a network divide its weights by their largest singular value."""
    for module in list(network.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            axis = 1 if isinstance(module, nn.ConvTranspose2d) else 0  # that of the outputs
            parametrize.register_parametrization(module, "weight", LargestOne(module.weight, axis))


class LargestOne(nn.Module):
    """A weight over its largest singular value as a matrix of outputs and all else.

    One power iteration follows each change of the weight while training, and no other: several steps of a window, parts of a
    batch and blocks that are computed again have the same weights. What tells a change is the weight's sum, which is the same
    on any number of processes, sharded or not, and is kept with the directions; nobody waits for it.
    """

    follows = "left", "right", "followed"  # which a start from weights takes with them

    def __init__(self, weight: torch.Tensor, axis: int):
        super().__init__()
        self.axis = axis
        matrix = self._matrix(weight.detach())
        self.register_buffer("left", F.normalize(torch.randn(matrix.shape[0]), dim=0))
        self.register_buffer("right", F.normalize(torch.randn(matrix.shape[1]), dim=0))
        for _ in range(15):
            self.left, self.right = self._iterated(matrix)
        self.register_buffer("followed", matrix.sum())

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            matrix = self._matrix(weight)
            if self.training:
                self._follow(matrix.detach())
            return weight / torch.dot(self.left, torch.mv(matrix, self.right))

    def _matrix(self, weight):
        return weight.movedim(self.axis, 0).flatten(1)

    def _follow(self, matrix):
        total = matrix.sum()
        changed = total != self.followed
        left, right = self._iterated(matrix)
        # new tensors: a step before this one may need the old ones for its gradient
        self.left, self.right = torch.where(changed, left, self.left), torch.where(changed, right, self.right)
        self.followed = total

    def _iterated(self, matrix):
        left = F.normalize(torch.mv(matrix, self.right), dim=0)
        return left, F.normalize(torch.mv(matrix.t(), left), dim=0)
