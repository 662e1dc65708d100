import dataclasses

import numpy as np
import pytest
import torch
from small_planet import numpy_statistics
from small_training import CONFIG as SMALL
from small_training import buffers_of, loss_of, weighted

from emulator.data.channels import Layout
from emulator.data.forcing import StepInputs
from emulator.data.normalisation import Normalizer
from emulator.data.samples import Samples
from emulator.losses.scaled import channel_weights
from emulator.model.assemble import changes
from emulator.model.bounds import envelope
from emulator.model.conserving import ConservationOptions, conservation
from emulator.model.rollout import rollout
from emulator.model.step import Step

PROGNOSTIC = ["temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity", "surface_pressure"]
CONFIG = dataclasses.replace(SMALL, prognostic=PROGNOSTIC)


def inputs_of(batch, steps=1, times=1):
    """Forcing and clock of the first steps of a batch, over and over."""
    return [StepInputs(batch.forcing[:, k], batch.clock[:, k]) for k in range(steps)] * times


@pytest.fixture(scope="module")
def parts(planet):
    dataset = planet.assign_attrs(time_step_seconds=21600.0)
    statistics = numpy_statistics(planet)
    samples = Samples(dataset, Layout.of(dataset, {"prognostic": PROGNOSTIC}))
    return samples, statistics, buffers_of(samples, statistics)


class Constant(torch.nn.Module):
    """A network that predicts the same for every state."""

    def __init__(self, channels, value=0.0):
        super().__init__()
        self.channels, self.value, self.seen = channels, value, None

    def forward(self, x):
        self.seen = x
        return torch.full((x.shape[0], self.channels, *x.shape[2:]), self.value)


def make(parts, value=0.0, kind="none"):
    samples, statistics, buffers = parts
    layout = samples.layout
    scheme = conservation(ConservationOptions.of({"kind": kind}), samples, statistics).scheme
    return Step(Constant(layout.prognostic.count + layout.diagnostic.count, value), layout, buffers, scheme)


def test_a_network_that_predicts_nothing_gives_damped_persistence(parts):
    samples, _, buffers = parts
    step, batch = make(parts), samples.batch([4], 1)
    state = batch.state[:, 0]
    result = step(state, batch.forcing[:, 0], batch.clock[:, 0])
    expected = state + buffers.damping * (buffers.resting - state)
    torch.testing.assert_close(result.state, expected)
    assert 0 < buffers.damping.min() and buffers.damping.max() <= 1
    # ... and the mean of every diagnostic
    mean = step.diagnostic_scale.mean.view(1, -1, 1, 1).expand_as(result.diagnostic)
    torch.testing.assert_close(result.diagnostic, mean)


def test_damped_persistence_comes_to_rest_at_the_time_mean(parts):
    samples, _, buffers = parts
    batch = samples.batch([0], 1)
    inputs = inputs_of(batch, times=3000)
    for result in rollout(make(parts), 3 * batch.state[:, 0], inputs):
        pass
    torch.testing.assert_close(result.state[0], buffers.resting, rtol=1e-3, atol=1e-3)


def test_a_prediction_of_one_is_one_standard_deviation_of_the_change(parts):
    samples, statistics, _ = parts
    batch = samples.batch([4], 1)
    start = batch.state[:, 0], batch.forcing[:, 0], batch.clock[:, 0]
    change = make(parts, 1.0)(*start).state - make(parts, 0.0)(*start).state
    wanted = statistics["temperature"].sel(statistic="difference_std").values
    np.testing.assert_allclose(change[0, :4].amax((1, 2)), wanted, rtol=1e-3)


def test_a_level_that_never_changes_is_held_and_a_variable_that_never_does_is_refused(planet):
    """Cloud water at 50 hPa is 0 in every analysis; the network's change of it counts for nothing."""
    dataset = planet.assign_attrs(time_step_seconds=21600.0).copy(deep=True)
    dataset["specific_humidity"][:, 0] = 0.0
    statistics = numpy_statistics(dataset)
    samples = Samples(dataset, Layout.of(dataset, {"prognostic": PROGNOSTIC}))
    step = make((samples, statistics, buffers_of(samples, statistics)), value=5.0)
    batch = samples.batch([4], 1)
    after = step(batch.state[:, 0], batch.forcing[:, 0], batch.clock[:, 0])
    assert torch.isfinite(after.state).all()
    humidity = step.fields(after.state)["specific_humidity"]
    assert (humidity[:, 0] == 0).all() and (
        humidity[:, 1:] != step.fields(batch.state[:, 0])["specific_humidity"][:, 1:]
    ).any()
    error = weighted(samples, statistics).error()
    assert torch.isfinite(error(after.state, after.diagnostic, batch.state[:, 1], batch.diagnostic[:, 0]))

    dataset["specific_humidity"][:] = 1e-3
    with pytest.raises(ValueError, match="specific_humidity does not: leave it out of train.prognostic"):
        changes(numpy_statistics(dataset), samples.layout.prognostic)


