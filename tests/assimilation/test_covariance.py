"""The static covariance: its adjoint, what it estimates of its own draws, locality, balance, its file."""

import dataclasses

import numpy as np
import pytest
import torch
import xarray as xr

from emulator.assimilation.covariance import SpectralCovariance, estimated, fingerprint_of, places
from emulator.data.channels import Channels
from emulator.planet.grid import Grid
from emulator.sphere.random_fields import SphericalNoise, of_length
from emulator.sphere.transform import SphericalTransform, VectorTransform

GRID = Grid.gaussian(16)
CHANNELS = Channels(
    ("temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity", "surface_pressure"),
    (2, 2, 2, 2, 0),
)


def errors(count: int, length: float = 0.3) -> torch.Tensor:
    """Smooth errors of a prescribed length; winds of a streamfunction, and temperature in balance with it."""
    noise, generator = SphericalNoise(GRID, of_length(15, length)), np.random.default_rng(3)
    draws = noise.draw(generator, count * CHANNELS.count).double().view(count, -1, *GRID.shape)
    scalars, winds = (kind(*GRID.shape, lmax=16).double() for kind in (SphericalTransform, VectorTransform))
    rotation = scalars.analysis(draws[:, 2:4].movedim((2, 3), (0, 1)))
    u, v = winds.synthesis(torch.zeros_like(rotation), rotation)
    sine = torch.from_numpy(np.sin(np.deg2rad(GRID.latitude)))[:, None]
    temperature = draws[:, 0:2] * 0.1 + 3 * sine * draws[:, 2:4]
    u, v = (each.movedim((0, 1), (2, 3)) for each in (u, v))
    return torch.cat([temperature, u, v, draws[:, 6:8] * 1e-3, draws[:, 8:9] * 100], 1)


@pytest.fixture(scope="module")
def covariance():
    return estimated(GRID, CHANNELS, errors(40))


def test_root_and_its_adjoint_are_transposes(covariance):
    generator = torch.Generator().manual_seed(1)
    control = torch.randn(2, covariance.size, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(2, CHANNELS.count, *GRID.shape, generator=generator, dtype=torch.float64)
    increment = covariance(control)
    (adjoint,) = torch.autograd.grad(increment, control, weight)
    forward, backward = (increment * weight).sum().detach(), (adjoint * control).sum().detach()
    torch.testing.assert_close(forward, backward, rtol=1e-10, atol=0)


@pytest.mark.slow
def test_what_is_estimated_of_its_own_draws_is_the_covariance(covariance):
    again = estimated(GRID, CHANNELS, covariance.draw(np.random.default_rng(0), 150))
    for one, other in zip(covariance.tables.deviation, again.tables.deviation, strict=True):
        torch.testing.assert_close(other, one, rtol=0.15, atol=0)
    root, other = (each.tables.wind for each in (covariance, again))
    products = [each @ each.mT for each in (root, other)]
    torch.testing.assert_close(products[1], products[0], rtol=0.4, atol=0.12 * float(products[0].max()))


@pytest.mark.slow
def test_variance_of_draws_is_that_of_the_errors(covariance):
    drawn = covariance.draw(np.random.default_rng(1), 100).square().mean((0, 2, 3)).sqrt()
    torch.testing.assert_close(drawn, errors(40).square().mean((0, 2, 3)).sqrt(), rtol=0.15, atol=0)


def test_scale_is_a_factor_of_the_deviations(covariance):
    twice = SpectralCovariance(GRID, CHANNELS, covariance.tables, scale=2.0)
    control = torch.from_numpy(np.random.default_rng(2).standard_normal((1, covariance.size)))
    torch.testing.assert_close(twice(control), 2 * covariance(control))


def response(covariance, channel: int, row: int, column: int) -> torch.Tensor:
    """`B` times a unit vector, `(channel, nlat, nlon)`: what one observation there changes, up to a factor."""
    control = torch.zeros(1, covariance.size, dtype=torch.float64, requires_grad=True)
    (adjoint,) = torch.autograd.grad(covariance(control)[0, channel, row, column], control)
    with torch.no_grad():
        return covariance(adjoint)[0]


def test_an_increment_is_local_and_decays_with_distance():
    surface = Channels(("surface_pressure",), (0,))
    covariance = estimated(GRID, surface, errors(300, 0.35)[:, 8:9])
    field = response(covariance, 0, 8, 10)[0]
    along = field[8] / field[8, 10]
    assert float(along[10]) == pytest.approx(1) and float(field.abs().max()) == pytest.approx(float(field[8, 10]))
    arc = torch.deg2rad(torch.tensor(11.25)) * torch.arange(1, 4) * float(np.cos(np.deg2rad(GRID.latitude[8])))
    torch.testing.assert_close(along[11:14], torch.exp(-((arc / 0.35) ** 2) / 2).double(), rtol=0, atol=0.08)
    assert float(along[26].abs()) < 0.1  # the other side of the planet


def test_mass_and_wind_are_in_geostrophic_balance(covariance):
    """A warm anomaly turns the wind, the other way round in the other hemisphere."""
    turns = []
    for row in (3, 12):
        wind = response(covariance, 0, row, 10)[2]
        turns.append(float(wind[row - 1, 10] - wind[row + 1, 10]))  # westerly shear across the anomaly
    assert turns[0] * turns[1] < 0 and min(map(abs, turns)) > 1
    plain = dataclasses.replace(covariance.tables, balance=torch.zeros_like(covariance.tables.balance))
    assert not bool(response(SpectralCovariance(GRID, CHANNELS, plain), 0, 3, 10)[2].any())


def test_leading_modes_keep_most_of_the_variance(covariance):
    fewer = estimated(GRID, CHANNELS, errors(40), modes=1)
    assert fewer.size < covariance.size
    kept, whole = (each.tables.wind[0].square().sum() for each in (fewer, covariance))
    assert 0.5 < float(kept / whole) < 1


def test_numbers_of_a_control_vector_have_places_of_their_own():
    place, size = places(5)
    assert len(place) == len(set(place.tolist())) == 25
    assert sorted(set(size.tolist())) == pytest.approx([0.5**0.5, 1])


def test_a_file_gives_the_same_back_and_refuses_what_it_is_not_for(covariance, tmp_path):
    covariance.save(tmp_path / "covariance.nc")
    loaded = SpectralCovariance.load(tmp_path / "covariance.nc", GRID, CHANNELS)
    xr.Dataset({"a": 1}).to_netcdf(tmp_path / "other.nc")
    (tmp_path / "text.nc").write_text("none")
    for other in ("other.nc", "text.nc"):
        with pytest.raises(ValueError, match="Expected a covariance of background errors at"):
            fingerprint_of(tmp_path / other)
    assert fingerprint_of(tmp_path / "covariance.nc") is None
    control = torch.from_numpy(np.random.default_rng(4).standard_normal((1, covariance.size)))
    assert torch.equal(loaded(control), covariance(control))
    with pytest.raises(ValueError, match="Expected a covariance of temperature"):
        SpectralCovariance.load(tmp_path / "covariance.nc", GRID, Channels(("temperature",), (2,)))
    with pytest.raises(ValueError, match="on a Gaussian|on a gaussian|Expected a covariance of"):
        SpectralCovariance.load(tmp_path / "covariance.nc", Grid.gaussian(8), CHANNELS)


def test_samples_that_give_no_covariance_are_refused():
    with pytest.raises(ValueError, match="at least two samples"):
        estimated(GRID, CHANNELS, errors(1))
    with pytest.raises(ValueError, match="finite"):
        estimated(GRID, CHANNELS, errors(3) * torch.nan)
