"""The multigrid operator: linear cycles, a step of a solver, and the size of the published one."""

import map_networks as shared
import pytest
import torch
from map_networks import fields, made
from torch.testing import assert_close

from emulator.networks.mgno import MgNO, MgNOOptions, Prolongation
from emulator.networks.registry import NetworkError, build
from emulator.planet.grid import Grid

SMALL = dict(kind="mgno", width=6, layers=2, depth=2)


@pytest.mark.parametrize(("before", "after", "residual"), [(1, 0, False), (2, 1, False), (1, 2, True)])
def test_parameters_by_formula(before, after, residual):
    """Convolutions without biases: a pair for every iteration but the first, one each between levels, and 4 x 4 back."""
    inputs, outputs, width, layers, depth = 50, 45, 24, 3, 4

    def cycle(f):
        pairs = before * (depth + 1) + after * depth  # one more on the coarsest level, and the very first has no A
        between = depth * 9 * (width**2 + f**2 + residual * width * f)
        return 9 * width * f + pairs * 2 * 9 * width * f + between + depth * 16 * width**2

    options = MgNOOptions(width=width, layers=layers, depth=depth, before=before, after=after, residual=residual)
    with torch.device("meta"):
        network = MgNO(inputs, outputs, 64, 128, options=options)
    linear = (inputs + 1) * width + (layers - 1) * (width + 1) * width + (width + 1) * outputs
    expected = cycle(inputs) + (layers - 1) * cycle(width) + linear
    assert sum(p.numel() for p in network.parameters()) == expected


def test_a_cycle_is_linear():
    cycle = made(SMALL, after=1, residual=True).double().layers[0].cycle
    x, y = (fields(1, 3, 12, 24, seed=n, dtype=torch.float64) for n in (1, 2))
    with torch.no_grad():
        assert_close(cycle(2 * x - 3 * y), 2 * cycle(x) - 3 * cycle(y), rtol=1e-12, atol=1e-12)
        assert cycle(x).abs().max() > 1e-2


def test_an_iteration_is_a_step_of_jacobis_method():
    """With A the five-point Laplacian and S a share of its diagonal's inverse, iterations solve (1 - A) u = f."""
    iteration = made(SMALL | dict(width=1, layers=1), inputs=1).double().layers[0].cycle.before[1][0]
    laplacian = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=torch.float64)
    with torch.no_grad():
        iteration.operator.weight.copy_(-laplacian)[0, 0, 1, 1] += 1
        iteration.smoother.weight.zero_()[0, 0, 1, 1] = 1 / 5
        f = fields(1, 1, 6, 12, dtype=torch.float64)
        u = torch.zeros_like(f)
        for _ in range(200):
            u = iteration(u, f)
        assert_close(iteration.operator(u), f, rtol=0, atol=1e-8)


def test_prolongation_goes_round_and_doubles():
    prolongation = made(SMALL).layers[0].cycle.finer[0]
    assert isinstance(prolongation, Prolongation)
    x = fields(1, 6, 6, 12)
    with torch.no_grad():
        y = prolongation(x, 12, 24)
        assert_close(prolongation(x.roll(1, -1), 12, 24), y.roll(2, -1))
        inner = torch.nn.functional.conv_transpose2d(x, prolongation.weight, stride=2, padding=1)
        assert_close(y[..., 2:-2, 2:-2], inner[..., 2:-2, 2:-2])


@pytest.mark.parametrize("grid", [Grid.gaussian(12), Grid.equiangular(13, 24, poles=True)], ids=lambda g: g.describe())
@pytest.mark.parametrize("residual", [False, True])
def test_turning_about_the_axis_by_coarse_cells_commutes_with_the_network(grid, residual):
    shared.assert_turns(SMALL, grid, 4, residual=residual, after=1)


def test_gradients_of_a_tiny_network():
    shared.assert_gradients(SMALL | dict(width=2, depth=1, after=1, residual=True), Grid.gaussian(6))


def test_noise_and_conditions_start_without_effect():
    shared.assert_untouched_by_conditions(SMALL)


def test_checkpointing():
    shared.assert_checkpointing_changes_nothing_but_memory(SMALL)


def test_half_precision():
    shared.assert_half_precision_is_close(SMALL)


def test_output_starts_at_zero_where_asked():
    assert not made(SMALL, zero_output=True)(fields(1, 3, 12, 24)).any()


def test_a_region_and_what_does_not_fit():
    box = Grid.box(13, 18, (40, 66, -10, 26))
    assert made(SMALL, box)(fields(1, 3, 13, 18)).shape == (1, 2, 13, 18)
    with pytest.raises(NetworkError, match="multiple of 32 for 4 halvings, got 24"):
        build(SMALL | {"depth": 4}, 3, 2, shared.GRID)
