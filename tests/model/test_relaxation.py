"""Damped persistence by degree: rates against closed forms, winds as vectors, and what refuses it."""

import dataclasses

import numpy as np
import pytest
import torch
from small_planet import numpy_statistics
from small_training import CONFIG, buffers_of, samples_of, trainer
from together import together

from emulator.model.assemble import buffers, make_step, states_of
from emulator.model.relaxation import Relaxation, rates
from emulator.planet.grid import Grid
from emulator.training.options import StartOptions, TrainOptions

BY_DEGREE = dataclasses.replace(CONFIG, damping_by="degree")
NAMES = ["temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity", "surface_pressure"]


def positions(channels, name):
    return [n for n, channel in enumerate(channels) if channel.name == name]


def course(times, seed):
    """A series, and the share of it that a first-order autoregression takes off at a step."""
    a = np.random.default_rng(seed).normal(size=times).cumsum()
    return a, (np.diff(a) ** 2).sum() / (2 * (a[:-1] ** 2).sum())


@pytest.fixture(scope="module")
def harmonic_planet(planet):
    """Temperature: degree 3, surface pressure: degree 5, winds: toroidal of degree 2, each with a course of its own."""
    dataset = planet.copy(deep=True)
    latitude, longitude = (np.radians(angle) for angle in Grid.gaussian(12).mesh())
    s, c = np.sin(latitude), np.cos(latitude)
    patterns = {
        "temperature": (5 * s**3 - 3 * s) / 2,
        "surface_pressure": c**5 * np.cos(5 * longitude),
        # of the stream function sin(latitude) cos(latitude) cos(longitude)
        "u_component_of_wind": (s**2 - c**2) * np.cos(longitude),
        "v_component_of_wind": -s * np.sin(longitude),
    }
    for name, pattern in patterns.items():
        series = course(dataset.sizes["time"], 1 if "wind" in name else len(name))[0]
        shape = (-1, *[1] * (dataset[name].ndim - 1))
        dataset[name][:] = (series.reshape(shape) * pattern).astype(np.float32)
    return dataset


def test_rates_are_those_of_the_degree_in_which_a_field_lives(harmonic_planet):
    samples = samples_of(harmonic_planet)
    channels = states_of(samples.layout)
    nothing = torch.zeros(len(channels), 12, 24)
    found = rates(samples, channels, nothing, torch.full((len(channels),), 1e-4))
    times = harmonic_planet.sizes["time"]
    expected = {"temperature": (3, course(times, 11)[1]), "surface_pressure": (5, course(times, 16)[1])}
    expected |= {name: (2, course(times, 1)[1]) for name in ("u_component_of_wind", "v_component_of_wind")}
    for name, (degree, rate) in expected.items():
        for n in positions(channels, name):
            assert found[n, degree] == pytest.approx(rate, rel=1e-4)
    half = rates(samples, channels, nothing, torch.zeros(len(channels)), damping=0.5)
    n = positions(channels, "temperature")[0]
    assert half[n, 3] == pytest.approx(found[n, 3].item() / 2, rel=1e-6)
    held = rates(samples, channels, nothing, torch.full((len(channels),), 0.3))
    assert held.min() == pytest.approx(0.3) and held.max() <= 1


def test_each_degree_is_damped_by_its_rate_and_winds_are_vectors(harmonic_planet):
    samples = samples_of(harmonic_planet)
    channels, generator = states_of(samples.layout), torch.Generator().manual_seed(0)
    chosen = torch.rand(len(channels), 12, generator=generator)
    u, v = (positions(channels, f"{c}_component_of_wind") for c in "uv")
    chosen[v] = chosen[u]
    state = samples.state(5)[None]
    kept = Relaxation(channels, samples.grid, chosen)(state, torch.zeros_like(state[0]))
    for name, degree in (
        ("temperature", 3),
        ("surface_pressure", 5),
        ("u_component_of_wind", 2),
        ("v_component_of_wind", 2),
    ):
        for n in positions(channels, name):
            wanted = state[0, n] * (1 - chosen[n, degree])
            torch.testing.assert_close(kept[0, n], wanted, rtol=0, atol=2e-6 * float(state[0, n].abs().max()))


