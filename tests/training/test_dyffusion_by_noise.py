"""DYffusion whose members differ by random fields that the interpolator is given, learned by a score of members."""

import math

import pytest
import torch
from small_planet import small_planet
from small_store import store_of
from stopped_forecasts import check_going_on
from test_dyffusion import HORIZON, INSIDE, MEMBERS, NETWORK, forecasting, options, samples_of
from torch.testing import assert_close

import emulator as em
from emulator.data.forcing import StepInputs
from emulator.forecasting.models import Models
from emulator.forecasting.options import EnsembleOptions
from emulator.model import checkpoint
from emulator.model.assemble import conditions, make_network, network_of
from emulator.model.bounds import released
from emulator.model.generative import noise_in_training
from emulator.model.noise import update_key
from emulator.model.rollout import rollout
from emulator.store.analysis import open_analysis
from emulator.training.run import Training
from emulator.training.validation import Validation

NOISE = {"length_scales": [2000, 800], "channels": 2, "correlation": 0.5}
VECTORS = {"kind": "vector_cnn", "width": 8, "vectors": 3, "blocks": 2}
CRPS = {"kind": "crps", "members": 2}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """As that of `test_dyffusion`, of networks of vectors, the interpolator with noise."""
    folder = tmp_path_factory.mktemp("windows")
    found = store_of(folder, small_planet(times=24, nlat=8, levels=2)), folder
    Training(options(found, folder / "inside", INSIDE, network=VECTORS | {"noise": NOISE}, loss=CRPS)).run()
    Training(options(found, folder / "ahead", forecasting(found), network=VECTORS)).run()
    return found


@pytest.fixture
def model(stored):
    return em.load_model(stored[1] / "ahead" / "checkpoint", "cpu")


def noise_of(step, members, numbers):
    return torch.stack([step.noise.rows([(0, member + 1, n, 5) for member in range(members)]) for n in numbers])


def test_places_are_as_likely_and_the_same_for_the_members_of_a_sample(stored):
    step = em.load_model(stored[1] / "inside" / "checkpoint", "cpu")
    count = 12
    drawn = torch.zeros(count, step.taught.count, *step.lower.shape[1:])
    drawn[:, -1] = torch.special.ndtri((torch.arange(count) + 0.5) / count)[:, None, None]
    assert torch.bincount(step._place(drawn, 3)).tolist() == [4, 4, 4]
    extreme = torch.full_like(drawn[:1], 40.0)
    assert step._place(extreme, 3).tolist() == [2] and step._place(-extreme, 3).tolist() == [0]
    # a step of its own for the first member decides for the second too
    noise = torch.stack([drawn[0], drawn[-1], drawn[-1], drawn[0]])[:, None]
    batch = samples_of(stored, step).batch([0, 3], HORIZON).for_members(2, noise)
    (state, diagnostic), (truth, _) = step.learned(batch, 2)
    assert torch.equal(truth, torch.stack([batch.state[0, 1], batch.state[1, 1], batch.state[2, 2], batch.state[3, 2]]))
    noise[1:3, 0, :-1] += 1.0
    assert not torch.equal(step.learned(batch, 2)[0][0][1], state[1]) and len(diagnostic) == 4


def all_change(made, drawn):
    """Whether each field that was drawn for the first row, `(field, *space)` of it, changes what is made of all."""
    before = made(drawn)
    for field in range(drawn.shape[1]):
        other = drawn.clone()
        other[0, field] -= 50.0  # of the number of a last place it makes the first
        yield any(not torch.equal(*pair) for pair in zip(made(other), before, strict=True))


@pytest.mark.parametrize("folder", ["inside", "ahead"])
def test_a_training_draws_the_fields_that_it_uses_and_no_other(stored, folder):
    """Of the bits that they have among all fields of a step: those of the second interpolation, and the place."""
    step = em.load_model(stored[1] / folder / "checkpoint", "cpu")
    keys, samples = [update_key(1, 0, 0, member, 1) for member in (0, 1)], samples_of(stored, step)
    drawn = noise_in_training(step).rows(keys)
    whole, _ = conditions(network_of(step.metadata["config"]), step.layout, samples.grid)
    assert torch.equal(drawn, whole.rows(keys)[:, [2, 3, 6, 7, 8]])

    @torch.no_grad()
    def learned(noise):
        made, truth = step.learned(samples.batch([0], HORIZON).for_members(2, noise[:, None]), 2)
        return [*made, *truth]

    drawn[:, -1] = 5.0
    assert all(all_change(learned, drawn))


