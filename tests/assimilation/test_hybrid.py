"""The hybrid of ensemble and static covariance against its closed form, and weights between coarser cells."""

import dataclasses

import numpy as np
import pytest
import torch
from lorenz96 import COUNT, Dense, Ring

from emulator.assimilation.coarse_cells import CoarseCells
from emulator.assimilation.geometry import Geometry
from emulator.assimilation.kinds.letkf import Letkf
from emulator.assimilation.kinds.registry import build
from emulator.assimilation.window import Observed, Window
from emulator.data.channels import Channels
from emulator.planet.grid import Grid

FAR = {"kind": "hybrid", "radius_km": 1e9, "tolerance": 1e-12}


def smooth(length: float) -> np.ndarray:
    """Root of a covariance of unit variance whose correlations fall over that many cells."""
    apart = Ring().distance(None, np.arange(COUNT)).numpy()
    values, vectors = np.linalg.eigh(np.exp(-((apart / length) ** 2) / 2))
    return vectors * np.sqrt(values.clip(0))


@pytest.fixture
def window() -> Window:
    """80 members, single cells observed, and a static covariance of other correlations than the members'."""
    generator = np.random.default_rng(0)
    members = torch.from_numpy(generator.standard_normal((80, COUNT)) @ smooth(2).T).view(-1, 1, 1, COUNT)
    at, error = np.array([3, 4, 11, 30]), torch.full((4,), 0.5, dtype=torch.float64)
    value = torch.from_numpy(generator.standard_normal(4))
    place = 0.0 * at, at.astype(float), np.full(4, np.nan)
    observed = Observed(lambda state: state.flatten(1)[:, at], value, error, *place)
    return Window(members, [observed], covariance=Dense(torch.from_numpy(smooth(4))), places=Ring())


def gain(covariance: torch.Tensor, at: list[int], error: torch.Tensor) -> torch.Tensor:
    """`B H^T (H B H^T + R)^-1` where H picks cells."""
    return covariance[:, at] @ torch.linalg.inv(covariance[at][:, at] + torch.diag(error**2))


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_the_mean_is_that_of_the_hybrid_gain(window, weight):
    """`K_e + b K_s (1 - H K_e)` (Penny 2014, eq. 21), and departures from it are LETKF's."""
    found = build(FAR | {"static_weight": weight}).analyse(window).state.flatten(1)
    at, mean = [3, 4, 11, 30], window.background.flatten(1).mean(0)
    ours = gain(torch.cov(window.background.flatten(1).mT), at, window.error)
    static = gain(window.covariance.whole, at, window.error)
    whole = ours + weight * static @ (torch.eye(4).double() - ours[at])
    torch.testing.assert_close(found.mean(0), mean + whole @ (window.value - mean[at]), rtol=0, atol=1e-9)
    letkf = build({"kind": "letkf", "radius_km": 1e9}).analyse(window).state.flatten(1)
    torch.testing.assert_close(found - found.mean(0), letkf - letkf.mean(0), rtol=0, atol=1e-9)


def test_members_without_spread_leave_optimal_interpolation(window):
    alike = dataclasses.replace(window, background=window.background[:1].repeat(5, 1, 1, 1))
    one = dataclasses.replace(window, background=window.background[:1])
    found = build(FAR | {"static_weight": 1.0}).analyse(alike).state
    expected = build({"kind": "optimal_interpolation", "tolerance": 1e-12}).analyse(one).state
    torch.testing.assert_close(found, expected.expand_as(found), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("shape", "every"), [((7, 12), 3), ((5, 5), 2), ((1, 9), 4), ((11,), 20)])
def test_between_coarse_cells_what_is_linear_is_exact(shape, every):
    coarse = CoarseCells.of(shape, every)
    axes = np.meshgrid(*map(np.arange, shape), indexing="ij")
    plane = torch.from_numpy(sum((k + 2.0) * axis for k, axis in enumerate(axes))).flatten()
    own = torch.stack([plane[coarse.cells], -plane[coarse.cells]], -1)
    parts = [slice(0, 1), slice(1, None)][: shape[0]]
    found = torch.cat([coarse.between({at: own[at] for at in coarse.around(part)}, part) for part in parts])
    torch.testing.assert_close(found, torch.stack([plane, -plane], 1))
    assert set(coarse.cells.flatten().tolist()) >= {0, len(plane) - 1}


def test_rows_lie_between_few_coarse_ones():
    coarse = CoarseCells.of((13, 8), 4)  # coarse rows 0, 4, 8 and 12
    around = {rows: coarse.around(slice(*rows)) for rows in ((0, 1), (1, 4), (4, 5), (5, 10), (12, 13), (0, 13))}
    assert list(around.values()) == [[0], [0, 1], [1], [1, 2, 3], [3], [0, 1, 2, 3]]


@pytest.mark.parametrize("every", [1, 3])
def test_parts_of_the_grid_are_as_the_whole(window, monkeypatch, every):
    """Each part is given the matrices of the coarse rows around it alone, and each of these is found once."""
    analysis, sizes = build({"kind": "letkf", "radius_km": 20.0, "every": every}), []
    wide = {"background": window.background.view(80, 1, 10, 4), "places": Ring()}
    pieces = dataclasses.replace(window, **wide)
    whole = analysis.analyse(pieces).state
    own = Letkf._transform
    monkeypatch.setattr(
        Letkf, "_transform", lambda self, near, *given: sizes.append(len(near)) or own(self, near, *given)
    )
    monkeypatch.setattr("emulator.assimilation.kinds.letkf.BLOCK_NUMBERS", 4 * 80**2 * 4)  # 4 cells
    torch.testing.assert_close(analysis.analyse(pieces).state, whole, rtol=0, atol=1e-12)
    assert sizes == ([4] * 10 if every == 1 else [2] * 4)  # rows 0, 3, 6, 9 with cells 0 and 3


def test_weights_between_cells_are_near_their_own(window):
    """At the coarse cells the same, between them nearly; cells far apart differ more."""
    options, change = {"kind": "letkf", "radius_km": 20.0}, []
    whole = build(options).analyse(window).state
    for every in (2, 8):
        found = build(options | {"every": every}).analyse(window).state
        torch.testing.assert_close(found[..., ::every], whole[..., ::every], rtol=0, atol=1e-12)
        change.append(float((found - whole).square().mean().sqrt()))
    moved = float((whole - window.background).square().mean().sqrt())
    assert 0 < change[0] < 0.02 * moved and change[0] < change[1] < 0.5 * moved


@pytest.mark.parametrize("kind", ["letkf", "hybrid"])
def test_cells_in_a_list_have_weights_of_their_own(kind):
    grid = Grid.points(np.array([-40.0, 0.0, 40.0, 0.0]), np.array([0.0, 90.0, 180.0, 270.0]), np.ones(4))
    geometry = Geometry(grid, Channels(("surface_pressure",), (0,)), {})
    build({"kind": kind}).expect(geometry)
    with pytest.raises(ValueError, match="Expected every of 1 on a list of cells"):
        build({"kind": kind, "every": 2}).expect(geometry)
