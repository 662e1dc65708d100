"""Several input times, steps of several lengths, kinds of prediction: closed forms and invariants of step and loop."""

import numpy as np
import pytest
import torch
from small_planet import numpy_statistics
from small_training import CONFIG, buffers_of

from emulator.data.channels import Layout, More
from emulator.data.forcing import Forcing
from emulator.data.samples import Samples
from emulator.forecasting.ensembles import InitialStates
from emulator.forecasting.forecaster import Forecaster
from emulator.forecasting.options import EnsembleOptions
from emulator.forecasting.position import Position
from emulator.forecasting.schedule import Schedule, Starts
from emulator.model.assemble import buffers, input_count
from emulator.model.conserving import ConservationOptions, conservation
from emulator.model.lengths import growth
from emulator.model.rollout import rollout
from emulator.model.step import Step

CHOSEN = {"prognostic": CONFIG.prognostic}


@pytest.fixture(scope="module")
def data(planet):
    return planet.assign_attrs(time_step_seconds=21600.0)


@pytest.fixture(scope="module")
def statistics(planet):
    return numpy_statistics(planet)


class Extrapolates(torch.nn.Module):
    """2 x - (x a step before), of the normalised states that a step with two input times shows its network."""

    def __init__(self, layout):
        super().__init__()
        self.count, self.rest = layout.prognostic.count, layout.diagnostic.count

    def forward(self, x):
        before, now = x[:, : self.count], x[:, self.count : 2 * self.count]
        return torch.cat([2 * now - before, torch.zeros_like(x[:, : self.rest])], 1)


class Constant(torch.nn.Module):
    """The same output everywhere."""

    def __init__(self, layout, value):
        super().__init__()
        self.channels, self.value = layout.prognostic.count + layout.diagnostic.count, value

    def forward(self, x):
        self.seen = x
        return torch.full((len(x), self.channels, *x.shape[2:]), self.value)


@pytest.fixture(scope="module")
def two_times(data, statistics):
    """A step with two input times that goes on in a straight line, free of bounds, and its samples."""
    layout = Layout.of(data, CHOSEN, more=More(history=2))
    samples = Samples(data, layout)
    made = buffers(samples, statistics, kind="none", predicts="state")
    return Step(Extrapolates(layout), layout, made, predicts="state"), samples


def test_a_straight_line_goes_on_for_ever(two_times):
    """x(k) = x(0) + k (x(0) - x(-1)), from the last result and the times before it."""
    step, samples = two_times
    batch = samples.batch([3, 9], 4)
    assert input_count(step.layout) == step.inputs(batch.start(), batch.forcing[:, 0], batch.clock[:, 0]).shape[1]
    before, now = batch.start().unbind(1)
    scale = step.change_std
    for k, result in enumerate(rollout(step, batch.start(), batch.inputs()), 1):
        torch.testing.assert_close(result.state / scale, (now + k * (now - before)) / scale, rtol=1e-4, atol=0.05)
        torch.testing.assert_close(result.onward[:, 1], result.state, rtol=0, atol=0)
        assert result.onward.shape == batch.start().shape


def test_a_forecast_with_a_history_that_goes_on_from_a_file_has_the_same_bits(two_times, data, tmp_path):
    step, _ = two_times
    times, schedule = list(data["time"].values[[4, 9]]), Schedule.every(6)
    forecaster = Forecaster([step], data, 1)

    def run(position=None):
        return [block.fields() for _, block in forecaster.blocks(times, schedule, position)]

    whole, *none = run()
    assert not none
    np.testing.assert_array_equal(whole["surface_pressure"][:, 0], data["surface_pressure"].sel(time=times))  # lead 0
    state, _ = forecaster._initial(times)
    half = list(
        forecaster._leads(times, forecaster._rows(2), Position(0, [s[None] for s in state], [None] * 2), schedule)
    )
    half[2][0].save(tmp_path / "position")
    loaded = Position.load(tmp_path / "position")
    assert loaded.number == 3 and loaded.states[0].shape[1] == 2
    rest = run(loaded)[0]
    for name, field in rest.items():
        np.testing.assert_array_equal(field, whole[name][:, 4:])