def test_a_forecast_and_a_validation_draw_no_place_in_a_window(stored, model):
    inside = em.load_model(stored[1] / "inside" / "checkpoint", "cpu")
    validation = Validation(
        samples_of(stored, inside), None, every=1, windows=2, steps=HORIZON, batch_size=2, members=2
    )
    fields = len(NOISE["length_scales"]) * NOISE["channels"]
    assert validation._noise(inside, [0, 1]).shape[:3] == (4, 1, fields)
    assert validation._noise(model, [0, 1]).shape[:3] == (4, HORIZON, 2 * fields)
    batch, noise = samples_of(stored, model).batch([0], HORIZON), noise_of(model, 1, (1, 2))

    def second_step(drawn):
        given = [each._replace(noise=one) for each, one in zip(batch.inputs(), (noise[0], drawn), strict=False)]
        return [list(rollout(model, batch.start(), given))[-1].state]

    assert all(all_change(second_step, noise[1]))


@pytest.mark.parametrize("pairing", [0.0, 0.6, 1.0])
def test_the_noise_of_both_interpolations_of_a_step_is_paired(stored, model, pairing):
    """Each has unit variance, and their correlation is what is asked for; the fields of all length scales take part."""
    model.pairing = pairing
    drawn = torch.randn(4000, model.noise.count, 2, 2, generator=torch.Generator().manual_seed(0))
    first, second = (model._drawn(drawn, number) for number in (1, 2))
    assert first.shape == (4000, len(NOISE["length_scales"]) * NOISE["channels"], 2, 2)
    for field, own in zip(first.unbind(1), second.unbind(1), strict=True):
        assert abs(float(field.var()) - 1) < 0.05 and abs(float((field * own).mean()) - pairing) < 0.04
    coarse, fine = torch.zeros(1, model.noise.count, 1, 1), torch.zeros(1, model.noise.count, 1, 1)
    coarse[:, : 2 * NOISE["channels"]], fine[:, 2 * NOISE["channels"] :] = 1.0, 1.0
    for number in (1, 2):  # those of a length stay where the network has learned them
        assert (model._drawn(coarse, number) != 0).flatten().tolist() == [True, True, False, False]
        assert (model._drawn(fine, number) != 0).flatten().tolist() == [False, False, True, True]


def test_with_a_known_end_a_step_adds_what_two_interpolations_differ_by(stored, model):
    step = released(model, "none")
    step.scheme = None
    batch = samples_of(stored, step).batch([0], HORIZON)
    end, noise = batch.state[:, HORIZON].expand(2, *batch.state.shape[2:]), noise_of(step, 2, range(1, HORIZON + 1))
    step.forecast = lambda state, place, given: (end, torch.zeros(2, *batch.diagnostic.shape[2:]))
    first = batch.state[:, 0].expand_as(end)
    given = [StepInputs(*(part.expand(2, *part.shape[1:]) for part in each[:2])) for each in batch.inputs()]
    inputs = [each._replace(noise=drawn) for each, drawn in zip(given, noise, strict=True)]

    @torch.no_grad()
    def inside(place, drawn):
        where, ends = torch.full((2,), place), (first, end)
        return step.interpolated(step.network.interpolator, ends, where, given[place - 1], drawn)[0]

    wanted = first
    for number, result in enumerate(rollout(step, first, inputs), 1):
        before = inside(number - 1, step._drawn(noise[number - 1], 1)) if number > 1 else first
        after = inside(number, step._drawn(noise[number - 1], 2)) if number < HORIZON else end
        wanted = wanted + after - before
        assert_close(result.state / step.change_std, wanted / step.change_std, rtol=1e-4, atol=1e-3)
        assert not torch.allclose(wanted[0] / step.change_std, wanted[1] / step.change_std, atol=1e-3)


