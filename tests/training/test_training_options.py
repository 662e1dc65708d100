"""What a recipe may ask of training, and validation beside it: same gradients, same choice, same bits after a stop."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from small_planet import numpy_statistics
from small_training import CONFIG, RECIPE, loss_of, same_state, trainer, weighted

from emulator.data.batch import Batch
from emulator.files.interruption import Interrupted
from emulator.losses.options import LossOptions
from emulator.model import checkpoint
from emulator.model.rollout import rollout
from emulator.parallel.processes import Processes
from emulator.training.options.phases import Phase
from emulator.training.options.sections import PeriodOptions, ValidationOptions
from emulator.training.replay import Replay
from emulator.training.run import _kept
from emulator.training.trainer import Diverged, Trainer
from emulator.training.validation import Best, Validation
from emulator.training.window import Window, WindowOptions


@pytest.fixture(scope="module")
def whole(planet, tmp_path_factory):
    """An undisturbed run."""
    directory = tmp_path_factory.mktemp("whole")
    trainer(planet, directory).run()
    return directory


def rows_of(directory, name="metrics.jsonl"):
    return [json.loads(line) for line in (directory / name).read_text().splitlines()]


def shortened(*phases, **more):
    return dataclasses.replace(RECIPE, phases=phases, **more)


def validated(planet, directory, recipe=RECIPE, every=4, patience=0):
    """A trainer with a validation on the same planet's later times."""
    made = trainer(planet, directory, recipe)
    error = weighted(made.samples, numpy_statistics(planet)).error()
    made.validation = Validation(made.samples, error, every, windows=5, steps=3, batch_size=2, patience=patience)
    return made


def test_validation_scores_the_averaged_weights_and_leaves_the_training_alone(planet, whole, tmp_path):
    made = validated(planet, tmp_path)
    made.run()
    same_state(tmp_path, whole)
    rows = rows_of(tmp_path, "validation.jsonl")
    assert [row["update"] for row in rows] == [4, 8, 12, 16, 18]
    assert rows[-1]["one_step"] < rows[0]["one_step"] and rows[-1]["skill"] > rows[0]["skill"]
    assert made.best.skill == max(row["skill"] for row in rows)
    best, about = checkpoint.load(checkpoint.numbered(tmp_path, "best")[-1])
    assert about["update"] == made.best.update and best.keys() == made.step.state_dict().keys()
    if made.best.update == 18:
        for name, tensor in made.tensors().items():
            torch.testing.assert_close(best[name], tensor, rtol=0, atol=0)


def test_the_best_weights_of_another_training_are_not_taken_for_ones_own(planet, tmp_path):
    made = validated(planet, tmp_path, shortened(Phase(4, 1, 2, 1.0)))
    made.run()
    config = dataclasses.replace(CONFIG, validation=ValidationOptions(PeriodOptions()))
    weights, about = _kept(made, {}, config)
    assert about["update"] == 4
    (path,) = checkpoint.numbered(tmp_path, "best")
    checkpoint.save(path, weights, checkpoint.describe(path) | {"identity": "other"})
    with pytest.raises(
        checkpoint.CheckpointError, match="after update 4 of this training in .*best-00000004, got those of another"
    ):
        _kept(made, {}, config)


def test_damaged_weights_of_the_best_validation_are_replaced_by_the_last_ones(planet, tmp_path, caplog):
    made = validated(planet, tmp_path, shortened(Phase(4, 1, 2, 1.0)))
    made.run()
    (path,) = checkpoint.numbered(tmp_path, "best")
    (path / checkpoint.TENSORS).write_bytes(b"")
    config = dataclasses.replace(CONFIG, validation=ValidationOptions(PeriodOptions()))
    last = made.tensors()
    assert _kept(made, last, config) == (last, {"update": 4})
    assert "damaged" in caplog.text and "the last update" in caplog.text


