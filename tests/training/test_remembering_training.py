"""Batch norm and weights of channels, which remember besides weights: trainings end with the same bits after a stop."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from small_planet import small_planet
from small_training import RECIPE, VALUES, same_state, trainer
from together import together

from emulator.files.interruption import Interrupted
from emulator.model import checkpoint
from emulator.parallel.distributed import Replicated
from emulator.parallel.processes import Processes
from emulator.training.options import TrainOptions
from emulator.training.options.phases import Phase
from emulator.training.saved import averaged

SAMUDRA = {"kind": "samudra", "widths": [6], "dilations": [2], "checkpointing": True}
CONFIG = TrainOptions.of(VALUES | {"network": SAMUDRA, "loss": {"kind": "dynamic", "limit": 5.0}})


PHASES = (Phase(updates=4, batch_size=2), Phase(updates=2, batch_size=2, rollout_steps=2))
NAME = "network.middle.norms.0.running_var"


@pytest.fixture(scope="module")
def planet():
    return small_planet(times=16, nlat=8, levels=3)


@pytest.fixture(scope="module")
def whole(planet, tmp_path_factory):
    run = made(planet, tmp_path_factory.mktemp("whole"))
    run.run()
    return run


def made(planet, directory, config=CONFIG, recompute=False, **more):
    recipe = dataclasses.replace(RECIPE, phases=PHASES, checkpoint_steps=recompute)
    return trainer(planet, directory, recipe, config=config, **more)


def test_a_stopped_training_ends_with_the_same_bits(planet, whole, tmp_path):
    first = made(planet, tmp_path)
    with pytest.raises(Interrupted):
        first.run(should_stop=lambda: first.update == 5)
    made(planet, tmp_path).run()
    same_state(whole.directory, tmp_path)
    saved = checkpoint.load(checkpoint.numbered(tmp_path, "state")[-1])[0]
    assert (saved["loss/0/scale"] != 1).all()


def test_steps_that_are_computed_again_change_no_moment(planet, whole, tmp_path):
    run = made(planet, tmp_path, recompute=True)
    run.run()
    ours, theirs = run.step.state_dict(), whole.step.state_dict()
    assert NAME in ours and all(torch.equal(ours[name], theirs[name]) for name in ours if "running" in name)


def test_averaged_weights_come_with_averaged_moments(whole):
    before = whole.step.state_dict()[NAME].clone()
    with averaged(whole.step, whole.average):
        assert torch.equal(whole.step.state_dict()[NAME], whole.average[NAME])
        assert not torch.equal(whole.average[NAME], before)
    assert torch.equal(whole.step.state_dict()[NAME], before)
    assert torch.equal(whole.tensors()[NAME], whole.average[NAME])


def test_a_look_at_the_first_update_is_forgotten(planet, tmp_path):
    """As where processes hold copies, and the first update is run once for nothing."""
    run = made(planet, tmp_path)
    run._run_window.__class__ = Replicated
    before = {name: tensor.clone() for name, tensor in run.step.state_dict().items()}
    run._settle()
    run._loss.advance()
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.step.state_dict().items())
    assert torch.equal(run._loss.error.scale, torch.ones_like(run._loss.error.scale))


NETWORKS = {
    "samudra": SAMUDRA,
    "attention_unet": {"kind": "attention_unet", "width": 4, "depth": 1},
    "mgno": {"kind": "mgno", "width": 4, "layers": 2, "depth": 1},
    "fno": {"kind": "fno", "width": 4, "blocks": 2, "modes": [2, 2]},
}


def in_process(space, directory, config, sharded, stop):
    """Train in one of several processes; whether it was stopped."""
    processes = Processes(space.rank, space.size)
    planet = small_planet(times=16, nlat=8, levels=3)
    run = made(planet, Path(directory), TrainOptions.of(config), processes=processes, sharded=sharded)
    try:
        run.run(should_stop=lambda: run.update == stop)
    except Interrupted:
        return True
    return False


def losses(directory):
    return [json.loads(line)["loss"] for line in (directory / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp"])
@pytest.mark.parametrize("network", NETWORKS)
def test_two_processes_train_as_one_and_end_with_the_same_bits_after_a_stop(planet, tmp_path, network, sharded):
    """Biases before a batch norm have no effect, so that what they make of rounding may differ: losses are compared."""
    config = VALUES | {"network": NETWORKS[network], "loss": {"kind": "dynamic"}}
    alone, both, parts = (tmp_path / name for name in ("alone", "both", "parts"))
    made(planet, alone, TrainOptions.of(config)).run()
    assert together(2, in_process, str(both), config, sharded, -1) == [False, False]
    assert together(2, in_process, str(parts), config, sharded, 3) == [True, True]
    assert together(2, in_process, str(parts), config, sharded, -1) == [False, False]
    same_state(both, parts)
    assert losses(both) == pytest.approx(losses(alone), rel=1e-4)
