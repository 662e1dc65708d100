import dataclasses

import numpy as np
import pytest
import torch

from emulator.data.channels import Channels, Layout
from emulator.data.forcing import Forcing
from emulator.forecasting.ensembles import InitialStates, bred, check_ensemble, noise, perturbed, size_of
from emulator.forecasting.options import EnsembleOptions
from emulator.planet.calendar import TimeStep
from emulator.planet.grid import Grid
from emulator.sphere.random_fields import SphericalNoise, generator_of, power_law
from emulator.verify.metrics.spectra import power_spectrum


class Bounds:
    """What of a step the perturbations use."""

    change_std = torch.tensor([2.0, 0.5]).view(2, 1, 1)
    lower, upper = torch.full((2, 1, 1), -100.0), torch.full((2, 1, 1), 100.0)


@pytest.mark.parametrize("grid", [Grid.gaussian(24), Grid.equiangular(33, 64, poles=True)])
def test_noise_has_the_spectrum_that_was_asked_for(grid):
    share = np.zeros(12)
    share[[2, 5, 11]] = 0.5, 0.3, 0.2
    fields = SphericalNoise(grid, share).draw(np.random.default_rng(0), 400).numpy()
    found = power_spectrum(fields, grid).mean(axis=0)
    # 2l + 1 independent squares per field: the standard error of a mean of 400 is sqrt(2 / (400 (2l + 1)))
    for degree in (2, 5, 11):
        error = share[degree] * np.sqrt(2 / (400 * (2 * degree + 1)))
        assert abs(found[degree] - share[degree]) < 4 * error
    np.testing.assert_allclose(np.delete(found, [2, 5, 11]), 0, atol=1e-10)


def test_noise_has_unit_variance_everywhere_and_no_mean():
    fields = SphericalNoise(Grid.gaussian(16)).draw(np.random.default_rng(1), 3000).numpy()
    np.testing.assert_allclose(fields.var(axis=0), 1.0, atol=0.15)  # at the poles as on the equator
    np.testing.assert_allclose(fields.mean(axis=0), 0.0, atol=0.1)
    rows = fields.var(axis=(0, 2))
    np.testing.assert_allclose(rows, 1.0, atol=0.06)


def test_noise_of_a_member_depends_on_seed_time_and_member_alone():
    source, channels = SphericalNoise(Grid.gaussian(8)), Channels(("a", "b"), (3, 0))
    time = np.datetime64("2001-01-01T06", "ns")
    first = noise(source, channels, generator_of(1, time, 2))
    torch.testing.assert_close(first, noise(source, channels, generator_of(1, time, 2)), rtol=0, atol=0)
    others = [(2, time, 2), (1, time + np.timedelta64(6, "h"), 2), (1, time, 3)]
    for other in others:
        assert not torch.equal(first, noise(source, channels, generator_of(*other)))


def test_neighbouring_levels_are_correlated_and_variables_are_not():
    source, channels = SphericalNoise(Grid.gaussian(8)), Channels(("a", "b"), (2, 0))
    drawn = np.stack([noise(source, channels, generator_of(0, n, 0), 0.7).numpy() for n in range(600)])
    at = drawn[:, :, 3, 5]
    correlation = np.corrcoef(at.T)
    np.testing.assert_allclose(correlation[0, 1], 0.7, atol=0.08)
    np.testing.assert_allclose(correlation[:2, 2], 0, atol=0.13)


def test_bad_spectra_and_grids_are_refused():
    with pytest.raises(ValueError, match="at most 8 wavenumbers"):
        SphericalNoise(Grid.gaussian(8), np.ones(9))
    with pytest.raises(ValueError, match="non-negative"):
        SphericalNoise(Grid.gaussian(8), [-1.0, 2.0])
    with pytest.raises(ValueError, match="global Gaussian or equal-angle"):
        SphericalNoise(Grid.from_coordinates([10.0, 5.0, 0.0], [0.0, 5.0]))
    np.testing.assert_allclose(power_law(20).sum(), 1.0)
    assert power_law(20, lowest=4)[:4].sum() == 0


