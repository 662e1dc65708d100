"""Distances on the sphere, and how weights fall with them."""

import numpy as np
import pytest
import torch

from emulator.assimilation.localisation import gaspari_cohn
from emulator.assimilation.places import SpherePlaces
from emulator.data.channels import Channels
from emulator.planet.constants import ERA5
from emulator.planet.grid import Grid

GRID, KILOMETRES = Grid.gaussian(8), ERA5.earth_radius / 1000


def test_distances_are_arcs_of_great_circles():
    places = SpherePlaces(
        GRID, Channels(("temperature", "surface_pressure"), (2, 0)), {"temperature": np.array([0.3, 0.8])}
    )
    found = places.distance(np.array([90.0, GRID.latitude[2]]), np.array([0.0, GRID.longitude[3] + 180])).numpy()
    assert found.shape == (8 * 16, 2)
    pole = KILOMETRES * np.deg2rad(90 - np.repeat(GRID.latitude, 16))
    np.testing.assert_allclose(found[:, 0], pole, rtol=1e-6)
    assert found[2 * 16 + 3, 1] == pytest.approx(
        KILOMETRES * np.pi - 2 * KILOMETRES * np.deg2rad(abs(GRID.latitude[2])), rel=1e-6
    )
    np.testing.assert_array_equal(places.level, [0.3, 0.8, np.nan])


def test_weights_fall_from_one_to_nothing():
    """Values of the fifth-order function at a half and the whole of the half-width, by hand from its formula."""
    weight = gaspari_cohn(torch.tensor([0.0, 2.5, 5.0, 7.5, 10.0, 20.0]).double(), 10.0)
    expected = [
        1,
        1 - 5 / 12 + 5 / 64 + 1 / 32 - 1 / 128,
        5 / 24,
        4 - 7.5 + 3.75 + 2.109375 - 2.53125 + 0.6328125 - 4 / 9,
        0,
        0,
    ]
    torch.testing.assert_close(weight, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    fine = gaspari_cohn(torch.linspace(0, 12, 500).double(), 10.0)
    assert bool((fine.diff() <= 1e-12).all())
