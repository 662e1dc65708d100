"""Grids that lack rows at one pole or at both are used exactly, or refused with what else they can be made."""

import numpy as np
import pytest
import torch

from emulator.networks.edges import pad_sphere
from emulator.networks.registry import NetworkError, build
from emulator.planet.grid import Grid
from emulator.sphere.random_fields import SphericalNoise
from emulator.sphere.transform import expect_transformable, transform

STEP = 180 / 24
COLUMNS = np.arange(48) * STEP
WHOLE = np.linspace(90, -90, 25)
ROWS = {"north alone": WHOLE[:-1], "south alone": WHOLE[1:], "both cut": WHOLE[1:-1]}
GRIDS = {name: Grid.from_coordinates(rows, COLUMNS) for name, rows in ROWS.items()}
GOOD = {
    "poles": Grid.from_coordinates(WHOLE, COLUMNS),
    "half a cell away": Grid.equiangular(24),
    "gaussian": Grid.gaussian(24),
    "rounded": Grid.from_coordinates(Grid.equiangular(24).latitude.astype(np.float32), COLUMNS),
}
OPTIONS = {
    "sfno": {"embed_dim": 8, "blocks": 1},
    "unet": {"width": 4, "depth": 1},
}


@pytest.mark.parametrize("name", GRIDS)
def test_they_cover_the_globe_and_are_not_taken_for_whole(name):
    grid = GRIDS[name]
    assert grid.is_global() and grid.kind == "regular" and not grid.has_poles and not grid.mirrors_at_poles
    np.testing.assert_allclose(grid.area.sum(), 1, rtol=1e-13)
    np.testing.assert_allclose(grid.mean(np.sin(np.radians(grid.mesh()[0])) ** 2), 1 / 3, rtol=0.02)
    assert "rows: 25, columns: 48, poles: true" in grid.remedy


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("kind", OPTIONS)
def test_networks_that_need_the_rows_refuse_them_with_the_way_out(name, kind):
    with pytest.raises(NetworkError, match=r"24|23.*rows: 25, columns: 48, poles: true"):
        build({"kind": kind, **OPTIONS[kind]}, 2, 2, GRIDS[name])


@pytest.mark.parametrize("name", GRIDS)
def test_noise_and_spectra_refuse_them(name):
    for use in (transform, expect_transformable, SphericalNoise):
        with pytest.raises(ValueError, match=r"rows at a pole; ingest it with grid: .*rows: 25, .*poles: true"):
            use(GRIDS[name])


@pytest.mark.parametrize("name", GOOD)
def test_whole_grids_serve_as_before(name):
    grid = GOOD[name]
    assert grid.mirrors_at_poles and not grid.remedy and grid.has_poles == (name == "poles")
    for kind in OPTIONS:
        build({"kind": kind, **OPTIONS[kind]}, 2, 2, grid)
    latitude, longitude = map(np.radians, grid.mesh())
    coefficients = transform(grid).analysis(torch.tensor(np.cos(latitude) * np.cos(longitude), dtype=torch.float32))
    power = coefficients.square().sum((1, 2))
    assert float(power[1] / power.sum()) > 1 - 1e-8  # wavenumber 1 and nothing else


def test_uneven_rows_with_both_poles_go_on_beyond_them():
    """The U-Net pads over poles by what the rows are, evenly spaced or not: a field of wavenumber 1 stays odd about them."""
    rows = np.array([90, 75, 55, 30, 10, -10, -30, -55, -75, -90.0])
    grid = Grid.from_coordinates(rows, np.arange(12) * 30.0)
    assert grid.kind == "regular" and grid.has_poles and grid.mirrors_at_poles
    field = torch.tensor(np.cos(np.radians(grid.mesh()[0])) * np.cos(np.radians(grid.mesh()[1])))
    padded = pad_sphere(field, 1, grid.has_poles)
    torch.testing.assert_close(padded[0, 1:-1], field[1].roll(6), atol=1e-12, rtol=0)
    torch.testing.assert_close(padded[0, 1:-1], -padded[2, 1:-1], atol=1e-12, rtol=0)