def test_perturbations_are_in_units_of_a_steps_change_and_stay_in_bounds():
    state = torch.zeros(2, 4, 8)
    one = torch.ones(1, 2, 4, 8)
    torch.testing.assert_close(perturbed(Bounds, state[None], one)[0, :, 0, 0], torch.tensor([2.0, 0.5]))
    assert perturbed(Bounds, state[None], 1e3 * one).max() == 100.0
    outside = torch.full((2, 4, 8), 150.0)
    torch.testing.assert_close(perturbed(Bounds, outside, torch.zeros(2, 4, 8)), outside)


def test_bred_vectors_find_the_fastest_growing_pattern():
    """A linear model with one growing direction: breeding turns every start into it, at the amplitude asked for."""
    grid = Grid.gaussian(4)
    area = torch.as_tensor(grid.area)
    growing = torch.zeros(2, *grid.shape)
    growing[0, 1, 2], growing[1, 2, 3] = 1.0, -0.5
    unit = growing / growing.norm()

    def advance(state, cycle):
        along = (state * unit).sum((-3, -2, -1), keepdim=True)
        return 0.9 * state + 1.6 * along * unit

    states = [torch.zeros(2, *grid.shape) for _ in range(30)]
    start = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 2, *grid.shape))).float()
    vectors = bred(Bounds, states, start, advance, area, 0.3) * Bounds.change_std
    torch.testing.assert_close(size_of(Bounds, vectors, area), torch.full((3,), 0.3, dtype=torch.float64))
    for vector in vectors:
        assert abs(torch.nn.functional.cosine_similarity(vector.flatten(), unit.flatten(), dim=0)) > 0.9999


@pytest.mark.parametrize("history", [1, 2])
def test_a_missing_slot_is_no_initial_time(planet, history):
    """Nor one from which an ensemble's analyses come; the times beside it are as they were."""
    gap = np.isin(np.arange(48), [20])
    data = planet.assign(missing=("time", gap)).assign_attrs(time_step_seconds=21600.0)

    class Model:
        layout = dataclasses.replace(Layout.of(data, {"prognostic": ["surface_pressure"]}), history=history)
        device, change_std = torch.device("cpu"), torch.ones(1)

    def states(options=None):
        return InitialStates(Model, data, Forcing(data, Model.layout), 2, options)

    times = data["time"].values
    found, _ = states()(times[[19, 23]])
    assert torch.isfinite(found).all()
    with pytest.raises(ValueError, match="initial times that the store has, it has no fields at 2001-01-06T00"):
        states()(times[[19, 20]])
    with pytest.raises(ValueError, match="before 2001-01-06T12.* for the ensemble, .* none at 2001-01-06T00"):
        states(EnsembleOptions(members=2, kind="lagged", lag_hours=12)).check(times[[22]])


@pytest.mark.parametrize("kind", ["noise", "bred", "lagged"])
def test_members_without_a_state_to_differ_by_are_refused(planet, kind):
    layout = Layout.of(planet.assign_attrs(time_step_seconds=21600.0), {"prognostic": []})
    with pytest.raises(ValueError, match=f"prognostic variables for an ensemble of kind {kind}"):
        check_ensemble(EnsembleOptions(2, kind), layout, TimeStep(21600.0))
    check_ensemble(EnsembleOptions(2, "none"), layout, TimeStep(21600.0))


@pytest.mark.parametrize(("kind", "option"), [("bred", "cycle_hours"), ("lagged", "lag_hours")])
def test_ensembles_that_count_in_hours_are_refused_for_months(planet, kind, option):
    layout = Layout.of(planet.assign_attrs(time_step_seconds=21600.0))
    with pytest.raises(ValueError, match=f"kind none or noise for a step of 1 month, got {kind}, .*{option}"):
        check_ensemble(EnsembleOptions(2, kind), layout, TimeStep(months=1))
    check_ensemble(EnsembleOptions(2, "noise"), layout, TimeStep(months=1))