def test_validation_agrees_with_rollouts_step_by_step(planet, tmp_path):
    made = validated(planet, tmp_path)
    made.step.eval()
    found = made.validation(made.step, Processes(), torch.device("cpu"))
    starts = made.samples.starts(3)[np.linspace(0, len(made.samples.starts(3)) - 1, 5).round().astype(int)]
    totals = np.zeros(3)
    for start in starts:
        batch = made.samples.batch([start], 3)
        for k, result in enumerate(rollout(made.step, batch.state[:, 0], batch.inputs())):
            truth = batch.state[:, k + 1], batch.diagnostic[:, k]
            if k == 0:
                totals[0] += float(made.validation.error(result.state, result.diagnostic, *truth))
        totals[1] += float(made.validation.error(result.state, truth[1], *truth))
        totals[2] += float(made.validation.error(batch.state[:, 0], truth[1], *truth))
    assert [found[n] for n in ("one_step", "rollout", "rollout_persistence")] == pytest.approx(totals / 5, rel=1e-4)
    assert found["skill"] == pytest.approx(1 - (totals[1] / totals[2]) ** 0.5, rel=1e-3)


def test_a_run_that_is_stopped_between_validations_ends_with_the_same_choice(planet, tmp_path):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    validated(planet, straight).run()
    first = validated(planet, stopped)
    with pytest.raises(Interrupted):
        first.run(should_stop=lambda: first.update == 10)
    validated(planet, stopped).run()
    same_state(stopped, straight)
    assert (stopped / "validation.jsonl").read_bytes() == (straight / "validation.jsonl").read_bytes()
    ours, theirs = (checkpoint.load(checkpoint.numbered(folder, "best")[-1]) for folder in (stopped, straight))
    assert ours[1] == theirs[1] and all(torch.equal(tensor, theirs[0][name]) for name, tensor in ours[0].items())


def test_training_ends_early_when_rollouts_stop_to_improve(planet, tmp_path):
    made = validated(planet, tmp_path, dataclasses.replace(RECIPE, lr=1e-9, final_lr=1e-9, ema=0.0), patience=2)
    made.validation = dataclasses.replace(made.validation, every=2)
    made.best = Best(skill=1.0)  # what no forecast reaches
    made.run()
    assert made.update == 4 and made.best.since == 2
    again = validated(planet, tmp_path, dataclasses.replace(RECIPE, lr=1e-9, final_lr=1e-9, ema=0.0), patience=2)
    again.run()
    assert again.update == 4


def test_after_divergence_the_run_goes_back_with_half_the_rate(planet, tmp_path, caplog):
    made = trainer(planet, tmp_path, dataclasses.replace(RECIPE, retries=1))
    poison(made, 8, lambda batch: batch.clock.fill_(float("nan")))
    made.run()
    assert "update 8" in caplog.text and "times 0.5" in caplog.text and made.update == 18
    rates = {row["update"]: row["learning_rate"] for row in rows_of(tmp_path)}
    assert rates[4] == RECIPE.learning_rate(3) and rates[10] == RECIPE.learning_rate(9) / 2
    assert checkpoint.load(checkpoint.numbered(tmp_path, "state")[-1])[1]["retried"] == 1


def test_what_a_diverged_run_goes_back_to_does_not_depend_on_saving_by_time(planet, tmp_path):
    """Nor on a stop: the states after 6 and 7 are newer than that after 5, and passed over."""
    rows = []
    for seconds, stop_at in ((float("inf"), -1), (0.0, -1), (0.0, 7)):
        folder = tmp_path / f"{seconds} {stop_at}"
        recipe = dataclasses.replace(RECIPE, retries=1, save_seconds=seconds)
        made = trainer(planet, folder, recipe)
        if stop_at > 0:
            with pytest.raises(Interrupted):
                made.run(should_stop=lambda made=made, stop_at=stop_at: made.update == stop_at)
            made = trainer(planet, folder, recipe)
        poison(made, 8, lambda batch: batch.clock.fill_(float("nan")))
        made.run()
        rows.append((folder / "metrics.jsonl").read_bytes())
    assert rows[0] == rows[1] == rows[2] and rows[0].count(b"\n") == 9


def poison(made, update, spoil):
    """Has the batch of an update spoiled, once; gives the list of the updates at which that happened."""
    learn, spoiled = made._learn, []

    def poisoned(batch):
        if made.update == update and not spoiled:
            spoiled.append(update)
            spoil(batch)
        return learn(batch)

    made._learn = poisoned
    return spoiled