def test_forecasts_start_only_where_all_input_times_are(data):
    missing = np.isin(np.arange(48), [10])
    holes = data.assign(missing=("time", missing))
    found = Starts(every_hours=6, history=3, length=2).of(holes, 3)
    wanted = [s for s in range(48 - 6) if s >= 4 and not missing[[s, s - 2, s - 4]].any()]
    np.testing.assert_array_equal(found, data["time"].values[wanted])


@pytest.mark.parametrize("kind", ["noise", "bred", "lagged"])
def test_ensembles_have_a_history_too(two_times, data, kind):
    step, _ = two_times
    options = EnsembleOptions(members=3, kind=kind, cycles=2, cycle_hours=12.0, lag_hours=6.0)
    time = data["time"].values[12]
    state, _ = InitialStates(step, data, Forcing(data, step.layout), 2, options)([time])
    analysis, _ = InitialStates(step, data, Forcing(data, step.layout), 2, None)([time])
    assert state.shape == (3, *analysis.shape[1:]) and torch.isfinite(state).all()
    moved = state - analysis
    if kind == "noise":  # all times of a member alike: the change that they tell stays
        torch.testing.assert_close(moved[:, 0] / step.change_std, moved[:, 1] / step.change_std, rtol=0, atol=1e-2)
        assert (moved.flatten(1).abs().amax(1) > 0).all()
    if kind == "bred":
        size = (moved[:, 1] / step.change_std).square().mean((1, 2, 3)).sqrt()
        torch.testing.assert_close(size, torch.full((3,), options.amplitude), rtol=0.2, atol=0)
    if kind == "lagged":  # the member that started a step before has the older time from the analysis
        earlier = data["surface_pressure"].values[11]
        where = step.layout.prognostic.slices["surface_pressure"].start
        np.testing.assert_array_equal(state[1, 0, where], earlier)
    with pytest.raises(ValueError, match="before 2001-01-01T00.* for a history"):
        InitialStates(step, data, Forcing(data, step.layout), 2, None)([data["time"].values[0]])


def test_the_change_grows_as_that_of_an_autoregression():
    """Variance 2 s^2 (1 - r^n) of the change over n steps, by simulation, and its limits."""
    r, spread = 0.8, torch.tensor(3.0)
    change = spread * (2 * (1 - r)) ** 0.5
    rng, x = np.random.default_rng(0), np.zeros(200_000)
    for t in range(1, len(x)):
        x[t] = r * x[t - 1] + 3.0 * (1 - r**2) ** 0.5 * rng.standard_normal()
    for n in (1, 2, 4, 9):
        assert float(change * growth(change, spread, n)) == pytest.approx(np.std(x[n:] - x[:-n]), rel=0.02)
    small = torch.tensor(1e-4)  # far from saturation a random walk
    torch.testing.assert_close(growth(small, spread, 4), torch.tensor(2.0))
    assert growth(torch.tensor(0.0), spread, 4) == growth(torch.tensor(2.0), torch.tensor(0.0), 4) == 1


@pytest.fixture(scope="module")
def several(data, statistics):
    layout = Layout.of(data, CHOSEN, more=More(steps=(6, 12, 24)))
    samples = Samples(data, layout)
    return samples, buffers_of(samples, statistics)


