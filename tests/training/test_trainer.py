"""Training: it learns, resumes to the same bits, and says what went wrong."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_planet import numpy_statistics
from small_training import CONFIG, RECIPE, buffers_of, loss_of, same_state, samples_of, trainer

from emulator.files.interruption import Interrupted
from emulator.model import checkpoint
from emulator.model.assemble import make_step
from emulator.model.conserving import ConservationOptions, conservation
from emulator.training.options.phases import Phase
from emulator.training.recipe import Recipe
from emulator.training.trainer import Diverged, Trainer


@pytest.fixture(scope="module")
def whole(planet, tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    trainer(planet, directory).run()
    return directory


def test_the_loss_falls_and_the_log_tells_it(whole):
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == list(range(2, 19, 2))
    assert rows[5]["loss"] < rows[0]["loss"]
    assert rows[-1]["phase"] == 1 and rows[-1]["residual_after_energy"] < 1e-8 < rows[-1]["residual_before_energy"]
    timing = [json.loads(line) for line in (whole / "timing.jsonl").read_text().splitlines()]
    assert all(0 <= row["data_wait_share"] < 1 and row["samples_per_second"] > 0 for row in timing)


def test_the_rate_of_products_counts_every_sample_and_step(planet, tmp_path):
    made = trainer(planet, tmp_path, products=10**10)
    made.run()
    row = json.loads((tmp_path / "timing.jsonl").read_text().splitlines()[-1])
    work = 12 * 3 + 6 * 2 * 2
    assert row["gigaflop_per_second"] * row["seconds"] == pytest.approx(work * 10, rel=0.05)
    assert row["product_rate_share"] > 0


@pytest.mark.parametrize("stop_at", [1, 5, 13])
def test_a_stopped_run_ends_with_the_same_bits(planet, whole, tmp_path, stop_at):
    first = trainer(planet, tmp_path)
    with pytest.raises(Interrupted, match=f"after update {stop_at} of 18"):
        first.run(should_stop=lambda: first.update == stop_at)
    trainer(planet, tmp_path).run()
    same_state(tmp_path, whole)


def test_saving_by_time_changes_no_bit_and_a_killed_run_goes_on_from_there(planet, whole, tmp_path):
    """Saved after every update, and killed when nothing was due by the number of updates."""
    often = dataclasses.replace(RECIPE, save_seconds=0.0)
    first = trainer(planet, tmp_path, often)

    def killed():
        if first.update == 4:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        first.run(should_stop=killed)
    assert [path.name for path in checkpoint.numbered(tmp_path, "state")] == ["state-00000002", "state-00000003"]
    second = trainer(planet, tmp_path, often)
    second.run()
    same_state(tmp_path, whole)
    assert [path.name for path in checkpoint.numbered(tmp_path, "state")] == ["state-00000017", "state-00000018"]


def test_nothing_is_saved_before_it_is_due(planet, tmp_path):
    made = trainer(planet, tmp_path, dataclasses.replace(RECIPE, save_seconds=1e6))
    made._save = lambda: saved.append(made.update)
    saved = []
    made.run()
    assert saved == [5, 10, 15, 18]


def test_a_state_damaged_by_a_crash_is_passed_over(planet, whole, tmp_path, caplog):
    first = trainer(planet, tmp_path)
    with pytest.raises(Interrupted):
        first.run(should_stop=lambda: first.update == 11)
    newest = checkpoint.numbered(tmp_path, "state")[-1] / checkpoint.TENSORS
    newest.write_bytes(newest.read_bytes()[:1000])
    trainer(planet, tmp_path).run()
    assert "damaged" in caplog.text
    same_state(tmp_path, whole)


def test_another_configuration_starts_afresh(planet, whole, tmp_path, caplog):
    first = trainer(planet, tmp_path, identity="other")
    with pytest.raises(Interrupted):
        first.run(should_stop=lambda: first.update == 7)
    trainer(planet, tmp_path).run()
    assert "another configuration" in caplog.text
    same_state(tmp_path, whole)


@pytest.mark.parametrize("keep", [1, 2])
def test_newer_states_of_another_training_neither_stop_a_resumption_nor_push_its_states_out(
    planet, whole, tmp_path, keep, caplog
):
    """Own states up to update 5, those of another configuration up to 16 beside them: stopped at 5, 7 and 10, then on."""
    recipe = dataclasses.replace(RECIPE, keep=keep)
    for identity, stop_at in [("other", 15), ("other", 16), ("same", 5), ("same", 7), ("same", 10)]:
        made = trainer(planet, tmp_path, recipe, identity)
        with pytest.raises(Interrupted):
            made.run(should_stop=lambda made=made, stop_at=stop_at: made.update == stop_at)
        states = [checkpoint.describe(path) for path in checkpoint.numbered(tmp_path, "state")]
        assert stop_at in [state["update"] for state in states if state["identity"] == identity]
        assert len([state for state in states if state["identity"] == "same"]) <= keep
    assert 16 in [state["update"] for state in states if state["identity"] == "other"]
    caplog.set_level("INFO", "emulator.training.trainer")
    caplog.clear()
    last = trainer(planet, tmp_path, recipe)
    last.run()
    assert "state-00000016 belongs to another configuration" in caplog.text and "after update 10" in caplog.text
    same_state(tmp_path, whole)


def test_divergence_names_its_own_last_state(planet, tmp_path):
    for identity, stop_at in (("other", 9), ("same", 3)):
        made = trainer(planet, tmp_path, identity=identity)
        with pytest.raises(Interrupted):
            made.run(should_stop=lambda made=made, stop_at=stop_at: made.update == stop_at)
    made.step.change_std[0] = float("nan")
    with pytest.raises(Diverged, match="the last good state is .*state-00000003"):
        made._learn(made._order.batch(3))


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = {tests!r}
import torch
torch.set_num_threads({threads})
from small_planet import small_planet
from small_training import trainer
trainer(small_planet(), Path({directory!r})).run(lambda row: print(row["update"], flush=True))
"""