def test_a_state_at_rest_stays_and_no_rate_changes_nothing(planet):
    samples = samples_of(planet)
    channels, state = states_of(samples.layout), samples.state(3)[None]
    resting = Relaxation(channels, samples.grid, torch.ones(len(channels), 12))
    torch.testing.assert_close(resting(state, state[0]), state, rtol=0, atol=0)
    still = Relaxation(channels, samples.grid, torch.zeros(len(channels), 12))
    torch.testing.assert_close(still(state, torch.zeros_like(state[0])), state, rtol=0, atol=0)


def test_gradients_pass(planet):
    samples = samples_of(planet)
    channels = states_of(samples.layout)
    chosen = torch.rand(len(channels), 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    layer = Relaxation(channels, samples.grid, chosen).double()
    state, other = (samples.state(n)[None].double().requires_grad_() for n in (2, 7))
    resting = torch.zeros_like(state[0])
    # linear and self-adjoint in the area's inner product
    area = torch.from_numpy(samples.grid.area)
    one = (layer(state, resting) * other * area).sum()
    two = (layer(other, resting) * state * area).sum()
    torch.testing.assert_close(one, two, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(one, state)
    torch.testing.assert_close(gradient, layer(other, resting) * area, rtol=1e-9, atol=1e-12)


def test_a_training_by_degree_is_loaded_as_it_was(planet, tmp_path):
    made = trainer(planet, tmp_path, config=BY_DEGREE)
    step = made.step
    assert (step.damping == 0).all() and (step.relaxation.rates > 0).any()
    samples = samples_of(planet, BY_DEGREE)
    assert step.relaxation.rates.shape == (samples.layout.prognostic.count, 12)
    state = step.state_dict()
    again = make_step(
        BY_DEGREE.network, samples.layout, samples.grid, buffers_of(samples, numpy_statistics(planet), BY_DEGREE), None
    )
    again.load_state_dict(state)
    torch.testing.assert_close(again.relaxation.rates, step.relaxation.rates, rtol=0, atol=0)


def in_bands(space, state, resting, rates, names):
    from emulator.networks.signature import Channel

    channels = [Channel(name, "state") for name in names]
    layer = Relaxation(channels, Grid.gaussian(12), rates, space).double()
    return space.whole(layer(space.cut(state), space.cut(resting)), 12)


def test_two_processes_give_what_one_gives():
    generator = torch.Generator().manual_seed(2)
    state, resting = torch.randn(2, 2, 4, 12, 24, generator=generator, dtype=torch.float64)
    resting, chosen = resting[0], torch.rand(4, 12, generator=generator, dtype=torch.float64)
    names = ["temperature", "u_component_of_wind", "v_component_of_wind", "surface_pressure"]
    alone = together(1, in_bands, state, resting, chosen, names)[0]
    for part in together(2, in_bands, state, resting, chosen, names):
        torch.testing.assert_close(part, alone, rtol=1e-12, atol=1e-12)


def test_what_has_no_degrees_is_refused(planet):
    region = planet.isel(longitude=slice(0, 10))
    samples = samples_of(region)
    with pytest.raises(ValueError, match="for train.damping_by degree; channel fits all"):
        buffers(samples, numpy_statistics(region), damping_by="degree")


@pytest.mark.parametrize("more", [{"steps": (6.0, 12.0)}, {"predict": "state"}])
def test_options_that_do_not_go_together_are_refused(more):
    with pytest.raises(
        ValueError, match="Expected train.damping_by channel with train.steps, train.gaps or a prediction"
    ):
        TrainOptions.of({**dataclasses.asdict(CONFIG), "damping_by": "degree", **more})


def test_weights_start_a_training_of_the_same_damping_alone():
    from emulator.training.start import check_kind

    options = dataclasses.replace(BY_DEGREE, start=StartOptions(checkpoint="one", statistics="old"))
    saved = {"config": {"network": CONFIG.network, "predict": "change"}}
    with pytest.raises(
        ValueError, match="Expected damping_by channel, as the checkpoint one that it starts from has, got deg"
    ):
        check_kind(options, saved)