def test_a_step_scales_with_its_length_and_shows_it_to_the_network(several, statistics, data):
    samples, made = several
    step, batch = Step(Constant(samples.layout, 1.0), samples.layout, made), samples.batch([5], 1, 4)
    step.lower.fill_(-torch.inf), step.upper.fill_(torch.inf)
    given = batch.start(), batch.forcing[:, 0], batch.clock[:, 0]
    with pytest.raises(ValueError, match="length of a step among"):
        step(*given)
    for n in (1, 2, 4):
        length = torch.tensor([float(n)], dtype=torch.float64)
        after = step(*given, length=length).state
        kept = (1 - step.damping) ** n
        wanted = kept * given[0] + (1 - kept) * step.resting + step.change_std * growth(step.change_std, step.spread, n)
        torch.testing.assert_close(after / step.change_std, wanted / step.change_std, rtol=1e-5, atol=1e-2)
        assert step.network.seen.shape[1] == input_count(samples.layout)
        assert (step.network.seen[:, -1] == np.log2(n)).all()


@pytest.mark.parametrize("kind", ["sequential", "projection"])
def test_budgets_close_over_the_length_of_the_step(several, statistics, kind):
    """Steps of 6 and 24 hours by one network."""
    samples, made = several
    scheme = conservation(ConservationOptions.of({"kind": kind}), samples, statistics).scheme
    step = Step(Constant(samples.layout, 0.3), samples.layout, made, scheme)
    batches = [samples.batch([5], 1, n) for n in (4, 1)]
    results = [next(rollout(step, b.start(), b.inputs())) for b in batches]
    for result in results:
        for name, value in result.record.items():
            if name.startswith("residual_after"):
                assert abs(value) < 1e-7
    given = next(batches[0].inputs())
    with pytest.raises(ValueError, match="one length in a batch"):
        step(
            batches[0].start().repeat(2, 1, 1, 1),
            *(p.repeat(2, 1, 1, 1) for p in given[:2]),
            length=torch.tensor([1.0, 4]),
        )
    # and by the budget's own definition: the water that came with the fluxes of 24 hours, not of 6
    state, diagnostic = results[0].state, results[0].diagnostic
    now, after = step.fields(batches[0].start()), step.fields(state, diagnostic)
    water = scheme.lasting(4.0).budgets["water"]
    assert abs(water.residual(now, after) / water.scale(now)) < 1e-7
    assert water.atmosphere.step_seconds == 86400.0
    assert abs(scheme.budgets["water"].residual(now, after) / water.scale(now)) > 1e-6


def test_months_are_steps_of_their_own_lengths_without_growing(data, statistics):
    """Lengths that differ a little from the store's nominal step change the budgets and nothing else."""
    samples = Samples(data, Layout.of(data, CHOSEN))
    scheme = conservation(ConservationOptions.of({}), samples, statistics).scheme
    step, batch = Step(Constant(samples.layout, 0.1), samples.layout, buffers_of(samples, statistics), scheme), None
    batch = samples.batch([5], 1)
    given = batch.start(), batch.forcing[:, 0], batch.clock[:, 0]
    plain, month = step(*given), step(*given, length=torch.tensor([31 / 30.436875], dtype=torch.float64))
    torch.testing.assert_close(plain.state, month.state, rtol=1e-3, atol=0.5)
    assert not torch.equal(plain.diagnostic, month.diagnostic)
    assert abs(month.record["residual_after_water"]) < 1e-7


def test_the_state_and_the_anomaly_are_what_a_network_says_they_are(data, statistics):
    layout = Layout.of(data, CHOSEN)
    samples = Samples(data, layout)
    batch = samples.batch([5], 1)
    given = batch.start(), batch.forcing[:, 0], batch.clock[:, 0]
    for kind in ("state", "anomaly"):
        made = buffers(samples, statistics, kind="none", predicts=kind)
        step = Step(Constant(layout, 0.5), layout, made, predicts=kind)
        reference = torch.randn(given[0].shape)
        after = step(*given, **({"reference": reference} if kind == "anomaly" else {})).state
        mean, std = (v.view(-1, 1, 1) for v in (step.state_scale.mean, step.state_scale.std))
        wanted = mean + 0.5 * std if kind == "state" else reference + 0.5 * step.spread
        torch.testing.assert_close(after, wanted.expand_as(after))
    with pytest.raises(ValueError, match="climatology at the end of the step"):
        step(*given)
