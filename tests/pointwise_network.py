"""A network whose states several processes can hold together: cell by cell, with the globe's mean of every channel."""

import dataclasses

import pytest
import torch
from torch import nn

from emulator.networks.conditions import NoiseOptions
from emulator.networks.registry import NETWORKS, network
from emulator.options import Options, option


@dataclasses.dataclass(frozen=True)
class PointwiseOptions(Options):
    width: int = option(8, minimum=1)
    noise: NoiseOptions | None = option(None)


class Pointwise(nn.Module):
    def __init__(self, options, inputs, outputs, grid, space):
        super().__init__()
        self.space, area = space, torch.as_tensor(grid.area)
        self.register_buffer("area", space.cut(area), persistent=False)
        inputs += options.noise.count if options.noise else 0
        self.first, self.mean = nn.Conv2d(inputs, options.width, 1), nn.Linear(options.width, options.width)
        self.last = nn.Conv2d(options.width, outputs, 1)

    def forward(self, x, noise=None):
        x = self.first(x if noise is None else torch.cat([x, noise], 1))
        mean = self.space.total((x.double() * self.area).sum((-2, -1))).float()
        return self.last(nn.functional.gelu(x + self.mean(mean)[..., None, None]))


def register():
    network("pointwise", PointwiseOptions, bands=True)(Pointwise)


@pytest.fixture(scope="module", autouse=True)
def registered():
    """For the tests of a module that imports it alone: others count the kinds of networks."""
    register()
    yield
    del NETWORKS._entries["pointwise"]
