"""The parts of the spectral loss that several processes have of one state add up to it, and so do their gradients."""

import torch
from together import together
from torch.testing import assert_close

from emulator.losses.scaled import ScaledError
from emulator.losses.spectral import SpectralError
from emulator.parallel.space import ALONE
from emulator.planet.grid import Grid
from emulator.sphere.transform import transform

GRID = Grid.gaussian(13)


def part(space):
    """The process's part of the loss, and its gradient in the state."""
    by_rows = transform(GRID, space=space)
    area = torch.as_tensor(GRID.area)[by_rows.band]
    scales, weights = (
        (torch.tensor([2.0, 0.5, 3.0]), torch.tensor([4.0])),
        (torch.tensor([1.0, 2.0, 1.0]), torch.ones(1)),
    )
    error = SpectralError(ScaledError(area, *scales, *weights), by_rows, 0.7)
    values = torch.randn(2, 2, 4, *GRID.shape, generator=torch.Generator().manual_seed(1))[..., by_rows.band, :]
    state = values[0, :, :3].clone().requires_grad_()
    found = error(state, values[0, :, 3:], values[1, :, :3], values[1, :, 3:])
    found.backward()
    return found.detach(), state.grad


def test_the_parts_are_the_loss_and_their_gradients_its():
    expected, gradient = part(ALONE)
    losses, gradients = zip(*together(4, part), strict=True)
    assert_close(sum(losses), expected, rtol=1e-6, atol=0)
    assert_close(torch.cat(gradients, -2), gradient, rtol=0, atol=1e-6 * float(gradient.abs().max()))
