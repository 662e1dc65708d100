"""The conservative layer: means of coarse cells to 1e-9 on grids that nest or not, the smallest change, no rain below 0."""

import numpy as np
import pytest
import torch

from emulator.downscaling.conservative import Conservative
from emulator.planet.grid import Grid
from emulator.sphere.cell_means import CellMeans
from emulator.sphere.regrid import Regridder

INSTANT = torch.tensor([True, False])
NESTED = Grid.from_coordinates(90 - (np.arange(24) + 0.5) * 7.5, np.arange(48) * 7.5 + 3.75)
COARSE = Grid.from_coordinates(90 - (np.arange(8) + 0.5) * 22.5, np.arange(12) * 30 + 15.0)
BOX = Grid.from_coordinates(np.arange(68, 21, -1.5), np.arange(3, 61, 2.0))
PAIRS = {
    "gaussian": (Grid.gaussian(24), Grid.gaussian(16)),
    "nested": (NESTED, COARSE),
    "box": (BOX, Grid.gaussian(24)),
    "same": (Grid.gaussian(12), Grid.gaussian(12)),
}


def drawn(shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rain(fine, steps=2, seed=1):
    """Rain as it falls: most of it in few cells, none in half of them."""
    fields = drawn((2, steps, 2, *fine.shape), seed)
    return torch.where(fields > 0, (3 * fields).exp() - 1, 0.0)


@pytest.mark.parametrize("name", PAIRS)
def test_means_of_cells_and_intervals_are_those_of_the_coarse_fields(name):
    fine, coarse = PAIRS[name]
    layer, fields, asked = Conservative(fine, coarse), drawn((2, 3, 2, *fine.shape)), drawn((2, 2, *coarse.shape), 1)
    found = layer(fields, asked, INSTANT)
    means = layer.means(found)
    torch.testing.assert_close(means[:, -1, 0], layer.part(asked)[:, 0], rtol=0, atol=1e-9)
    torch.testing.assert_close(means[:, :, 1].mean(1), layer.part(asked)[:, 1], rtol=0, atol=1e-9)
    torch.testing.assert_close(
        found[:, :-1, 0], fields[:, :-1, 0], rtol=0, atol=0
    )  # nothing is known of other instants
    torch.testing.assert_close(layer(found, asked, INSTANT), found, rtol=0, atol=1e-9)


def test_means_are_those_of_conservative_regridding():
    fine, coarse = PAIRS["gaussian"]
    fields = drawn((3, *fine.shape)).numpy()
    np.testing.assert_allclose(CellMeans.of(fine, coarse)(fields), Regridder(fine, coarse)(fields), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["gaussian", "box"])
def test_the_change_is_the_smallest_of_all(name):
    """It is orthogonal, weighted by area, to every field without means: the condition of the nearest one."""
    fine, coarse = PAIRS[name]
    layer, fields = Conservative(fine, coarse), drawn((1, 1, 1, *fine.shape))
    instant = INSTANT[:1]
    change = layer(fields, drawn((1, 1, *coarse.shape), 1), instant) - fields
    other = layer(drawn(fields.shape, 2), torch.zeros(1, 1, *coarse.shape), instant)
    area = torch.as_tensor(fine.area)
    sizes = [float((area * field**2).sum().sqrt()) for field in (change, other)]
    assert abs(float((area * change * other).sum())) < 1e-9 * sizes[0] * sizes[1]


@pytest.mark.parametrize("name", PAIRS)
def test_rain_keeps_its_means_and_stays_positive(name):
    fine, coarse = PAIRS[name]
    layer, truth = Conservative(fine, coarse), rain(fine)
    asked = torch.zeros(2, 2, *coarse.shape, dtype=torch.float64)
    part = layer.means(torch.stack([truth[:, -1, 0], truth[:, :, 1].mean(1)], 1))
    asked[..., layer.cells.at[0], layer.cells.at[1]] = part
    found = layer.positive(rain(fine, seed=5) * (1 + truth), asked, INSTANT)
    assert float(found.min()) >= 0
    means, limit = layer.means(found), 1e-8 * float(part.max())
    torch.testing.assert_close(means[:, -1, 0], part[:, 0], rtol=0, atol=limit)
    torch.testing.assert_close(means[:, :, 1].mean(1), part[:, 1], rtol=0, atol=limit)


def test_on_nested_grids_rain_is_multiplied_by_the_ratio_of_the_means():
    layer, truth = Conservative(NESTED, COARSE), drawn((1, 1, 1, *NESTED.shape)).exp()
    asked = layer.means(truth[:, 0]) * 3
    found = layer.positive(truth, asked, INSTANT[:1])
    torch.testing.assert_close(found, 3 * truth, rtol=1e-9, atol=0)


def test_where_nothing_was_rain_is_spread_evenly():
    layer = Conservative(NESTED, COARSE)
    asked = torch.rand(1, 1, *COARSE.shape, dtype=torch.float64)
    found = layer.positive(torch.zeros(1, 1, 1, *NESTED.shape), asked, INSTANT[:1])
    torch.testing.assert_close(found[0, 0, 0], asked[0, 0].repeat_interleave(3, 0).repeat_interleave(4, 1))


def test_gradients_pass_the_layer():
    fine, coarse = PAIRS["gaussian"]
    fields, asked = drawn((1, 1, 2, *fine.shape)).requires_grad_(), drawn((1, 2, *coarse.shape), 1)
    Conservative(fine, coarse)(fields, asked, INSTANT).square().sum().backward()
    assert torch.isfinite(fields.grad).all() and float(fields.grad.abs().max()) > 0


def test_grids_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="cells on the fine one"):
        CellMeans.of(BOX, Grid.from_coordinates(np.arange(-20, -61, -5.0), np.arange(100, 140, 5.0)))
    with pytest.raises(ValueError, match="fine grid of cells below those of"):
        CellMeans.of(Grid.gaussian(16), Grid.gaussian(24))
    with pytest.raises(ValueError, match="latitudes and longitudes"):
        CellMeans.of(Grid.points([80.0, 0.0, -80.0], [0.0, 10.0, 20.0], [1.0, 1.0, 1.0]), COARSE)
