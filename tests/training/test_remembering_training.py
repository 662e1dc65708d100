"""Batch norm and weights of channels, which remember besides weights: trainings end with the same bits after a stop."""

import dataclasses

import pytest
import torch
from small_planet import small_planet
from small_training import RECIPE, VALUES, same_state, trainer

from emulator.files.interruption import Interrupted
from emulator.model import checkpoint
from emulator.parallel.distributed import Replicated
from emulator.training.options import Phase, TrainOptions
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


def made(planet, directory, **recipe):
    return trainer(planet, directory, dataclasses.replace(RECIPE, phases=PHASES, **recipe), config=CONFIG)


def test_a_stopped_training_ends_with_the_same_bits(planet, whole, tmp_path):
    first = made(planet, tmp_path)
    with pytest.raises(Interrupted):
        first.run(should_stop=lambda: first.update == 5)
    made(planet, tmp_path).run()
    same_state(whole.directory, tmp_path)
    saved = checkpoint.load(checkpoint.numbered(tmp_path, "state")[-1])[0]
    assert (saved["loss/0/scale"] != 1).all()


def test_steps_that_are_computed_again_change_no_moment(planet, whole, tmp_path):
    run = made(planet, tmp_path, checkpoint_steps=True)
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