def test_data_that_are_not_finite_are_named_with_their_time_and_not_tried_again(planet, tmp_path):
    """In the truth alone, which no forecast shows, and in another part of the batch than the last."""
    recipe = shortened(Phase(12, 1, 4, 1.0, accumulate=2), retries=3)
    made = trainer(planet, tmp_path, recipe)
    poison(made, 6, lambda batch: batch.state[0, 1, 2].fill_(float("nan")))
    with pytest.raises(Diverged, match="update 6 .the data are not finite: temperature.2. at 2001-") as caught:
        made.run()
    time = np.datetime64(str(caught.value).split(" at ")[2].split(")")[0])
    assert time == made.samples.times[made._order.rows(6).starts[0] + 1]
    assert "state-00000005" in str(caught.value) and made.retried == 0


def test_a_forecast_that_breaks_in_the_first_part_of_a_batch_is_named(planet, tmp_path):
    made = trainer(planet, tmp_path, shortened(Phase(4, 1, 4, 1.0, accumulate=2)))
    window, parts = made._run_window, []

    class Broken(type(window)):
        def __call__(self, *arguments):
            total, result = window(*arguments)
            parts.append(1)
            if len(parts) == 1:
                result.diagnostic[:, 1] = float("nan")
                total = total * float("nan")
            return total, result

    made._run_window = Broken(window._module)
    name = made.step.layout.diagnostic.labels()[1]
    with pytest.raises(Diverged, match=f"not finite at update 0 .variables: {name}.; no state was saved"):
        made.run()


def test_a_loss_above_the_limit_is_divergence_and_the_largest_errors_are_named(planet, tmp_path):
    made = trainer(planet, tmp_path, dataclasses.replace(RECIPE, loss_limit=1e4))
    poison(made, 7, lambda batch: batch.state[1, 1, 3].add_(1e5))
    with pytest.raises(Diverged, match=r"above 1e\+04, at update 7 .largest errors .*: temperature\[3\] by"):
        made.run()


def test_before_the_first_save_a_run_that_diverges_goes_back_to_its_beginning(planet, tmp_path):
    made = trainer(planet, tmp_path, dataclasses.replace(RECIPE, retries=1, loss_limit=1e4))
    poison(made, 3, lambda batch: batch.state[:, 1:].add_(1e5))
    made.run()
    assert made.update == 18 and made.retried == 1
    rows = rows_of(tmp_path)
    assert [row["update"] for row in rows] == list(range(2, 19, 2))
    assert rows[0]["learning_rate"] == RECIPE.learning_rate(1) / 2


def test_after_going_back_the_weights_of_the_best_validation_are_still_there(planet, tmp_path):
    """Saved at 10, best at 8, better at 12, diverged at 13: from 10 on again, where 12 is no longer the best."""
    made = validated(planet, tmp_path, dataclasses.replace(RECIPE, retries=1))
    skills = iter([0.1, 0.2, 0.3, 0.0, 0.0, 0.0])
    validation = made.validation

    class Told:
        every, patience, squared = validation.every, 0, True

        def __call__(self, *arguments):
            return validation(*arguments) | {"skill": next(skills)}

    made.validation = Told()
    made.recipe = dataclasses.replace(made.recipe, loss_limit=1e4)
    poison(made, 13, lambda batch: batch.state[:, 1:].add_(1e5))
    made.run()
    assert made.best.update == 8 and made.retried == 1
    config = dataclasses.replace(CONFIG, validation=ValidationOptions(PeriodOptions()))
    assert _kept(made, {}, config)[1]["update"] == 8
    assert [path.name for path in checkpoint.numbered(tmp_path, "best")] == ["best-00000008"]


def test_damaged_states_do_not_push_out_the_good_ones(planet, tmp_path, caplog):
    recipe = dataclasses.replace(RECIPE, keep=1)
    first = trainer(planet, tmp_path, recipe)
    with pytest.raises(Interrupted):
        first.run(should_stop=lambda: first.update == 16)
    (newest,) = checkpoint.numbered(tmp_path, "state")
    (newest / checkpoint.METADATA).write_bytes(b'{"update": 16, "\xff')
    second = trainer(planet, tmp_path, recipe)
    with pytest.raises(Interrupted):
        second.run(should_stop=lambda: second.update == 7)
    assert [path.name for path in checkpoint.numbered(tmp_path, "state")] == ["state-00000007"]
    assert "damaged" in caplog.text


