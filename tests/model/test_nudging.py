"""Spectral nudging: long waves become the driving ones, short ones stay, at the rate that is asked for."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from emulator.model.nudging import Nudging, share_of
from emulator.planet.constants import ERA5
from emulator.planet.grid import Grid
from emulator.planet.plane_waves import cosines, extent, harmonics, waves_of

BOX, ZONE = Grid.box(12, 20, (30, 66, -20, 40)), Grid.box(8, 24, (20, 60, 0, 360))
MAP = Grid.projected(
    np.arange(14) * 1e5 - 7e5,
    np.arange(11)[::-1] * 1e5 - 5e5,
    {
        "grid_mapping_name": "lambert_conformal_conic",
        "standard_parallel": [60.0, 60.0],
        "longitude_of_central_meridian": 10.0,
        "latitude_of_projection_origin": 60.0,
        "earth_radius": 6371e3,
    },
)


def nudging(grid, length, share=1.0, free=None):
    free = np.ones(grid.shape, bool) if free is None else free
    return Nudging(grid, [2, 0], length, share, free).double()


def states(grid, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, *grid.shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(("grid", "length"), [(BOX, 2.5e6), (ZONE, 6e6), (MAP, 7e5)], ids=["box", "zone", "map"])
def test_long_waves_become_the_driving_ones_and_short_ones_stay(grid, length):
    made, state, driving = nudging(grid, length), states(grid), states(grid, 1)[:, :2]
    found = made(state, driving)
    own, after = state[:, [2, 0]], found[:, [2, 0]]
    tolerance = dict(rtol=0, atol=1e-6)  # matrices are of single precision
    assert_close(made.large(after), made.large(driving), **tolerance)
    assert_close(after - made.large(after), own - made.large(own), **tolerance)
    assert made.large(driving).square().mean() > 1e-2
    assert torch.equal(found[:, 1], state[:, 1])  # which is not nudged


def test_a_state_that_has_the_driving_waves_changes_no_bit_and_one_that_differs_in_short_ones_none_of_weight():
    made, state = nudging(BOX, 2.5e6), states(BOX)
    assert torch.equal(made(state, state[:, [2, 0]]), state)
    short = states(BOX, 1)[:, :2]
    short = short - made.large(short)
    assert_close(made(state, state[:, [2, 0]] + short), state, rtol=0, atol=1e-6)


def test_a_departure_falls_to_its_e_th_part_in_the_hours_asked_for():
    made, state, driving = nudging(BOX, 2.5e6, share_of(24, 6 * 3600)), states(BOX), states(BOX, 1)[:, :2]
    begun = made.large(driving - state[:, [2, 0]])
    for _ in range(4):
        state = made(state, driving)
    assert_close(made.large(driving - state[:, [2, 0]]), begun / math.e, rtol=0, atol=1e-5)
    assert share_of(0, 3600) == 1


@pytest.mark.parametrize(("grid", "length"), [(BOX, 2.5e6), (ZONE, 6e6), (MAP, 7e5)], ids=["box", "zone", "map"])
def test_cells_that_a_boundary_prescribes_keep_their_bits_and_the_long_waves_of_the_others_are_the_driving_ones(
    grid, length
):
    """A frame that differs, such as one of another time, adds nothing to the waves of the cells that it leaves."""
    free = np.zeros(grid.shape, bool)
    inner = slice(2, -2), slice(None) if grid is ZONE else slice(2, -2)
    free[inner] = True
    made, state, driving = nudging(grid, length, free=free), states(grid), states(grid, 1)[:, :2]
    found = made(state, driving)
    frame = torch.from_numpy(~free)
    assert torch.equal(found[..., frame], state[..., frame])
    left = [made.large((driving - one[:, [2, 0]])[..., *inner]) for one in (state, found)]
    assert left[1].abs().max() < 1e-6 < 0.1 < left[0].abs().max()


def test_a_frame_that_leaves_a_row_is_refused():
    free = np.zeros(BOX.shape, bool)
    free[5, 2:-2] = True
    with pytest.raises(ValueError, match="two rows and columns or more .* got 1 x 16"):
        nudging(BOX, 2.5e6, free=free)


def test_waves_are_orthonormal_and_as_long_as_they_are():
    for matrix in (cosines(9), harmonics(9)[0], harmonics(10)[0]):
        assert_close(matrix @ matrix.T, np.eye(len(matrix)), rtol=0, atol=1e-12)
    down, along = extent(MAP)
    assert down == pytest.approx(11e5, rel=0.01) and along == pytest.approx(14e5, rel=0.01)
    down, along = extent(ZONE)
    radius = ERA5.earth_radius
    rows = np.cos(np.radians(ZONE.latitude)).mean()
    assert down == pytest.approx(np.radians(40) * radius, rel=1e-3)
    assert along == pytest.approx(2 * np.pi * radius * rows, rel=5e-3)
    north, east, length = waves_of(ZONE)
    eastward = np.cos(3 * np.radians(ZONE.longitude - ZONE.longitude[0]))[None] * np.ones((8, 1))
    power = (north @ eastward @ east.T) ** 2
    assert length.ravel()[power.argmax()] == pytest.approx(along / 3) and power.max() > 0.999 * power.sum()
    north, east, length = waves_of(BOX)
    southward = np.cos(2 * np.pi * (np.arange(12) + 0.5) / 12)[:, None] * np.ones((1, 20))
    power = (north @ southward @ east.T) ** 2
    assert length.ravel()[power.argmax()] == pytest.approx(extent(BOX)[0]) and power.max() > 0.999 * power.sum()


@pytest.mark.parametrize("length", [1e4, 1e8])
def test_a_length_that_the_domain_has_no_waves_of_is_refused(length):
    with pytest.raises(ValueError, match=r"length_km above \d+, the shortest wave of 12 x 20 box.*its longest, got"):
        nudging(BOX, length)
