"""The network of learned analyses: nothing of nothing, exactly; local; turning with the globe; near the best analysis."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from emulator.assimilation.learned.network import AnalysisNetwork
from emulator.assimilation.learned.options import AnalysisNetworkOptions
from emulator.planet.cell_areas import unit_vectors
from emulator.planet.grid import Grid

SMALL = AnalysisNetworkOptions(width=8, depth=2, heads=2, reach=1)
GRIDS = {
    "gaussian": Grid.gaussian(12),
    "with poles": Grid.equiangular(13, 24, poles=True),
    "box": Grid.from_coordinates(np.arange(50.0, 38.0, -1.0), np.arange(10.0, 26.0)),
}


def network(grid, channels=3, fixed=1, raw=0, options=SMALL) -> AnalysisNetwork:
    torch.manual_seed(0)
    net = AnalysisNetwork(channels, fixed, raw, grid, options)
    torch.nn.init.normal_(net.head.weight)
    return net


def fields(*shape, seed=1, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def given(grid, batch=2, channels=3, fixed=1, raw=0, share=0.1, dtype=torch.float32):
    """Background, values and confidences, raw values and confidences of random places."""
    places = torch.rand(batch, 1, *grid.shape, generator=torch.Generator().manual_seed(2)) < share
    confidence = [places.to(dtype).expand(-1, n, -1, -1) * 0.7 for n in (channels, raw)]
    values = [fields(batch, n, *grid.shape, seed=3 + n, dtype=dtype) for n in (channels, raw)]
    background = fields(batch, channels + fixed, *grid.shape, dtype=dtype)
    return background, values[0], confidence[0], values[1], confidence[1]


@pytest.mark.parametrize("raw", [0, 2])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_without_confidence_values_change_nothing_exactly(grid, raw):
    net = network(grid, raw=raw)
    background, value, confidence, raws, sure = given(grid, raw=raw)
    with torch.no_grad():
        found = net(background, value, confidence, raws, sure)
        assert found.shape == (2, 3, *grid.shape) and found.abs().amax() > 1e-3
        nothing = net(background, value, 0 * confidence, raws, 0 * sure)
    assert torch.equal(nothing, torch.zeros_like(nothing))


def test_an_observation_changes_what_is_near_and_nothing_that_is_far():
    grid = Grid.gaussian(32)
    net = network(grid, options=AnalysisNetworkOptions(width=8, depth=1, heads=2, reach=1))
    background, value, confidence, *rest = given(grid, batch=1, share=0)
    confidence = confidence.clone()
    confidence[0, :, 16, 30] = 0.7
    with torch.no_grad():
        moved = net(background, value, confidence, *rest).abs().amax(1)[0]
    assert moved[16, 30] > 1e-4 and moved[16, 32] > 0
    assert torch.equal(moved[:, :18], torch.zeros_like(moved[:, :18])) and bool((moved[:4] == 0).all())


@pytest.mark.parametrize("raw", [0, 2])
@pytest.mark.parametrize("grid", [GRIDS["gaussian"], GRIDS["with poles"]], ids=["gaussian", "with poles"])
def test_turning_about_the_axis_by_coarse_cells_commutes_with_the_network(grid, raw):
    net, inputs = network(grid, raw=raw), given(grid, raw=raw)
    with torch.no_grad():
        turned = net(*(each.roll(4, -1) for each in inputs))
        assert_close(turned, net(*inputs).roll(4, -1), rtol=0, atol=1e-5)
        assert (net(*(each.roll(1, -1) for each in inputs)) - net(*inputs).roll(1, -1)).abs().max() > 1e-3


def test_gradients_are_those_of_differences():
    grid = Grid.from_coordinates(np.arange(40.0, 36.0, -1.0), np.arange(10.0, 14.0))
    options = AnalysisNetworkOptions(width=2, depth=1, heads=1, reach=1)
    net = network(grid, channels=1, raw=1, options=options).double()
    inputs = given(grid, batch=1, channels=1, raw=1, share=0.4, dtype=torch.float64)
    background, value, confidence, raws, sure = inputs
    assert torch.autograd.gradcheck(
        lambda b, v, r: net(b, v, confidence, r, sure),
        (background.requires_grad_(), value.requires_grad_(), raws.requires_grad_()),
        fast_mode=True,
    )
    parameters = list(net.parameters())
    assert torch.autograd.gradcheck(lambda *_: net(*inputs), tuple(parameters), fast_mode=True)


def test_grids_that_do_not_fit_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="Expected a grid of rows and columns for a learned analysis"):
        network(Grid.points([0.0, 10.0], [0.0, 10.0], [1.0, 1.0]))
    with pytest.raises(ValueError, match="Expected longitudes in a multiple of 16 for 3 halvings, got 24"):
        network(GRIDS["gaussian"], options=AnalysisNetworkOptions(width=8, depth=3, heads=2))
    with pytest.raises(ValueError, match="Expected heads that divide a width of 8, got 3"):
        AnalysisNetworkOptions(width=8, heads=3)


GRID, SPREAD, ERROR = Grid.gaussian(8), 0.7, 0.5


def correlations() -> torch.Tensor:
    """Of cells that lie an angle apart, `(cell, cell)` float64."""
    cells = unit_vectors(*(each.ravel() for each in GRID.mesh()))
    return torch.from_numpy(np.exp((cells @ cells.T - 1) / SPREAD**2))


def drawn(root, count: int, share: float, generator):
    """Errors of backgrounds, what is observed of them, and where, `(count, cell)` float64 each."""
    cells = root.shape[0]
    truth = torch.randn(count, cells, generator=generator, dtype=torch.float64) @ root.mT
    seen = torch.rand(count, cells, generator=generator) < share
    observed = truth + ERROR * torch.randn(count, cells, generator=generator, dtype=torch.float64)
    return truth, observed, seen


def analysed(net, observed, seen):
    """The network's estimate of what was observed, with a background of nothing."""
    on_grid = lambda x: x.float().view(len(x), 1, *GRID.shape)  # noqa: E731
    confidence = on_grid(seen) / (1 + ERROR**2)
    background, none = on_grid(0 * observed), observed.new_zeros(len(observed), 0, *GRID.shape).float()
    return net(background, on_grid(observed), confidence, none, none).flatten(1)