def test_parts_of_a_batch_give_the_gradient_of_the_batch(planet, tmp_path):
    phase = Phase(1, 1, 4, 1.0)
    gradients = []
    for parts in (1, 2, 4):
        made = trainer(planet, tmp_path / str(parts), shortened(dataclasses.replace(phase, accumulate=parts), clip=1e9))
        made._learn(made._order.batch(0))
        gradients.append({n: p.grad.clone() for n, p in made.step.named_parameters()})
    scale = max(float(g.abs().max()) for g in gradients[0].values())
    for other in gradients[1:]:
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-3, atol=1e-6 * scale, msg=name)
    with pytest.raises(ValueError, match="batch_size 4 to divide into 3 parts"):
        shortened(dataclasses.replace(phase, accumulate=3))


def gradient_of(made, manner):
    made.step.zero_grad()
    total, _ = Window(made.step, made._run_window._module.loss)(made.samples.batch([3, 9], 3), manner)
    total.backward()
    return {name: p.grad.clone() for name, p in made.step.named_parameters()}, total.item()


def test_cutting_the_gradient_changes_it_and_not_the_loss(planet, tmp_path):
    made = trainer(planet, tmp_path)
    full, loss = gradient_of(made, WindowOptions())
    cut, same = gradient_of(made, WindowOptions(gradient_steps=1))
    far, again = gradient_of(made, WindowOptions(gradient_steps=5))
    assert loss == same == again
    assert any(not torch.allclose(full[name], cut[name]) for name in full)
    assert all(torch.equal(full[name], far[name]) for name in full)


def test_steps_that_are_computed_again_give_the_same_gradient(planet, tmp_path):
    made = trainer(planet, tmp_path)
    full, loss = gradient_of(made, WindowOptions())
    again, same = gradient_of(made, WindowOptions(recompute=True))
    assert loss == same
    for name, gradient in full.items():
        torch.testing.assert_close(again[name], gradient, msg=name)


def test_a_teacher_forced_step_starts_from_the_truth(planet, tmp_path):
    made = trainer(planet, tmp_path)
    _, forced = gradient_of(made, WindowOptions(teacher_forced=(False, True, True)))
    batch, single = made.samples.batch([3, 9], 3), 0.0
    for k in range(3):
        one = Batch(
            batch.state[:, k : k + 2], *(t[:, k : k + 1] for t in (batch.diagnostic, batch.forcing, batch.clock))
        )
        single += float(Window(made.step, made._run_window._module.loss)(one, WindowOptions())[0]) / 3
    assert forced == pytest.approx(single, rel=1e-5)


def test_random_windows_and_teaching_are_functions_of_the_update(planet, tmp_path):
    recipe = shortened(Phase(400, 4, 2, 1.0, random_steps=True, teacher=0.25))
    steps = [recipe.steps(update) for update in range(400)]
    assert set(steps) == {1, 2, 3, 4} and steps == [recipe.steps(update) for update in range(400)]
    assert min(steps.count(n) for n in (1, 2, 3, 4)) > 60
    forced = [flag for update in range(400) for flag in recipe.teacher_forced(update)]
    assert len(forced) == sum(steps) and 0.2 < sum(forced) / len(forced) < 0.3
    straight = dataclasses.replace(recipe, phases=(dataclasses.replace(recipe.phases[0], updates=8),))
    first = trainer(planet, tmp_path / "stopped", straight)
    with pytest.raises(Interrupted):
        first.run(should_stop=lambda: first.update == 3)
    trainer(planet, tmp_path / "stopped", straight).run()
    trainer(planet, tmp_path / "straight", straight).run()
    same_state(tmp_path / "stopped", tmp_path / "straight")


def test_half_precision_trains_and_keeps_the_budgets_closed(planet, tmp_path):
    made = trainer(planet, tmp_path, dataclasses.replace(RECIPE, precision="bfloat16"))
    made.run()
    rows = rows_of(tmp_path)
    assert rows[5]["loss"] < rows[0]["loss"] and rows[-1]["residual_after_energy"] < 1e-8
    assert all(p.dtype == torch.float32 for p in made.step.parameters())


def test_older_states_are_dropped_and_as_many_kept_as_asked(planet, tmp_path):
    trainer(planet, tmp_path, dataclasses.replace(RECIPE, keep=3, save_every=4)).run()
    assert [path.name for path in checkpoint.numbered(tmp_path, "state")] == [f"state-{n:08d}" for n in (12, 16, 18)]


