"""The least that a network must do: keep the shape of space, and come closer to a target that it can reach."""

import torch
from torch import nn

from emulator.planet.grid import Grid


def assert_learns(net: nn.Module, grid: Grid) -> None:
    """`net` takes 3 channels and gives 2; by 20 updates its squared error falls below 0.8 of the first."""
    x = torch.randn(2, 3, *grid.shape)
    target = torch.stack([x[:, 0] - 0.5 * x[:, 1], torch.tanh(x[:, 2])], 1)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        y = net(x)
        assert y.shape == target.shape and y.dtype == torch.float32
        loss = (y - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
