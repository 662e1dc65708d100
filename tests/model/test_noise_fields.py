"""Noise of stochastic networks: its statistics are those asked for, and its bits depend on its key alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import eval_jacobi

from emulator.model.noise import NetworkNoise, forecast_key, update_key
from emulator.planet.constants import ERA5
from emulator.planet.grid import Grid
from emulator.sphere.random_fields import degrees_on, of_length
from emulator.verify.metrics.spectra import power_spectrum

GRIDS = [Grid.gaussian(24), Grid.equiangular(33, 64, poles=True), Grid.equiangular(32, 64)]
RADIUS = ERA5.earth_radius / 1e3  # km
DRAWS = 1200
TIME = np.datetime64("2001-01-01T06", "ns")


def arc(one, other):
    """Great-circle distance in radians of points given by latitude and longitude in degrees."""
    a, b, c, d = *np.moveaxis(np.radians(one), -1, 0), *np.radians(other)
    return np.arccos(np.clip(np.sin(a) * np.sin(c) + np.cos(a) * np.cos(c) * np.cos(b - d), -1, 1))


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: g.describe())
def test_the_spectra_are_those_of_the_length_scales(grid):
    noise = NetworkNoise(grid, [3000.0, 1200.0, 0.0], 2)
    assert noise.count == 6
    fields = noise.rows((7, n) for n in range(DRAWS)).numpy()
    for channel, length in enumerate((3000, 3000, 1200, 1200, 0, 0)):
        found = power_spectrum(fields[:, channel], grid).mean(0)
        degrees = grid.shape[0] if grid.kind == "gaussian" else (grid.shape[0] + 1) // 2
        whole = np.pad(of_length(degrees, length / RADIUS), (0, len(found) - degrees))
        error = whole * np.sqrt(2 / (DRAWS * (2 * np.arange(len(whole)) + 1)))  # of a mean of 2l + 1 squares a draw
        np.testing.assert_array_less(np.abs(found - whole), 4.5 * error + 1e-9)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: g.describe())
def test_noise_has_unit_variance_and_no_mean_at_every_latitude(grid):
    fields = NetworkNoise(grid, [2000.0, 700.0], 1).rows((3, n) for n in range(DRAWS)).numpy()
    np.testing.assert_allclose(fields.mean(0), 0, atol=5 / np.sqrt(DRAWS))
    np.testing.assert_allclose(fields.var(0), 1, atol=5 * np.sqrt(2 / DRAWS))
    rows = fields.var((0, 3))
    assert np.abs(rows - 1).max() < 0.15 and np.abs(rows.mean() - 1) < 0.03


@pytest.mark.parametrize("length", [1000.0, 2000.0])
def test_noise_is_isotropic_and_decorrelates_over_its_length(length):
    """Pairs of cells at about the length apart, along meridians, parallels and across the pole, are alike correlated."""
    grid = Grid.gaussian(32)
    fields = NetworkNoise(grid, [length], 8).rows((1, n) for n in range(400)).numpy()
    fields = fields.reshape(-1, *grid.shape)
    places = np.stack(grid.mesh(), -1)
    checked = 0
    for row, column in ((0, 3), (1, 0), (5, 10), (15, 0), (16, 40), (30, 63)):
        apart = arc(places, places[row, column])
        for other in np.argwhere(np.abs(apart * RADIUS / length - 1) < 0.25)[::3]:
            at = apart[tuple(other)]
            found = np.mean(fields[:, row, column] * fields[(slice(None), *other)])
            assert found == pytest.approx(np.exp(-((at * RADIUS / length) ** 2) / 2), abs=5.5 / np.sqrt(len(fields)))
            checked += 1
    assert checked > 20


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: g.describe())
@pytest.mark.parametrize("length", [2000.0, 1e6])
def test_winds_are_isotropic_vectors_of_unit_variance_up_to_the_poles(grid, length):
    """The exact covariance of all pairs of places, as complex numbers of spin 1 (Goldberg et al. 1967).

    Of u + i v and its conjugate elsewhere it is twice `sum_l p_l d^l_11(arc)` but for a phase, of u + i v there 0. So it is
    the same for all pairs as far apart, and across a pole as anywhere.
    """
    noise = NetworkNoise(grid, [length], 3, winds=[(0, 2)])
    degrees = noise._size.shape[1]
    places = np.stack(np.nonzero(noise._size[0]), 1)
    made = []
    for part in (0, 2):
        for l, m, side in places:
            coefficients = torch.zeros(degrees, degrees, 2, 3)
            coefficients[l, m, side, part] = float(noise._size[part, l, m, side])
            u, other, v = noise._synthesised(coefficients).double().numpy()
            assert not other.any()
            made.append(u + 1j * v)
    fields = np.array(made)[:, :: grid.shape[0] // 8, ::11].reshape(len(made), -1)
    where = np.stack(grid.mesh(), -1)[:: grid.shape[0] // 8, ::11].reshape(-1, 2)
    apart = np.array([arc(where, place) for place in where])
    power = of_length(degrees_on(grid), length / RADIUS, 1)[:degrees]
    cosine = np.cos(apart)
    known = sum(p * (1 + cosine) / 2 * eval_jacobi(l - 1, 0, 2, cosine) for l, p in enumerate(power) if l)
    np.testing.assert_allclose(np.abs(fields.T @ fields.conj()), 2 * np.abs(known), atol=2e-5)
    np.testing.assert_allclose(fields.T @ fields, 0, atol=2e-5)
    np.testing.assert_allclose(np.sum(np.array(made).real ** 2, 0), 1, atol=1e-5)
    np.testing.assert_allclose(np.sum(np.array(made).imag ** 2, 0), 1, atol=1e-5)


def test_winds_have_the_bits_of_their_key_and_a_memory():
    noise = NetworkNoise(GRIDS[0], [2000.0], 4, 0.5, style=1, winds=[(2, 0)])
    keys = [forecast_key(0, TIME, member, step) for member in (0, 1) for step in (1, 3)]
    rows = noise.rows(keys)
    assert torch.equal(rows[3], noise.draw(keys[3])) and rows.shape[1] == 5
    assert torch.equal(noise.picked([0, 2, 4]).rows(keys), rows[:, [0, 2, 4]])
    for some in ([1, 3], [0, 2]):
        assert torch.equal(noise.picked(some).rows(keys), rows[:, some])
    number = rows[:, 4]
    torch.testing.assert_close(number, number[:, :1, :1].expand(number.shape), rtol=1e-5, atol=1e-5)


def test_channels_are_independent_of_one_another():
    fields = NetworkNoise(GRIDS[0], [2000.0, 500.0], 2).rows((2, n) for n in range(DRAWS)).numpy()
    found = np.corrcoef(fields[:, :, 7, 9].T)
    np.testing.assert_allclose(found, np.eye(4), atol=4.5 / np.sqrt(DRAWS))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=6), st.integers(0, 2**31))
def test_a_fields_bits_depend_on_its_key_alone(rows, seed):
    noise = NetworkNoise(GRIDS[0], [2000.0, 500.0], 2)
    together = noise.rows(forecast_key(seed, TIME, *row) for row in rows)
    for row, fields in zip(rows, together, strict=True):
        assert torch.equal(noise.draw(forecast_key(seed, TIME, *row)), fields)


def test_every_number_of_a_key_matters_and_purposes_do_not_meet():
    keys = [forecast_key(0, TIME, 0, 1), forecast_key(1, TIME, 0, 1), forecast_key(0, TIME + 1, 0, 1)]
    keys += [forecast_key(0, TIME, 1, 1), forecast_key(0, TIME, 0, 2)]
    keys += [update_key(0, 0, 0, 0, 1), update_key(1, 0, 0, 0, 1), update_key(0, 1, 0, 0, 1), update_key(0, 0, 1, 0, 1)]
    keys += [update_key(0, 0, 0, 1, 1), update_key(0, 0, 0, 0, 2)]
    noise = NetworkNoise(GRIDS[0], [2000.0], 1)
    fields = noise.rows(keys).flatten(1)
    assert len({field.numpy().tobytes() for field in fields}) == len(keys)


def test_noise_with_a_memory_is_an_autoregression_of_unit_variance():
    grid, steps = Grid.gaussian(12), 4
    noise = NetworkNoise(grid, [2000.0], 2, 0.8)
    fields = torch.stack([noise.rows((n, step, 9) for step in range(1, steps + 1)) for n in range(DRAWS)]).numpy()
    at = fields[:, :, 0, ::3, ::5].reshape(DRAWS, steps, -1)
    np.testing.assert_allclose(at.var(0), 1, atol=5 * np.sqrt(2 / DRAWS))
    for apart in range(1, steps):
        found = (at[:, apart:] * at[:, :-apart]).mean((0, 2))
        np.testing.assert_allclose(found, 0.8**apart, atol=0.06)
    found = power_spectrum(fields[:, -1, 1], grid).mean(0)
    np.testing.assert_allclose(found, of_length(12, 2000 / RADIUS), rtol=0.15)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 7)), min_size=1, max_size=9), st.booleans())
def test_noise_with_a_memory_has_the_same_bits_from_whichever_step_it_goes_on(asked, small):
    """In any order, after a restart, and where earlier steps could not be held."""
    straight, other = (NetworkNoise(GRIDS[0], [2000.0], 1, 0.6) for _ in range(2))
    expected = {(m, k): straight.draw(forecast_key(0, TIME, m, k)) for m in range(3) for k in range(1, 8)}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("emulator.model.noise.HELD_BYTES", 1 if small else 1 << 20)
        for member, step in asked:
            assert torch.equal(other.draw(forecast_key(0, TIME, member, step)), expected[member, step])


@pytest.mark.parametrize("correlation", [0.0, 0.5])
@pytest.mark.parametrize("fields", [range(4), (1, 2, 5), (0, 4, 6), (6,)], ids=str)
def test_some_fields_alone_have_the_bits_that_they_have_among_all(correlation, fields):
    noise = NetworkNoise(GRIDS[0], [2000.0, 0.0], 3, correlation, style=1)
    keys = [forecast_key(0, TIME, member, step) for member in (0, 1) for step in (1, 3)]
    found, wanted = noise.picked(fields), noise.rows(keys, 0.5)[:, list(fields)]  # the style keeps its amplitude
    assert found.none(1, 2).shape == (1, 2, len(fields), *GRIDS[0].shape)
    assert torch.equal(found.rows(keys, 0.5), wanted)
    assert torch.equal(found.picked(range(len(fields))[-1:]).rows(keys, 0.5), wanted[:, -1:])


@pytest.mark.parametrize("style", [0, 3])
def test_no_noise_is_zeros_of_the_shape_of_noise(style):
    noise = NetworkNoise(Grid.gaussian(8), [2000.0, 800.0], 2, style=style)
    drawn = torch.stack([noise.rows([update_key(1, 0, row, 0, step) for step in (1, 2, 3)]) for row in range(2)])
    none = noise.none(2, 3)
    assert none.shape == drawn.shape and none.dtype == drawn.dtype and not none.any()


def test_few_degrees_are_drawn_for_long_scales():
    assert NetworkNoise(Grid.gaussian(64), [3000.0], 1)._size.shape[1] < 20
    assert NetworkNoise(Grid.gaussian(64), [3000.0, 0.0], 1)._size.shape[1] == 64
    everywhere = NetworkNoise(Grid.gaussian(16), [1e6], 1).draw((1, 1))  # far longer than the Earth: one number
    torch.testing.assert_close(everywhere, everywhere[:, :1, :1].expand(everywhere.shape), rtol=1e-4, atol=1e-4)


def test_bad_lengths_and_grids_are_refused():
    for lengths, channels in (([], 1), ([-1.0], 1), ([100.0], 0)):
        with pytest.raises(ValueError, match="length scales of at least 0 and at least one channel"):
            NetworkNoise(GRIDS[0], lengths, channels)
    for correlation in (-0.1, 1.0):
        with pytest.raises(ValueError, match="at least 0 and below 1"):
            NetworkNoise(GRIDS[0], [1000.0], 1, correlation)
    with pytest.raises(ValueError, match="global Gaussian or equal-angle"):
        NetworkNoise(Grid.from_coordinates([10.0, 5.0, 0.0], [0.0, 5.0]), [1000.0], 1)