def test_all_states_damaged_starts_afresh_and_ends_with_the_same_bits(planet, whole, tmp_path):
    first = trainer(planet, tmp_path)
    with pytest.raises(Interrupted):
        first.run(should_stop=lambda: first.update == 11)
    for path in checkpoint.numbered(tmp_path, "state"):
        (path / checkpoint.TENSORS).write_bytes(b"")
    trainer(planet, tmp_path).run()
    same_state(tmp_path, whole)


def test_random_branches_are_the_same_after_a_stop(planet, tmp_path):
    """Stochastic depth draws from the update's own seed."""
    options = {"network": {"drop_path": 0.5, "blocks": 2}}
    first = trainer(planet, tmp_path / "stopped", **options)
    with pytest.raises(Interrupted):
        first.run(should_stop=lambda: first.update == 7)
    torch.rand(5)
    trainer(planet, tmp_path / "stopped", **options).run()
    trainer(planet, tmp_path / "straight", **options).run()
    same_state(tmp_path / "stopped", tmp_path / "straight")


def test_samples_go_on_where_their_place_of_the_batch_ended():
    fresh = {u: np.array([10 * u, 10 * u + 5]) for u in range(200)}
    replay = Replay(Phase(197, replay=0.75, replay_most=4), 1, 3, fresh.get, lambda update: 2, lambda time: time % 50)
    ages, last, went_on = np.zeros(2, int), np.zeros(2, int), 0
    for update in range(3, 200):
        planned = replay.plan(update)
        starts, onward = planned.starts, planned.onward
        if update == 3:
            assert not onward.any()
        for place in range(2):
            expected = last[place] + 2 if onward[place] else fresh[update][place]
            assert starts[place] == expected
            assert not onward[place] or starts[place] % 50
        ages = np.where(onward, ages + 1, 0)
        assert ages.max() < 4
        last, went_on = starts, went_on + onward.sum()
    assert 0.4 < went_on / (2 * 197) < 0.75
    with pytest.raises(ValueError, match="below 1, got 1"):
        Phase(197, replay=1)


def test_a_sample_that_goes_on_starts_from_the_networks_own_state(planet, tmp_path):
    made = trainer(planet, tmp_path, shortened(Phase(12, 1, 2, 1.0, replay=0.8), Phase(4, 1, 2, 1.0)))
    learn, seen = made._learn, []

    def watched(batch):
        before = made.carried
        truth = batch.state[:, 0].clone()
        row = learn(batch)
        onward = made._order.rows(made.update).onward if made.update < 12 else np.zeros(2, bool)
        for place in range(2):
            start = before[place] if onward[place] else truth[place]
            assert torch.equal(batch.state[place, 0], start)
            seen.append(onward[place])
        return row

    made._learn = watched
    made.run()
    assert 5 < sum(seen) < 24 and made.carried is None


def test_replayed_samples_are_the_same_after_a_stop(planet, tmp_path):
    recipe = shortened(Phase(12, 2, 2, 1.0, replay=0.8))
    first = trainer(planet, tmp_path / "stopped", recipe)
    with pytest.raises(Interrupted):
        first.run(should_stop=lambda: first.update == 7)
    trainer(planet, tmp_path / "stopped", recipe).run()
    trainer(planet, tmp_path / "straight", recipe).run()
    same_state(tmp_path / "stopped", tmp_path / "straight")


@pytest.mark.parametrize("kind", ["l1", "huber", "spectral"])
def test_every_loss_of_the_configuration_trains(planet, tmp_path, kind):
    made = trainer(planet, tmp_path)
    config = dataclasses.replace(CONFIG, loss=LossOptions(kind))
    loss = loss_of(made.samples, numpy_statistics(planet), config)
    again = Trainer(made.step, loss, made.samples, RECIPE, tmp_path, "same")
    again.run()
    rows = rows_of(tmp_path)
    assert rows[5]["loss"] < rows[0]["loss"]


@pytest.mark.slow
def test_a_compiled_network_trains_alike(planet, tmp_path):
    plain, compiled = trainer(planet, tmp_path / "plain"), trainer(planet, tmp_path / "compiled")
    compiled.step.network.compile()
    assert compiled.step.state_dict().keys() == plain.step.state_dict().keys()
    first, second = (made._learn(made._order.batch(0)) for made in (plain, compiled))
    torch.testing.assert_close(second["loss"], first["loss"], rtol=1e-4, atol=0)
    torch.testing.assert_close(second["gradient_norm"], first["gradient_norm"], rtol=1e-3, atol=0)
