"""Training stochastic networks by scores of ensembles: the right spread, the same bits after a stop and in any split."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import xarray as xr
from small_training import CONFIG, RECIPE, STOCHASTIC, same_state, trainer
from test_distributed import assert_near, state, train

from emulator.files.interruption import Interrupted
from emulator.model.noise import NetworkNoise
from emulator.model.rollout import rollout
from emulator.parallel.processes import Processes
from emulator.planet.grid import Grid
from emulator.training.options import TrainOptions
from emulator.training.options.phases import Phase
from emulator.training.order import Order
from emulator.training.recipe import Recipe
from emulator.training.validation import Best, Validation
from emulator.training.window import Window, WindowOptions

MEMBERS = dataclasses.replace(RECIPE, members=2)
SINGLE_FIRST = dataclasses.replace(
    MEMBERS, phases=(dataclasses.replace(MEMBERS.phases[0], single=True), MEMBERS.phases[1])
)
PATHS = {"store": "a", "statistics": "b", "output": "c"}


def stochastic(planet, directory, recipe=MEMBERS, **more):
    return trainer(planet, directory, recipe, config=STOCHASTIC, **more)


@pytest.fixture(scope="module")
def whole(planet, tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    stochastic(planet, directory).run()
    return directory


def rows_of(directory, name="metrics.jsonl"):
    return [json.loads(line) for line in (directory / name).read_text().splitlines()]


def test_the_score_falls_the_members_part_and_every_members_budgets_are_closed(planet, whole):
    rows = rows_of(whole)
    assert rows[5]["loss"] < rows[0]["loss"]
    assert all(row[f"residual_after_{budget}"] < 1e-6 for row in rows for budget in ("dry_air", "water", "energy"))
    made = stochastic(planet, whole)
    assert not any(p.any() for n, p in made.step.named_parameters() if "noise" in n)
    made.run()  # already at its end
    assert any(p.any() for n, p in made.step.named_parameters() if "noise" in n)
    batch = made._order.batch(3)
    assert len(batch.state) == 6 and batch.noise.shape[:3] == (6, 1, 4)
    with torch.no_grad():
        result = made.step(*(part[:, 0] for part in (batch.state, batch.forcing, batch.clock)), None, batch.noise[:, 0])
    first, second = result.state.unflatten(0, (3, 2)).unbind(1)
    assert ((first - second).abs().amax((-1, -2)) > 0).all()
    assert torch.equal(batch.state[::2], batch.state[1::2])


def test_phases_of_single_forecasts_train_as_a_network_without_noise_by_the_squared_error(planet, tmp_path):
    phases = tuple(dataclasses.replace(phase, single=True) for phase in RECIPE.phases)
    made = stochastic(planet, tmp_path / "single", dataclasses.replace(MEMBERS, phases=phases))
    batch = made._order.batch(13)
    assert len(batch.state) == 2 and batch.noise.shape[:3] == (2, 2, 4) and not batch.noise.any()
    assert made._order.rows(13).starts.shape == (2,)
    quiet = dataclasses.replace(CONFIG, network={n: v for n, v in STOCHASTIC.network.items() if n != "noise"})
    plain = trainer(planet, tmp_path / "plain", config=quiet)
    made.run(), plain.run()
    own, others = dict(made.step.named_parameters()), dict(plain.step.named_parameters())
    assert set(others) < set(own) and not any(p.any() for n, p in own.items() if n not in others)
    for name, parameter in others.items():
        torch.testing.assert_close(own[name], parameter, rtol=1e-5, atol=1e-7, msg=name)
    assert rows_of(tmp_path / "single")[-1]["loss"] == pytest.approx(rows_of(tmp_path / "plain")[-1]["loss"], rel=1e-5)


def test_members_come_after_a_phase_of_single_forecasts(planet, tmp_path):
    recipe = SINGLE_FIRST
    made = stochastic(planet, tmp_path, recipe)
    assert [recipe.members_at(update) for update in (0, 11, 12)] == [1, 1, 2]
    assert [recipe.work(phase) for phase in recipe.phases] == [3, 2 * 2 * 2]
    made.run()
    assert any(p.any() for n, p in made.step.named_parameters() if "noise" in n)


def test_patience_counts_from_the_first_phase_of_members(planet, tmp_path):
    recipe = dataclasses.replace(SINGLE_FIRST, lr=1e-9, final_lr=1e-9, ema=0.0)
    made = stochastic(planet, tmp_path, recipe)
    error = made._run_window._module.loss.error
    made.validation = Validation(made.samples, error, 2, 2, 2, 2, patience=2, members=2, squared=False)
    made.best = Best(skill=1.0)  # what no forecast reaches
    made.run()
    assert made.update == 16 and made.best.since == 2


def phases_of(singles: str) -> dict:
    """Of a loss of members; "s" is a phase of single forecasts, "m" one of members."""
    phases = [{"updates": 2, "single": letter == "s"} for letter in singles]
    return PATHS | {
        "loss": {"kind": "crps"},
        "network": {"kind": "sfno", "noise": {"channels": 1}},
        "phases": phases,
    }


@pytest.mark.parametrize("steps", [[12], [6, 12]])
def test_single_forecasts_are_refused_with_steps_of_their_own(steps):
    with pytest.raises(
        ValueError, match=r"Expected steps of the store's own length .*phases.single.* \[" + str(steps[0])
    ):
        TrainOptions.of(phases_of("sm") | {"steps": steps})


def test_single_forecasts_are_refused_where_there_are_no_members():
    with pytest.raises(ValueError, match=r"Expected a loss of members, such as crps, .*\(phases.single\), got mse"):
        TrainOptions.of(phases_of("sm") | {"loss": {"kind": "mse"}})


@pytest.mark.parametrize(
    ("singles", "got"), [("s", "0 of 0 to 0"), ("ss", "0, 1 of 0 to 1"), ("smsm", "0, 2 of"), ("ms", "1 of")]
)
def test_single_forecasts_are_refused_after_members_and_at_the_end(singles, got):
    with pytest.raises(ValueError, match=rf"Expected phases of single forecasts .* first .* single in phases {got}"):
        TrainOptions.of(phases_of(singles))


def test_single_forecasts_are_taken_before_members():
    assert [phase.single for phase in TrainOptions.of(phases_of("ssmm")).phases] == [True, True, False, False]


def test_a_row_of_the_log_is_of_one_loss_and_says_of_which(planet, tmp_path, whole):
    recipe = dataclasses.replace(SINGLE_FIRST, log_every=5, loss="crps")
    made, losses = stochastic(planet, tmp_path, recipe), []
    learn = made._learn
    made._learn = lambda batch: losses.append(learn(batch)) or losses[-1]
    told = []
    made.run(told.append)
    rows = rows_of(tmp_path)
    assert [(row["update"], row["loss_kind"]) for row in rows] == [
        (5, "mse"),
        (10, "mse"),
        (12, "mse"),
        (15, "crps"),
        (18, "crps"),
    ]
    for row, part in zip(rows, (slice(0, 5), slice(5, 10), slice(10, 12), slice(12, 15), slice(15, 18)), strict=True):
        assert row["loss"] == pytest.approx(np.mean([float(each["loss"]) for each in losses[part]]))
    assert [row["loss_kind"] for row in told] == [row["loss_kind"] for row in rows]
    assert all(isinstance(value, int | float) for row in told for name, value in row.items() if name != "loss_kind")
    assert not any("loss_kind" in row for row in rows_of(whole))


@pytest.fixture(scope="module")
def whole_single_first(planet, tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole_single_first")
    stochastic(planet, directory, SINGLE_FIRST).run()
    return directory


@pytest.mark.parametrize(
    ("recipe", "uninterrupted", "stop_at"),
    [
        (MEMBERS, "whole", 1),
        (MEMBERS, "whole", 13),
        (SINGLE_FIRST, "whole_single_first", 7),
        (SINGLE_FIRST, "whole_single_first", 12),  # the last of the single forecasts
        (SINGLE_FIRST, "whole_single_first", 13),
    ],
)
def test_a_stopped_run_ends_with_the_same_bits(planet, request, tmp_path, recipe, uninterrupted, stop_at):
    first = stochastic(planet, tmp_path, recipe)
    with pytest.raises(Interrupted):
        first.run(should_stop=lambda: first.update == stop_at)
    torch.rand(7)
    stochastic(planet, tmp_path, recipe).run()
    same_state(tmp_path, request.getfixturevalue(uninterrupted))


def test_members_that_go_on_from_their_own_states_are_the_same_after_a_stop(planet, tmp_path):
    recipe = dataclasses.replace(MEMBERS, phases=(Phase(12, 2, 2, 1.0, replay=0.8),))
    straight, learn, seen = stochastic(planet, tmp_path / "straight", recipe), [], []
    learn = straight._learn

    def watched(batch):
        onward, before = straight._order.rows(straight.update).onward, straight.carried
        row = learn(batch)
        for place in np.flatnonzero(onward):
            assert torch.equal(batch.state[place, 0], before[place])
            seen.append(place % 2)
        return row

    straight._learn = watched
    straight.run()
    assert seen and seen.count(0) == seen.count(1)
    first = stochastic(planet, tmp_path / "stopped", recipe)
    with pytest.raises(Interrupted):
        first.run(should_stop=lambda: first.update == 7)
    stochastic(planet, tmp_path / "stopped", recipe).run()
    same_state(tmp_path / "stopped", tmp_path / "straight")


def test_the_noise_of_a_sample_depends_on_update_and_place_and_not_on_who_computes_it(planet, tmp_path):
    made = stochastic(planet, tmp_path)
    recipe = dataclasses.replace(MEMBERS, phases=(Phase(6, 2, 4, 1.0),))
    alone = Order(made.samples, recipe, Processes(), made.step.noise)
    for size in (2, 4):
        parts = [Order(made.samples, recipe, Processes(rank, size), made.step.noise).batch(3) for rank in range(size)]
        assert torch.equal(torch.cat([part.noise for part in parts]), alone.batch(3).noise)
        assert torch.equal(torch.cat([part.state for part in parts]), alone.batch(3).state)
    every = torch.stack([alone.batch(update).noise for update in range(2)]).flatten(0, 2).flatten(1)
    assert len({row.numpy().tobytes() for row in every}) == 2 * 8 * 2  # updates x rows x steps


def gradient_of(made, recipe, manner=WindowOptions()):  # noqa: B008 (frozen)
    made.step.zero_grad()
    batch = Order(made.samples, recipe, Processes(), made.step.noise).batch(0)
    total, _ = Window(made.step, made._run_window._module.loss)(batch, manner)
    total.backward()
    return total.item(), {name: p.grad.clone() for name, p in made.step.named_parameters()}


def test_steps_that_are_computed_again_see_the_same_noise(planet, tmp_path):
    made, recipe = stochastic(planet, tmp_path), dataclasses.replace(MEMBERS, phases=(Phase(6, 3, 2, 1.0),))
    loss, full = gradient_of(made, recipe)
    same, again = gradient_of(made, recipe, WindowOptions(recompute=True))
    assert loss == same
    for name, gradient in full.items():
        torch.testing.assert_close(again[name], gradient, msg=name)


@pytest.mark.parametrize("single", [False, True])
def test_parts_of_a_batch_give_the_gradient_of_the_batch(planet, tmp_path, single):
    gradients = []
    for parts in (1, 2):
        recipe = dataclasses.replace(MEMBERS, phases=(Phase(1, 1, 4, accumulate=parts, single=single),), clip=1e9)
        made = stochastic(planet, tmp_path / str(parts), recipe)
        for p in (p for n, p in made.step.named_parameters() if "noise" in n):
            torch.nn.init.normal_(p, std=0.1)
            p.data.copy_(torch.linspace(-0.2, 0.2, p.numel()).view_as(p))
        made._learn(made._order.batch(0))
        gradients.append({n: p.grad.clone() for n, p in made.step.named_parameters()})
    scale = max(float(g.abs().max()) for g in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-5 * scale, msg=name)


ENERGY = "dataclasses.replace(STOCHASTIC, loss=dataclasses.replace(STOCHASTIC.loss, kind='energy'))"


def test_two_processes_give_the_weights_of_one(tmp_path):
    """By the energy score: of the CRPS single values turn their gradient round where members cross."""
    options = {"recipe": {"members": 2}, "config": ENERGY}
    assert train(tmp_path / "alone", 1, **options) == [0]
    assert train(tmp_path / "two", 2, **options) == [0, 0]
    assert_near(tmp_path / "two", tmp_path / "alone", 1e-4)


def test_two_processes_give_the_weights_of_one_after_single_forecasts(tmp_path):
    options = {"recipe": {"members": 2}, "config": ENERGY, "first": {"single": True}}
    assert train(tmp_path / "alone", 1, **options) == [0]
    assert train(tmp_path / "two", 2, **options) == [0, 0]
    assert_near(tmp_path / "two", tmp_path / "alone", 1e-4)
    (rows, others) = (rows_of(tmp_path / which) for which in ("two", "alone"))
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in others], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp"])
def test_two_processes_go_on_after_a_stop_with_the_same_bits(tmp_path, sharded):
    options = {"recipe": {"members": 2}, "config": "STOCHASTIC", "sharded": sharded}
    alone = options | {"sharded": False}
    assert train(tmp_path / "begun alone", 1, stop=1, **alone) == [75]
    assert train(tmp_path / "begun", 2, stop=1, **options) == [75, 75]
    assert_near(tmp_path / "begun", tmp_path / "begun alone")
    assert train(tmp_path / "alone", 1, **alone) == [0]
    assert train(tmp_path / "two", 2, **options) == [0, 0]
    # The CRPS turns its gradient round where two members cross: as long as they hardly differ, rounding decides which
    # side some values are on. (Another seed moves the weights of the noise by 2e-2.)
    assert_near(tmp_path / "two", tmp_path / "alone", 2e-3)
    assert train(tmp_path / "stopped", 2, stop=7, who=1, **options) == [75, 75]
    assert train(tmp_path / "stopped", 2, **options) == [0, 0]
    ours, theirs = state(tmp_path / "stopped")[0], state(tmp_path / "two")[0]
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_validation_scores_ensembles_with_the_same_noise_every_time_and_in_any_batches(planet, tmp_path):
    made = stochastic(planet, tmp_path)
    made.run()
    error, found = made._run_window._module.loss.error, []
    for size in (1, 3):
        validation = Validation(made.samples, error, 4, 5, 3, size, members=2, squared=False)
        found.append(validation(made.step, Processes(), torch.device("cpu")))
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert found[0]["skill"] == pytest.approx(1 - found[0]["rollout"] / found[0]["rollout_persistence"])


def test_the_energy_score_trains_too(planet, tmp_path):
    config = dataclasses.replace(STOCHASTIC, loss=dataclasses.replace(STOCHASTIC.loss, kind="energy"))
    made = trainer(planet, tmp_path, dataclasses.replace(MEMBERS, phases=(Phase(30, 1, 3, 1.0),)), config=config)
    made.run()
    rows = rows_of(tmp_path)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert all(p.any() for n, p in made.step.named_parameters() if "noise" in n)


def test_a_step_refuses_noise_that_it_does_not_take_and_asks_for_what_it_does(planet, tmp_path):
    made, plain = stochastic(planet, tmp_path), trainer(planet, tmp_path)
    batch = made._order.batch(0)
    given = [part[:, 0] for part in (batch.state, batch.forcing, batch.clock)]
    with pytest.raises(ValueError, match="Expected noise for this network's step"):
        made.step(*given)
    with pytest.raises(ValueError, match="Expected no noise for this network's step"):
        plain.step(*given, None, batch.noise[:, 0])


# --- a linear-Gaussian world whose spread is known -------------------------------------------------------------------

MEMORY, LENGTH, SPREADS = 0.8, 3000.0, (1.0, 0.4)  # of the anomalies; km; K of a step, in the north and in the south


def random_world(times=600, nlat=8) -> xr.Dataset:
    """Surface temperature T' = MEMORY T + noise, smooth in space, whose size differs between the hemispheres."""
    grid = Grid.gaussian(nlat)
    source = NetworkNoise(grid, [LENGTH], 1)
    size = np.where(grid.mesh()[0] > 0, *SPREADS)
    field, fields = np.zeros(grid.shape), []
    for number in range(times + 50):
        field = MEMORY * field + size * source.draw((11, number + 1))[0].numpy()
        fields.append(field)
    attributes = {"units": "K", "cell_methods": "time: point"}
    start = np.datetime64("2001-01-01T00", "ns")
    return xr.Dataset(
        {"2m_temperature": (("time", "latitude", "longitude"), 280 + np.stack(fields[50:]).astype("f4"), attributes)},
        {
            "time": start + np.arange(times) * np.timedelta64(6, "h"),
            "latitude": ("latitude", grid.latitude),
            "longitude": ("longitude", grid.longitude),
        },
    )