@pytest.mark.parametrize("number", [1, 2])
def test_a_forecast_goes_on_inside_a_window_with_the_same_bits(stored, model, tmp_path, number):
    check_going_on(model, stored[0][0], MEMBERS, tmp_path, number, 5)


def test_members_are_as_far_apart_as_the_noise_is_strong(stored, model):
    Models([model]).check(open_analysis(stored[0][0]), EnsembleOptions.of(MEMBERS | {"noise_amplitude": 0.5}))

    def spread(amplitude):
        ensemble = MEMBERS | {"noise_amplitude": amplitude}
        found = em.forecast(model, stored[0][0], ["2001-01-01T00"], 0.5, ensemble=ensemble, batch_size=3)
        last = found["temperature"].isel(lead_time=-1)
        return float((last.max("member") - last.min("member")).mean())

    none, half, whole = (spread(amplitude) for amplitude in (0.0, 0.5, 1.0))
    assert none == 0 and math.isclose(half / whole, 0.5, abs_tol=0.1)


def test_winds_of_both_states_are_vectors(stored):
    """The network of vectors finds the winds at both ends of a window, and the noisy ones of a step that is sampled."""
    step = em.load_model(stored[1] / "inside" / "checkpoint", "cpu")
    levels = step.layout.prognostic.slices["u_component_of_wind"]
    count = levels.stop - levels.start
    assert step.network.network.given.vectors == 2 * count and step.network.network.made.vectors == count
    config = network_of({"network": VECTORS, "objective": {"kind": "flow_matching"}})
    sampling = make_network(config, step.layout, samples_of(stored, step).grid)
    assert sampling.network.given.vectors == 2 * count


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"network": NETWORK | {"noise": {"channels": 1}}}, "either noise, or dropout .* got 'sfno' with both"),
        ({"network": VECTORS}, "either noise, or dropout .* with neither"),
        ({"network": NETWORK, "loss": CRPS}, "network.noise with loss.kind crps"),
        (
            {
                "network": VECTORS | {"noise": NOISE},
                "loss": CRPS,
                "phases": [{"updates": 1, "single": True}, {"updates": 1}],
            },
            "no phases of single forecasts",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(stored, tmp_path, more, message):
    with pytest.raises(ValueError, match=message):
        Training(options(stored, tmp_path, INSIDE, **more)).describe()


def test_a_forecaster_is_trained_on_single_forecasts(stored, tmp_path):
    with pytest.raises(ValueError, match="single forecasts, such as l1, with objective dyffusion"):
        options(stored, tmp_path, forecasting(stored), network=VECTORS | {"noise": NOISE}, loss=CRPS)
    with pytest.raises(ValueError, match="no network.noise with windows of steps"):
        Training(options(stored, tmp_path, forecasting(stored), network=VECTORS | {"noise": NOISE})).describe()


def test_a_finished_training_with_another_pairing_changes_no_weight_but_all_forecasts(stored, model, tmp_path):
    def forecast(stepper):
        times = ["2001-01-01T00"]
        em.forecast(stepper, stored[0][0], times, 0.5, ensemble=MEMBERS, batch_size=3, output=tmp_path / "forecast")
        return em.open_forecast(tmp_path / "forecast").load()

    known, before = checkpoint.load(stored[1] / "ahead" / "checkpoint"), forecast(model)
    objective = forecasting(stored, pairing=0.8)
    Training(options(stored, stored[1] / "ahead", objective, network=VECTORS)).run()
    found = checkpoint.load(stored[1] / "ahead" / "checkpoint")
    assert known[0].keys() == found[0].keys() and all(torch.equal(found[0][name], known[0][name]) for name in found[0])
    again = em.load_model(stored[1] / "ahead" / "checkpoint", "cpu")
    assert model.pairing == 0 and again.pairing == 0.8
    after = forecast(again)  # a store of the same weights and another pairing is of other forecasts
    assert not before["temperature"].isel(lead_time=-1).equals(after["temperature"].isel(lead_time=-1))
    assert after.identical(forecast(again))
    with pytest.raises(ValueError, match="pairing of at least 0 and at most 1"):
        options(stored, stored[1] / "ahead", forecasting(stored, pairing=1.5), network=VECTORS)