def test_kill_nine_and_again_gives_the_same_bits(planet, whole, tmp_path):
    code = KILLED.format(tests=sys.path, directory=str(tmp_path), threads=torch.get_num_threads())
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) >= 8:
            break
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended by itself"
    time.sleep(0.1)
    trainer(planet, tmp_path).run()
    same_state(tmp_path, whole)


def test_divergence_names_the_variables_and_the_last_good_state(planet, tmp_path):
    broken = trainer(planet, tmp_path)
    with pytest.raises(Interrupted):
        broken.run(should_stop=lambda: broken.update == 6)
    again = trainer(planet, tmp_path)
    learn = again._learn

    def poisoned(batch):
        if again.update == 8:
            batch.forcing[:] = 0
            again.step.change_std[0] = float("nan")
        return learn(batch)

    again._learn = poisoned
    with pytest.raises(Diverged, match=r"update 8 .*temperature\[0\].*state-00000006"):
        again.run()


def test_learning_rate_warms_up_and_decays():
    recipe = Recipe((Phase(80, 1, 4, 1.0), Phase(20, 2, 4, 0.5)), 1.0, 0.0, 10, (0.9, 0.95), 0.0, 1.0, 0.0, 0, 10, 10)
    rates = [recipe.learning_rate(update) for update in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9] == rates[10] == 1.0
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))
    assert rates[80] / rates[79] < 0.6 and rates[-1] < 1e-3


def test_the_time_that_is_left_counts_steps_of_samples_and_not_updates(whole):
    """12 updates of 3 samples over one step, then 6 of 2 samples over two: 36 and 24 steps of work."""
    done = {2: 6, 12: 36, 14: 44, 18: 60}
    for row in map(json.loads, (whole / "timing.jsonl").read_text().splitlines()):
        if row["update"] in done:
            share, seconds = (60 - done[row["update"]]) / done[row["update"]], row["seconds"]
            assert row["remaining_seconds"] <= seconds * (60 - done[row["update"]]) / (done[row["update"]] - 3) + 0.06
            assert (row["remaining_seconds"] == 0) == (share == 0)
            samples = 3 * min(row["update"], 12) + 2 * max(0, row["update"] - 12)
            rate = row["samples_per_second"]
            assert rate * seconds == pytest.approx(samples, abs=0.0006 * (rate + seconds))  # as rounded


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.data())
def test_sums_over_updates_are_those_of_their_phases(lengths, data):
    phases = tuple(Phase(n, k + 1, 2, 1.0, random_steps=k % 2 == 1) for k, n in enumerate(lengths))
    recipe = dataclasses.replace(RECIPE, phases=phases)
    first = data.draw(st.integers(0, recipe.updates))
    last = data.draw(st.integers(first, recipe.updates))
    expected = sum(recipe.phase(update).work for update in range(first, last))
    assert recipe.sum(lambda phase: phase.work, first, last) == pytest.approx(expected)
    assert Phase(1, 3, 4, 1.0).work == 12 and Phase(1, 3, 4, 1.0, random_steps=True).work == 8


def test_too_short_a_period_is_refused(planet, tmp_path):
    recipe = dataclasses.replace(RECIPE, phases=(Phase(2, 60, 2, 1.0),))
    with pytest.raises(ValueError, match="windows of 60 steps, the period has 48 times"):
        trainer(planet, tmp_path, recipe).run()


def test_a_penalty_is_part_of_the_loss_and_drives_the_residuals_down(planet, tmp_path):
    statistics = numpy_statistics(planet)
    samples = samples_of(planet)
    soft = ConservationOptions.of({"kind": "none", "penalty": 0.1})
    kept = conservation(soft, samples, statistics)
    assert kept.scheme is None
    torch.manual_seed(0)
    step = make_step(CONFIG.network, samples.layout, samples.grid, buffers_of(samples, statistics), None)
    loss = loss_of(samples, statistics, penalty=kept.penalty)
    recipe = dataclasses.replace(RECIPE, phases=(Phase(30, 1, 4, 1.0),), log_every=5)
    Trainer(step, loss, samples, recipe, tmp_path, "soft").run()
    rows = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1] < rows[0] / 2


def test_a_network_with_complex_weights_is_trained_too(planet, tmp_path):
    pytest.importorskip("torch_harmonics")
    config = dataclasses.replace(CONFIG, network={"kind": "torch_harmonics", "embed_dim": 8, "num_layers": 1})
    small = trainer(planet, tmp_path, config=config)
    assert any(p.is_complex() for p in small.step.parameters())
    small.run()
    assert small.update == RECIPE.updates