@pytest.mark.slow
def test_training_recovers_the_spread_of_a_linear_gaussian_world(tmp_path):
    """One step's spread by hemisphere, its length scale, and the growth to the climate's own spread."""
    world = random_world()
    noise = {"length_scales": [LENGTH], "channels": 2}
    values = {
        "prognostic": ["2m_temperature"],
        "diagnostic": [],
        "forcing": [],
        "network": {"kind": "sfno", "embed_dim": 8, "blocks": 2, "norm": "layer", "noise": noise},
        "conservation": {"kind": "none"},
        "loss": {"kind": "crps"},
        "phases": [{"updates": 500, "batch_size": 8}, {"updates": 40, "rollout_steps": 3, "batch_size": 4}],
        "optimizer": {"lr": 1e-2, "warmup_steps": 20},
    }
    config = TrainOptions.of(PATHS | values)
    made = trainer(world, tmp_path, dataclasses.replace(Recipe.of(config), save_every=1000), config=config)
    made.run()
    members, steps, starts = 40, 6, made.samples.starts(6)[::60]
    batch = made.samples.batch(starts, steps).for_members(members, None)
    rows = [(start, member) for start in range(len(starts)) for member in range(members)]
    inputs = (
        given._replace(noise=made.step.noise.rows((*row, k, 99) for row in rows))
        for k, given in enumerate(batch.inputs())
    )
    results = [result.state for result in rollout(made.step, batch.state[:, 0], inputs)]
    forecasts = torch.stack(results).unflatten(1, (-1, members))[:, :, :, 0].numpy()  # (step, start, member, *space)
    spread = forecasts.var(2, ddof=1).mean(1)  # (step, *space)
    for half, size in ((slice(0, 4), SPREADS[0]), (slice(4, 8), SPREADS[1])):
        found = np.sqrt(spread[:, half].mean((-1, -2)))
        expected = size * np.sqrt((1 - MEMORY ** (2 * np.arange(1, steps + 1))) / (1 - MEMORY**2))
        np.testing.assert_allclose(found, expected, rtol=0.2)
    deviations = (forecasts[0] - forecasts[0].mean(1, keepdims=True))[:, :, 2]  # along a parallel of the north
    found = np.mean(deviations * np.roll(deviations, 1, -1)) / np.mean(deviations**2)
    apart = np.radians(22.5) * np.cos(np.radians(world["latitude"].values[2])) * 6371 / LENGTH
    assert found == pytest.approx(np.exp(-(apart**2) / 2), abs=0.12)
