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
    "threefold": (Grid.gaussian(36), Grid.gaussian(12)),
    "not twice everywhere": (Grid.gaussian(24), Grid.gaussian(10)),
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


@pytest.mark.parametrize("name", ["threefold", "nested", "not twice everywhere"])
def test_where_coarse_cells_have_cells_of_their_own_their_means_are_exact_whatever_is_asked(name):
    """Also beside dry cells, and where no field of these means has been: no iteration has to end."""
    fine, coarse = PAIRS[name]
    layer = Conservative(fine, coarse)
    assert layer.factors.alone.possible
    asked = drawn((2, 2, *coarse.shape), 3).clamp(min=0) ** 4  # half of the cells are dry
    found = layer.positive(drawn((2, 1, 2, *fine.shape), 4), asked, INSTANT)
    assert float(found.min()) >= 0
    torch.testing.assert_close(layer.means(found[:, 0]), asked, rtol=1e-12, atol=0)


def test_one_dimension_by_hand():
    """Two coarse columns over five fine ones, the third of which both share by half: 4, 4 | 4 | 4, 4 to the means 2 and 4."""
    wide = Grid.from_coordinates([45.0, -45.0], np.arange(5) * 10 + 5.0)
    layer = Conservative(wide, Grid.from_coordinates([45.0, -45.0], [12.5, 37.5]))
    field, asked = torch.full((1, 2, 5), 4.0).double(), torch.tensor([[2.0, 4.0]] * 2).double()[None]
    found = layer.factors.alone(field, asked)
    # the shared one by the lesser ratio to 2, so that the second cell lacks 1 of its 20, which its own two get
    torch.testing.assert_close(found[0], torch.tensor([[2.0, 2.0, 2.0, 4.5, 4.5]] * 2).double())


@pytest.mark.parametrize("name", ["threefold", "gaussian"])
def test_no_field_depends_on_the_others_of_its_batch(name):
    fine, coarse = PAIRS[name]
    layer, fields = Conservative(fine, coarse), rain(fine, 1, 7) - 0.5
    asked = layer.means(rain(fine, 1, 8)[:, 0])
    together = layer.positive(fields, asked, INSTANT)
    apart = torch.cat([layer.positive(fields[n : n + 1], asked[n : n + 1], INSTANT) for n in range(2)])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-8)


def test_gradients_pass_the_bounds_and_are_those_of_differences():
    fine, coarse = Grid.gaussian(18), Grid.gaussian(6)
    layer = Conservative(fine, coarse)
    asked = drawn((1, 1, *coarse.shape), 1).clamp(min=0)
    fields, way = drawn((1, 1, 1, *fine.shape)).requires_grad_(), drawn((1, 1, 1, *fine.shape), 2)
    weights = drawn(fields.shape, 3)

    def told(x):
        return (weights * layer.positive(x, asked, INSTANT[:1])).sum()

    told(fields).backward()
    assert torch.isfinite(fields.grad).all()
    step = 1e-7
    with torch.no_grad():
        slope = (told(fields + step * way) - told(fields - step * way)) / (2 * step)
    torch.testing.assert_close((fields.grad * way).sum(), slope, rtol=1e-5, atol=0)


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