@pytest.mark.parametrize("missing", [[0], [0, 1, 7, 47], []])
def test_the_envelope_is_that_of_the_times_that_are_there(planet, missing):
    """Closed form: mean, spread and extremes over the other times, whatever lies in the missing slots (here NaN)."""
    absent = np.isin(np.arange(planet.sizes["time"]), missing)
    holes = planet.assign_attrs(time_step_seconds=21600.0).assign(missing=("time", absent))
    moving = [name for name in holes if "time" in holes[name].dims and name != "missing"]
    holes = holes.assign({name: holes[name].where(~holes["missing"]) for name in moving})
    samples = Samples(holes, Layout.of(holes, {"prognostic": PROGNOSTIC}))
    whole = torch.stack([samples.state(index) for index in np.flatnonzero(~absent)]).double()
    mean, spread, lowest, highest = envelope(samples, numpy_statistics(planet))
    torch.testing.assert_close(mean, whole.mean(0), rtol=1e-12, atol=1e-12)
    assert (mean.dtype, lowest.dtype) == (torch.float64, torch.float32)
    torch.testing.assert_close(lowest.double(), whole.min(0).values, rtol=0, atol=0)
    torch.testing.assert_close(highest.double(), whole.max(0).values, rtol=0, atol=0)
    variance = ((whole - whole.mean(0)).square().mean(0) * torch.as_tensor(samples.grid.area)).flatten(1).sum(1)
    torch.testing.assert_close(spread, variance.sqrt(), rtol=1e-6, atol=1e-12)


def test_a_period_without_any_state_is_refused(planet):
    empty = planet.assign_attrs(time_step_seconds=21600.0).assign(missing=("time", np.ones(48, bool)))
    with pytest.raises(ValueError, match="all are missing"):
        envelope(Samples(empty, Layout.of(empty, {"prognostic": PROGNOSTIC})), numpy_statistics(planet))


def test_states_stay_in_the_envelope_of_the_training_data(parts):
    samples, _, buffers = parts
    batch = samples.batch([4], 1)
    inputs = inputs_of(batch, times=200)
    for result in rollout(make(parts, 5.0), batch.state[:, 0], inputs):
        assert (result.state >= buffers.lower).all() and (result.state <= buffers.upper).all()
    everything = torch.stack([samples.state(index) for index in range(len(samples))])
    lowest, highest = everything.amin(0), everything.amax(0)
    torch.testing.assert_close(buffers.upper, highest + CONFIG.margin * (highest - lowest))
    # and nothing is touched where the training data lie
    plain, free = make(parts, 0.5), make(parts, 0.5)
    free.lower.fill_(-torch.inf)
    free.upper.fill_(torch.inf)
    arguments = batch.state[:, 0], batch.forcing[:, 0], batch.clock[:, 0]
    torch.testing.assert_close(plain(*arguments).state, free(*arguments).state, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["sequential", "projection"])
def test_budgets_close_inside_the_step_and_the_anchor_is_kept(parts, kind):
    samples, _, _ = parts
    step, batch = make(parts, 0.3, kind), samples.batch([0, 9], 4)
    inputs = inputs_of(batch, steps=4)
    for result in rollout(step, batch.state[:, 0], inputs):
        for name in ("dry_air", "water", "energy"):
            assert (result.record[f"residual_before_{name}"].abs() > 1e-7).all()
            assert (result.record[f"residual_after_{name}"].abs() < 1e-7).all()


def test_without_scheme_shares_the_network_and_corrects_nothing(parts):
    samples, _, _ = parts
    step, batch = make(parts, 0.3, "sequential"), samples.batch([0], 1)
    plain = Step.without_scheme(step)
    assert plain.network is step.network and step.scheme is not None
    assert plain(batch.state[:, 0], batch.forcing[:, 0], batch.clock[:, 0]).record == {}


def test_missing_forcing_counts_as_its_mean(parts):
    samples, _, _ = parts
    step, batch = make(parts), samples.batch([0], 1)
    forcing = batch.forcing[:, 0].clone()
    forcing[..., :5] = float("nan")
    step(batch.state[:, 0], forcing, batch.clock[:, 0])
    assert torch.isfinite(step.network.seen).all()
    where = samples.layout.prognostic.count
    assert (step.network.seen[:, where, :, :5] == 0).all()


def test_loss_of_persistence_and_mean_diagnostics_is_about_one(parts, planet):
    samples, statistics, _ = parts
    config = dataclasses.replace(CONFIG, diagnostic_weight=1.0)
    loss = loss_of(samples, statistics, config).error
    batch = samples.batch(samples.starts(1), 1)
    mean = Normalizer.of(statistics, samples.layout.diagnostic).mean.view(1, -1, 1, 1)
    value = loss(batch.state[:, 0], mean.expand_as(batch.diagnostic[:, 0]), batch.state[:, 1], batch.diagnostic[:, 0])
    assert abs(float(value) - 1) < 0.02


def test_loss_weighs_by_area(parts):
    samples, statistics, _ = parts
    loss = loss_of(samples, statistics).error
    batch = samples.batch([0], 1)
    truth = batch.state[:, 0], batch.diagnostic[:, 0]
    values = []
    for row in (0, 5):
        wrong = truth[0].clone()
        wrong[:, -1, row] += 100.0
        values.append(float(loss(wrong, truth[1], *truth)))
    np.testing.assert_allclose(values[1] / values[0], samples.grid.area[5, 0] / samples.grid.area[0, 0], rtol=1e-4)


def test_a_weight_of_an_unpredicted_variable_is_refused(parts):
    with pytest.raises(ValueError, match="sea_surface_temperature"):
        channel_weights(parts[0].layout, {"sea_surface_temperature": 2.0}, 0.1)