def best(whole, observed, seen):
    """`B H^T (H B H^T + R)^-1 y` of every row: no analysis has a smaller expected error."""
    states = []
    for values, where in zip(observed, seen, strict=True):
        part = whole[where][:, where] + ERROR**2 * torch.eye(int(where.sum())).double()
        states.append(whole[:, where] @ torch.linalg.solve(part, values[where]))
    return torch.stack(states)


@pytest.mark.slow
def test_a_trained_network_comes_near_the_best_analysis_and_more_observations_help():
    """Gaussian errors of a known covariance: optimal interpolation has the smallest expected error there is."""
    whole = correlations()
    values, vectors = torch.linalg.eigh(whole)
    root = vectors * values.clamp(min=0).sqrt()
    net = network(GRID, 1, 0, options=AnalysisNetworkOptions(width=24, depth=2, heads=2, reach=1))
    torch.nn.init.zeros_(net.head.weight)
    updates, generator = 400, torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3, betas=(0.9, 0.95), weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for update in range(updates):
        truth, observed, seen = drawn(root, 32, 0.06 * 5 ** (update % 3 / 2), generator)
        loss = (analysed(net, observed, seen) - truth).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    errors = {}
    for share in (0.06, 0.12, 0.3):
        truth, observed, seen = drawn(root, 256, share, torch.Generator().manual_seed(1))
        with torch.no_grad():
            learned = (analysed(net, observed, seen) - truth).square().mean().sqrt()
        errors[share] = float(learned), float((best(whole, observed, seen) - truth).square().mean().sqrt())
    assert all(learned < 1.15 * least for learned, least in errors.values()), errors
    assert errors[0.3][0] < 0.9 * errors[0.12][0] < 0.81 * errors[0.06][0], errors
