"""Noise with the spectra of what a network that samples predicts: its power, and that it is the same after any restart."""

import contextlib
import dataclasses

import numpy as np
import pytest
import torch
from small_planet import small_planet
from small_store import FREE, store_of
from small_training import RECIPE, VALUES, trainer

from emulator.files.interruption import Interrupted
from emulator.model import checkpoint
from emulator.model.assemble import conditions, network_of
from emulator.model.generative import measure_noise, target
from emulator.model.noise import NetworkNoise, forecast_key
from emulator.model.saved_model import load_model
from emulator.model.stepper import Cascade
from emulator.parallel.processes import Processes
from emulator.planet.grid import Grid
from emulator.training.options import TrainOptions
from emulator.training.options.phases import Phase
from emulator.training.order import Order
from emulator.training.run import StageHooks, Training
from emulator.verify.metrics.spectra import power_spectrum

MEMBERS = 500
SHORT = {"phases": [{"updates": 4, "batch_size": 2}], "ema": 0.0}
WITH_SPECTRA = [
    {"kind": "flow_matching", "steps": 3},
    {"kind": "interpolant", "steps": 3, "noise_level": 0.8},
    {"kind": "edm", "steps": 3, "path": "angle"},
]


def made_with(planet, directory, chosen):
    config = TrainOptions.of(VALUES | SHORT | {"objective": chosen})
    config = dataclasses.replace(config, network=network_of(vars(config)))
    return trainer(planet, directory, dataclasses.replace(RECIPE, phases=(Phase(4, batch_size=2),)), config=config)


def predicted(made):
    """What the network predicts at all times of a training, `(time, channel, *space)`."""
    batch = made.samples.batch(made.samples.some_starts(1), 1)
    return target(made.step, batch.start(), batch.truth(0)).double().numpy()


class Zero(torch.nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, x, condition=None):
        return torch.zeros_like(x[:, : self.outputs])


@pytest.mark.parametrize("chosen", WITH_SPECTRA, ids=lambda chosen: chosen["kind"])
def test_samples_of_a_network_of_zeros_have_the_power_of_the_change_at_every_degree(planet, tmp_path, chosen):
    made = made_with(planet, tmp_path, chosen | {"spectrum": "target"})
    step, grid = made.step, made.samples.grid
    measure_noise(step, made.samples)
    network, drawn = step.network, step.noise.rows(forecast_key(0, np.datetime64(0, "h"), n, 1) for n in range(MEMBERS))
    network.network = Zero(network.outputs)
    with torch.no_grad():
        samples = network(torch.zeros(MEMBERS, 1, *grid.shape), noise=drawn).double().numpy()
    # a network that tells no drift leaves the Brownian motion that fades: the integral of (1 - s)^2
    variance = chosen["noise_level"] ** 2 / 3 if chosen["kind"] == "interpolant" else 1.0
    wanted, degrees = power_spectrum(predicted(made), grid).mean(0), step.noise_power.shape[1]
    share = wanted[:, :degrees] / wanted[:, :degrees].sum(1, keepdims=True)
    found = power_spectrum(samples, grid).mean(0)[:, :degrees]
    strays = np.sqrt(2 / (2 * np.arange(degrees) + 1) / MEMBERS)  # of a mean of squares of 2l + 1 numbers
    np.testing.assert_array_less(np.abs(found - variance * share), 5 * strays * variance * share + 1e-7)
    cells = np.sqrt(2 / MEMBERS)
    np.testing.assert_allclose(samples.var(0) / variance, 1, atol=6 * cells)
    # of what changes the power itself is one, as its units have it, but for the fields' mean patterns
    states = made.samples.layout.prognostic.count
    np.testing.assert_allclose(wanted[:states].sum(1), 1, rtol=0.1)


def test_without_spectra_the_same_bits_are_drawn_and_kept_as_before(planet, tmp_path):
    made = made_with(planet, tmp_path, {"kind": "edm"})
    measure_noise(made.step, made.samples)
    assert not any("power" in name for name in made.step.state_dict())
    key, outputs = forecast_key(3, np.datetime64(0, "h"), 2, 1), made.step.network.outputs
    assert torch.equal(made.step.noise.draw(key), NetworkNoise(made.samples.grid, (0.0,), outputs + 1).draw(key))


