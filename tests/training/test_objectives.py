"""Pools of states, the loss of the last step alone, and ramps of teaching: closed forms, and the same bits after a stop."""

import dataclasses

import numpy as np
import pytest
import torch
from small_training import CONFIG, RECIPE, same_state, samples_of, trainer

from emulator.files.interruption import Interrupted
from emulator.model.rollout import Execution, rollout
from emulator.parallel.processes import Processes
from emulator.training.options.phases import MaskOptions, Phase
from emulator.training.order import Order
from emulator.training.replay import Replay
from emulator.training.window import Window, WindowOptions

SMALL = dataclasses.replace(CONFIG, network={"kind": "unet", "width": 4, "depth": 1}, conservation={"kind": "none"})


def shortened(*phases, **more):
    return dataclasses.replace(RECIPE, phases=phases, **more)


def simulated(phase, first, fresh, drawn, valid, times):
    """Starts, ages and slots of all updates, from the first one on, as the pools themselves would have it."""
    pools, rows = {}, []
    for update in range(first, first + phase.updates):
        row = []
        for place in range(phase.batch_size):
            slot, new = drawn(update, place)
            start, age = pools.get((place, slot), (None, 0))
            if start is None or new or age >= phase.replay_most or not valid(start):
                start, age = int(fresh(update)[place]), 0
            row.append((start, age > 0, slot))
            pools[place, slot] = start + times(update), age + 1
        rows.append(row)
    return rows


@pytest.mark.parametrize(
    "more",
    [
        {"replay": 0.8, "replay_pool": 3},
        {"replay_refresh": 5, "replay_pool": 3, "replay_most": 6},
        {"replay_refresh": 4},
    ],
)
def test_what_a_pool_hands_out_is_what_was_put_in(more):
    """The plan of an update alone is that of pools followed from the first update on."""
    phase = Phase(120, batch_size=2, **{"replay_most": 4} | more)
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 900, (130, 2))
    replay = Replay(phase, 1, 3, starts.__getitem__, lambda update: 1 + update % 3, lambda time: time % 11 > 0)
    expected = simulated(phase, 3, starts.__getitem__, replay._drawn, replay.valid, replay.times)
    for update in [3, 100, *range(4, 123)]:  # in any order
        planned = replay.plan(update)
        assert list(zip(planned.starts, planned.onward, planned.slots, strict=True)) == expected[update - 3]
    onward = np.array([[one[1] for one in row] for row in expected])
    assert 0.3 < onward.mean() < 0.95
    if phase.replay_refresh:  # every so many updates, all states of a pool in turn
        for place in range(2):
            new = [(u, replay._drawn(u, place)[0]) for u in range(3, 123) if replay._drawn(u, place)[1]]
            assert set(np.diff([u for u, _ in new])) == {phase.replay_refresh}
            assert {slot for _, slot in new} == set(range(phase.replay_pool))


def test_a_sample_starts_from_the_state_of_its_slot(planet, tmp_path):
    made = trainer(planet, tmp_path, shortened(Phase(16, 1, 2, replay=0.9, replay_pool=3), Phase(2)), config=SMALL)
    learn, kept, ages = made._learn, {}, []

    def watched(batch):
        planned, truth, update = made._order.rows(made.update), batch.state[:, 0].clone(), made.update
        row = learn(batch)
        for place in range(2 if update < 16 else 0):
            start = kept[place, planned.slots[place]] if planned.onward[place] else truth[place]
            torch.testing.assert_close(batch.state[place, 0], start, rtol=0, atol=0)
            kept[place, planned.slots[place]] = made.carried[place * 3 + planned.slots[place]].clone()
            ages.append(planned.onward[place])
        return row

    made._learn = watched
    made.run()
    assert sum(ages) > 8 and made.carried is None


@pytest.mark.parametrize("more", [{"replay": 0.9}, {"replay_refresh": 3}])
def test_a_stopped_pool_ends_with_the_same_bits(planet, tmp_path, more):
    recipe = shortened(Phase(8, 1, 2, replay_pool=2, **more), Phase(3, 3, 2, loss_steps="last", teacher_end=1.0))
    for stop in (5, 9):
        first = trainer(planet, tmp_path / "stopped", recipe, config=SMALL)
        with pytest.raises(Interrupted):
            first.run(should_stop=lambda first=first, stop=stop: first.update == stop)
    trainer(planet, tmp_path / "stopped", recipe, config=SMALL).run()
    trainer(planet, tmp_path / "straight", recipe, config=SMALL).run()
    same_state(tmp_path / "stopped", tmp_path / "straight")


