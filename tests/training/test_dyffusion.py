"""DYffusion: cold sampling that is exact where its networks are, both trainings, and forecasts that can be stopped."""

import contextlib
import copy

import numpy as np
import pytest
import torch
from small_planet import small_planet
from small_store import FREE, store_of
from stopped_forecasts import check_going_on
from torch import nn
from torch.testing import assert_close

import emulator as em
from emulator.data.samples import Samples
from emulator.files.interruption import Interrupted
from emulator.forecasting.models import Models
from emulator.forecasting.options import EnsembleOptions
from emulator.model import checkpoint
from emulator.model.bounds import released
from emulator.model.coupled import check_single_steps
from emulator.model.rollout import rollout
from emulator.model.stepper import Cascade
from emulator.parallel.processes import Processes
from emulator.store.analysis import open_analysis
from emulator.training.interpolator import with_interpolator
from emulator.training.options import TrainOptions
from emulator.training.recipe import Recipe
from emulator.training.run import StageHooks, Training
from emulator.training.validation import Validation

HORIZON = 3
NETWORK = {"kind": "sfno", "embed_dim": 8, "blocks": 2, "dropout": 0.2, "drop_path": 0.3}
INSIDE = {"kind": "dyffusion_interpolator", "horizon": HORIZON}
COMMON = {
    "prognostic": [
        "temperature",
        "surface_pressure",
        "specific_humidity",
        "u_component_of_wind",
        "v_component_of_wind",
    ],
    "phases": [{"updates": 4, "batch_size": 2}],
    "optimizer": {"warmup_steps": 1, "lr": 0.01},
    "loss": {"kind": "l1"},
    "ema": 0.9,
    "seed": 1,
}
MEMBERS = {"members": 3, "kind": "none", "seed": 4}


def options(stored, output, objective, **more) -> TrainOptions:
    paths = dict(zip(("store", "statistics"), stored[0], strict=True))
    return TrainOptions.of(COMMON | paths | {"output": output, "network": NETWORK, "objective": objective} | more)