def test_processes_draw_the_rows_that_one_does_and_spectra_change_sizes_alone(planet, tmp_path):
    made = made_with(planet, tmp_path, {"kind": "edm", "spectrum": "target"})
    draw = made._order.noise
    white = draw.rows([(1, 2, 3)])
    measure_noise(made.step, made.samples)
    assert not torch.allclose(draw.rows([(1, 2, 3)]), white, atol=0.1)  # what was made before draws with them too
    assert torch.equal(draw.rows([(1, 2, 3)])[:, -1], white[:, -1])  # the level of the noise
    parts = [Order(made.samples, made.recipe, Processes(rank, 2), draw).batch(1).noise for rank in range(2)]
    assert torch.equal(torch.cat(parts), made._order.batch(1).noise)


def test_spectra_are_measured_once_and_come_with_the_checkpoint(tmp_path):
    """A stopped training goes on with those it began with, and what is loaded draws the bits that it drew."""
    store, statistics = store_of(tmp_path, small_planet(times=24))
    chosen = {"objective": {"kind": "edm", "steps": 2, "path": "angle", "spectrum": "target"}}
    given = {
        "conservation": FREE,
        "network": VALUES["network"],
        "save_every": 1,
        "store": store,
        "statistics": statistics,
    }

    def training(name, **hooks):
        options = TrainOptions.of(SHORT | given | chosen | {"output": tmp_path / name})
        return Training(options, StageHooks(**hooks))

    training("whole").run()
    asked = iter([False, False, True])
    with pytest.raises(Interrupted):
        training("parts", stopping=lambda: contextlib.nullcontext(lambda: next(asked))).run()
    with pytest.MonkeyPatch.context() as patched:  # the resumed one would begin with white noise otherwise
        patched.setattr("emulator.training.run.measure_noise", lambda step, samples: None)
        training("parts").run()
    whole, parts = (checkpoint.load(tmp_path / name / "checkpoint")[0] for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and "noise_power" in whole
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())
    step, key = load_model(tmp_path / "whole" / "checkpoint", "cpu"), forecast_key(0, np.datetime64(0, "h"), 1, 1)
    degrees = step.noise_power.shape[1]
    fresh = NetworkNoise(Grid.gaussian(12), (0.0,), step.network.outputs + 1)
    assert not torch.equal(step.noise.draw(key), fresh.draw(key))
    fresh.colour(whole["noise_power"])
    assert degrees == 12 and torch.equal(step.noise.draw(key), fresh.draw(key))


def test_a_cascade_of_other_spectra_is_refused(planet, tmp_path):
    one, other = (made_with(planet, tmp_path / n, {"kind": "edm", "spectrum": "target"}).step for n in "ab")
    Cascade([(0, one), (2, other)])
    other.begin_as(torch.ones_like(other.noise_power))
    with pytest.raises(ValueError, match="noise of the same spectra in all stages"):
        Cascade([(0, one), (2, other)])


def test_spectra_of_other_degrees_and_grids_without_any_are_refused(planet, tmp_path):
    noise, region = NetworkNoise(Grid.gaussian(12), (0.0,), 3), Grid.from_coordinates([10.0, 5.0, 0.0], [0.0, 5.0])
    with pytest.raises(ValueError, match="spectra of the 12 degrees that are drawn, got 11"):
        noise.colour(torch.ones(2, 11))
    white = noise.draw((1, 5))
    noise.colour(torch.stack([torch.zeros(12), torch.ones(12)]))  # of a channel that never changes there are none
    assert torch.equal(noise.draw((1, 5))[::2], white[::2])
    layout = made_with(planet, tmp_path, {"kind": "edm"}).samples.layout
    with pytest.raises(ValueError, match="a global Gaussian or equal-angle grid for noise, got"):
        conditions(VALUES["network"] | {"objective": {"kind": "edm", "spectrum": "target"}}, layout, region)