def test_the_last_step_alone_counts_and_carries_gradients(planet, tmp_path):
    """Loss and gradient of a step from the state that two steps without gradients have reached."""
    made = trainer(planet, tmp_path, config=SMALL)
    loss, batch = made._run_window._module.loss, made.samples.batch([3, 9], 3)
    found, _ = Window(made.step, loss)(batch, WindowOptions(last_alone=True))
    found.backward()
    gradients = {name: p.grad.clone() for name, p in made.step.named_parameters()}
    made.step.zero_grad()
    steps = list(batch.inputs())
    *_, end = rollout(made.step, batch.start(), steps[:2])
    execution = Execution(gradients=True)
    last = next(rollout(made.step, end.state, steps[2:], end.anchor, first=3, execution=execution))
    wanted = loss(made.step, end.state, last, batch.truth(2), end.anchor)
    wanted.backward()
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    for name, p in made.step.named_parameters():
        torch.testing.assert_close(gradients[name], p.grad, rtol=0, atol=0)
    with torch.no_grad():
        whole, _ = Window(made.step, loss)(batch, WindowOptions())
    assert not torch.isclose(found.detach(), whole)
    one = made.samples.batch([3, 9], 1)
    both = [Window(made.step, loss)(one, WindowOptions(last_alone=alone))[0] for alone in (True, False)]
    assert torch.equal(*both)


def test_every_process_has_its_part_of_the_same_batch(planet):
    """Starts, slots and masks, whatever the number of processes."""
    samples = samples_of(planet, SMALL)
    recipe = shortened(Phase(8, 1, 4, replay=0.7, replay_pool=3), Phase(4, 1, 4, masks=MaskOptions(0.5, variables=0.3)))
    whole, *parts = (Order(samples, recipe, Processes(rank, size)) for rank, size in [(0, 1), (0, 2), (1, 2)])
    for update in range(12):
        planned, halves = whole.rows(update), [part.rows(update) for part in parts]
        for name in ("starts", "onward", "slots") if update < 8 else ("starts",):
            joined = np.concatenate([getattr(half, name) for half in halves])
            np.testing.assert_array_equal(joined, getattr(planned, name))
        states = torch.cat([part.batch(update).state for part in parts])
        torch.testing.assert_close(states, whole.batch(update).state, rtol=0, atol=0, equal_nan=True)
        assert bool(states.isnan().any()) == (update >= 8)


def test_the_time_and_memory_of_steps_without_gradients():
    last = Phase(10, 4, 2, loss_steps="last")
    assert last.work == pytest.approx(2 * 2) and last.kept_steps == 1
    assert Phase(10, 4, 2).work == 8 and Phase(10, 4, 2).kept_steps == 4


def test_teaching_falls_along_a_line():
    recipe = shortened(Phase(5), Phase(101, 4, 2, teacher=1.0, teacher_end=0.2), Phase(3, teacher=0.5))
    assert [recipe.teacher(n) for n in (0, 5, 55, 105, 106, 108)] == pytest.approx([0, 1, 0.6, 0.2, 0.5, 0.5])
    forced = np.array([recipe.teacher_forced(n) for n in range(5, 106)])
    assert forced[:20].mean() > 0.85 and forced[-20:].mean() < 0.4
    rising = dataclasses.replace(recipe, phases=(Phase(11, 2, teacher_end=1.0),))
    assert rising.teacher(0) == 0 and rising.teacher(10) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"replay": 0.5, "replay_refresh": 3}, "either replay, a share, or replay_refresh"),
        ({"replay_pool": 4}, "replay or replay_refresh with replay_pool 4"),
        ({"loss_steps": "last", "gradient_steps": 1}, "no gradient_steps with loss_steps last"),
        ({"loss_steps": "first"}, "loss_steps among all, last"),
        ({"masks": {"share": 0.0}}, "got both 0"),
        ({"masks": {}, "replay": 0.5}, "masks or replay"),
        ({"masks": {"lead": 0}, "rollout_steps": 2}, "rollout_steps 1 with masks.lead 0"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Phase.of({"updates": 4} | options)