def forecasting(stored, **more):
    return {"kind": "dyffusion", "interpolator": str(stored[1] / "inside" / "checkpoint")} | more


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Paths of a store and its statistics, and a folder with an interpolator and the forecaster that was trained with it."""
    folder = tmp_path_factory.mktemp("windows")
    found = store_of(folder, small_planet(times=24, nlat=8, levels=2)), folder
    Training(options(found, folder / "inside", INSIDE)).run()
    own = {"kind": "sfno", "embed_dim": 8, "blocks": 1}
    validation = {"period": {"start": "2001-01-04"}, "every": 2, "windows": 2, "steps": 4}
    Training(options(found, folder / "ahead", forecasting(found), network=own, validation=validation)).run()
    return found


class Told(nn.Module):
    """A network that tells a field of its own, made from the time, whatever it sees."""

    def __init__(self, field):
        super().__init__()
        self.field, self.seen = field, {}

    def forward(self, x, condition=None, time=None):
        self.seen[round(HORIZON * float(time[0]))] = x
        return torch.stack([self.field(float(t)) for t in time])


def test_exact_networks_give_the_exact_trajectory(stored):
    step = released(em.load_model(stored[1] / "ahead" / "checkpoint", "cpu"), "none")
    step.scheme, step.damping = None, torch.zeros_like(step.damping)
    generator = torch.Generator().manual_seed(0)
    count, diagnostics = step.layout.prognostic.count, step.layout.diagnostic.count
    speed, bend = torch.randn(2, count, *step.lower.shape[1:], generator=generator)
    begun = torch.randn(1, count, *step.lower.shape[1:], generator=generator) * step.change_std
    fluxes = torch.randn(diagnostics, *step.lower.shape[1:], generator=generator)

    def exact(n):  # in units of a change: a line, and inside every window an arc over it
        share = n % HORIZON / HORIZON
        return begun + step.change_std * (n * speed + share * (1 - share) * bend)

    def inside(time):
        return torch.cat([time * (1 - time) * bend, (1 + time) * fluxes])

    def ahead(time):  # of what is left to the end, where the arc is 0
        left = HORIZON * (1 - time)
        return torch.cat([(left * speed - time * (1 - time) * bend) / left**0.5, 2 * fluxes])

    step.network.interpolator, step.network.forecaster = Told(inside), Told(ahead)
    batch = samples_of(stored, step).batch([0], 2 * HORIZON)
    noise = step.noise.rows([(0, n + 1, 5) for n in range(2 * HORIZON)])[:, None]
    inputs = [given._replace(noise=drawn) for given, drawn in zip(batch.inputs(), noise, strict=True)]
    for number, result in enumerate(rollout(step, begun, inputs), 1):
        assert_close(result.state / step.change_std, exact(number) / step.change_std, rtol=1e-4, atol=1e-4)
        share = (number - 1) % HORIZON + 1
        told = step.diagnostic_scale.inverse((1 + share / HORIZON) * fluxes[None])
        assert_close(result.diagnostic, told, rtol=1e-4, atol=1e-4)
        # the interpolator is given the forcing and the clock of the step that ends with what it tells
        start = exact(number - share)
        for place in range(max(1, share - 1), min(share, HORIZON - 1) + 1):
            step_before = number - share + place - 1
            wanted = step.inputs(start, batch.forcing[:, step_before], batch.clock[:, step_before])
            seen = step.network.interpolator.seen[place][:, count : wanted.shape[1]]
            assert_close(seen, wanted[:, count:], rtol=0, atol=0)
        assert set(step.network.forecaster.seen) == set(range(min(number, HORIZON)))


def test_a_forecaster_without_change_is_damped_persistence_over_the_rest_of_the_window(stored, model):
    step = released(em.load_model(stored[1] / "ahead" / "checkpoint", "cpu"), "none")
    channels = step.layout.prognostic.count
    step.damping = torch.linspace(0.05, 0.7, channels).view(-1, 1, 1)
    zero = torch.zeros(channels + step.layout.diagnostic.count, *step.lower.shape[1:])
    step.network.forecaster = Told(lambda time: zero)
    state = step.resting + step.change_std * torch.randn(HORIZON, channels, *zero.shape[1:])
    batch = samples_of(stored, step).batch([0], 1)
    given = next(iter(batch.inputs())).rows(torch.zeros(HORIZON, dtype=torch.long))
    found, _ = step.forecast(state, torch.arange(HORIZON), given)
    for place in range(HORIZON):
        wanted = state[place].double()
        for _ in range(HORIZON - place):
            wanted = wanted + step.damping.double() * (step.resting.double() - wanted)
        size = step.change_std.double()
        assert_close(found[place].double() / size, wanted / size, rtol=2e-6, atol=1e-4)


class Apart(nn.Module):
    def forward(self, state, diagnostic, true_state, true_diagnostic):
        return (state - true_state).square().mean().double()


def test_a_validation_inside_windows_has_the_precision_that_is_asked_for(stored):
    step = em.load_model(stored[1] / "inside" / "checkpoint", "cpu")
    samples = samples_of(stored, step)
    validation = Validation(samples, Apart(), every=1, windows=1, steps=HORIZON, batch_size=1)
    found = {each: validation(step, Processes(), torch.device("cpu"), each) for each in ("float32", "bfloat16")}
    start = validation.starts(Processes())
    batch = samples.batch(start, HORIZON).for_members(1, validation._noise(step, start))
    for precision, one in found.items():
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            made, truth = step.between(batch, 1)
        assert one["one_step"] == float(Apart()(*made, *truth))
    assert found["float32"] != found["bfloat16"]


def samples_of(stored, step) -> Samples:
    return Samples(open_analysis(stored[0][0]), step.layout)


def stopped(after):
    """Hooks by which a training is asked to stop after so many updates."""
    asked = iter(range(1, 100))
    return StageHooks(stopping=lambda: contextlib.nullcontext(lambda: next(asked) >= after))


def test_windows_are_whole_however_their_number_is_drawn():
    """A number of steps that is drawn counts windows, as one that is given does."""
    phases = [{"updates": 9, "rollout_steps": 1, "random_steps": drawn} for drawn in (False, True)]
    options = {
        "store": "x",
        "statistics": "x",
        "output": "x",
        "network": NETWORK,
        "objective": INSIDE,
        "phases": phases,
    }
    recipe = Recipe.of(TrainOptions.of(options))
    assert [recipe.steps(update) for update in range(18)] == [HORIZON] * 18


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inside", "ahead"])
def test_a_stopped_training_ends_with_the_same_bits(stored, tmp_path, name):
    saved = checkpoint.describe(stored[1] / name / "checkpoint")["config"]
    objective = INSIDE if name == "inside" else forecasting(stored)
    more = {"network": saved["network"], "validation": saved["validation"]}
    with pytest.raises(Interrupted):
        Training(options(stored, tmp_path, objective, **more), stopped(2)).run()
    torch.rand(7)
    Training(options(stored, tmp_path, objective, **more)).run()
    one, other = (checkpoint.load(folder / "checkpoint") for folder in (tmp_path, stored[1] / name))
    for key, tensor in other[0].items():
        assert torch.equal(one[0][key], tensor), key
    assert one[1]["identity"] == other[1]["identity"]


def test_the_checkpoint_is_whole_and_keeps_the_interpolators_weights(stored, tmp_path):
    inside, ahead = (checkpoint.load(stored[1] / name / "checkpoint")[0] for name in ("inside", "ahead"))
    taken = {key: tensor for key, tensor in ahead.items() if key.startswith("network.interpolator.")}
    assert taken and all(
        torch.equal(tensor, inside[key.replace(".interpolator", "", 1)]) for key, tensor in taken.items()
    )
    moved = checkpoint.load(stored[1] / "ahead" / "checkpoint")
    config = moved[1]["config"] | {"objective": moved[1]["config"]["objective"] | {"interpolator": "nowhere"}}
    checkpoint.save(tmp_path / "moved", moved[0], moved[1] | {"config": config})
    assert em.load_model(tmp_path / "moved", "cpu").horizon == HORIZON


@pytest.fixture(scope="module")
def model(stored):
    return em.load_model(stored[1] / "ahead" / "checkpoint", "cpu")


@pytest.mark.slow
def test_neither_batches_nor_other_members_change_a_member(stored, model):
    def run(members=3, **more):
        inits = ["2001-01-01T00", "2001-01-01T06"]
        return em.forecast(model, stored[0][0], inits, 1.25, ensemble=MEMBERS | {"members": members}, **more)

    one, other, fewer = run(batch_size=1), run(batch_size=6), run(members=2, batch_size=4)
    for name in COMMON["prognostic"]:
        size = float(one[name].std())
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=1e-4 * size)
        np.testing.assert_allclose(one[name].isel(member=slice(2)), fewer[name], rtol=0, atol=1e-4 * size)
        spread = one[name].std("member")
        assert (spread.isel(lead_time=slice(1, None)).max(["latitude", "longitude"]) > 0).all(), name


@pytest.mark.parametrize("number", [2, *(pytest.param(each, marks=pytest.mark.slow) for each in (1, 3, 4))])
def test_a_forecast_goes_on_inside_a_window_and_at_its_ends_with_the_same_bits(stored, model, tmp_path, number):
    check_going_on(model, stored[0][0], MEMBERS, tmp_path, number, 7)


def test_every_state_has_its_budgets_closed(stored, model):
    batch = samples_of(stored, model).batch([0, 5], 7)
    noise = torch.stack([model.noise.rows([(1, n + 1, row, 5) for row in range(2)]) for n in range(7)])
    inputs = [given._replace(noise=drawn) for given, drawn in zip(batch.inputs(), noise, strict=True)]
    for result in rollout(model, batch.start(), inputs):
        closed = {name: value for name, value in result.record.items() if name.startswith("residual_after")}
        assert closed and all((value.abs() < 1e-6).all() for value in closed.values())


def test_an_interpolator_forecasts_nothing(stored):
    with pytest.raises(ValueError, match="network that forecasts .* got an interpolator between states"):
        em.forecast(stored[1] / "inside" / "checkpoint", stored[0][0], "2001-01-01T00", 1)


def test_what_members_and_oceans_cannot_be_is_refused_before_anything_runs(stored, model):
    data, halved = open_analysis(stored[0][0]), EnsembleOptions.of(MEMBERS | {"noise_amplitude": 0.5})
    Models([model]).check(data, EnsembleOptions.of(MEMBERS))
    with pytest.raises(ValueError, match="noise_amplitude 1 for members .* got 0.5"):
        Models([model]).check(data, halved)
    plain = copy.copy(model)
    plain.horizon = 1
    check_single_steps([Cascade([(0, plain), (2, plain)])])
    with pytest.raises(ValueError, match="with an ocean, got one whose steps belong to windows"):
        check_single_steps([plain, Cascade([(0, plain), (2, model)])])


def test_a_cascade_leaves_windows_where_they_end(model):
    Cascade([(0, model), (2 * HORIZON, model)])
    with pytest.raises(ValueError, match="windows of 3 steps where one ends, got 4 steps"):
        Cascade([(0, model), (4, model)])
    later = Cascade([(0, model), (HORIZON, model)])
    assert [later.at(n).place for n in range(1, 6)] == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"phases": [{"updates": 1, "rollout_steps": 2}]}, "phases of one step"),
        ({"validation": {"period": {"start": "2001-01-04"}, "steps": 2}}, "at least the horizon 3"),
        ({"predict": "state"}, "predict change"),
        ({"network": {"kind": "column"}}, "can be told where in a window it is, one of .*got 'column'"),
        (
            {"network": NETWORK | {"noise": {"channels": 1}}},
            "either noise, or dropout or drop_path.* got 'sfno' with both",
        ),
        ({"network": {"kind": "sfno", "embed_dim": 8}}, "dropout or drop_path.* with neither"),
        ({"network": NETWORK | {"checkpointing": True}}, "no network.checkpointing"),
        ({"objective": {"kind": "dyffusion_interpolator", "horizon": 1}}, "horizon of at least 2"),
        ({"objective": INSIDE | {"horizon": 40}}, "windows of 40 steps"),
    ],
)
def test_what_an_interpolator_cannot_be_trained_with_is_refused(stored, tmp_path, more, message):
    with pytest.raises(ValueError, match=message):
        Training(options(stored, tmp_path, more.pop("objective", INSIDE), **more)).describe()


@pytest.mark.slow
def test_another_interpolator_than_a_training_needs_is_refused(stored, tmp_path):
    def refused(message, found=stored, interpolator="inside/checkpoint", **more):
        objective = {"kind": "dyffusion", "interpolator": str(stored[1] / interpolator)}
        with pytest.raises(ValueError, match=message):
            training = Training(options(found, tmp_path / "run", objective, **more))
            training.describe()
            training.run()

    refused("Expected a checkpoint in .*nowhere", interpolator="nowhere")
    refused("Expected a checkpoint of train.objective", interpolator="ahead/checkpoint")
    refused("prognostic variables", prognostic=COMMON["prognostic"][:3], conservation=FREE)

    def elsewhere(name, planet):
        (tmp_path / name).mkdir()
        return store_of(tmp_path / name, planet), tmp_path

    inside = checkpoint.describe(stored[1] / "inside" / "checkpoint")
    for name, other, known in (
        ("horizon", 4, "3, got 4"),
        ("network", NETWORK | {"dropout": 0.3}, "'dropout': 0.2.* got .*'dropout': 0.3"),
        ("sha256", "0123", f"{inside['sha256']}, got 0123"),
    ):
        with pytest.raises(ValueError, match=f"train.objective.{name} as the interpolator in .* has it, .*{known}"):
            with_interpolator(options(stored, tmp_path, forecasting(stored, **{name: other})))
    with pytest.raises(ValueError, match="with network.noise for train.objective.pairing 0.5, got .* without"):
        with_interpolator(options(stored, tmp_path, forecasting(stored, pairing=0.5)))
    known = {"horizon": HORIZON, "network": NETWORK, "sha256": inside["sha256"]}
    found = with_interpolator(options(stored, tmp_path, forecasting(stored, **known)))
    assert with_interpolator(found) == found == with_interpolator(options(stored, tmp_path, forecasting(stored)))
    moments = {"forcing_moments": {"sea_surface_temperature": "both"}}
    refused(r"moments \(.*'both'.*\) as this training has, got \(.*\) in", **moments)

    refused("with the grid", found=elsewhere("finer", small_planet(times=24, nlat=12, levels=2)))
    daily = small_planet(times=96, nlat=8, levels=2).isel(time=slice(None, None, 4))
    refused("a time step of 24 h", found=elsewhere("daily", daily))
    other = elsewhere("other", small_planet(times=24, nlat=8, levels=2, seed=3))
    refused(r"statistics of this training, whose \S+ is [-\d.e+]+ at \[.*\], got [-\d.e+]+ at \[.*\] in", found=other)
