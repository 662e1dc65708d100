"""Frozen parameters and adapters over processes: copies (DDP) and parts (FSDP) give the weights of one process."""

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from small_planet import small_planet
from small_training import RECIPE, trainer
from together import together

from emulator.files.interruption import Interrupted
from emulator.model import checkpoint
from emulator.parallel.processes import Processes
from emulator.training.options.sections import StartOptions

START = {
    "frozen": {"freeze": ["encoder.*", "*bias"], "lr_by": {"decoder.*": 0.5}, "l2_start": 5.0},
    "adapted": {"lora": {"rank": 2, "layers": ["blocks.*"], "besides": ["decoder.*"]}, "l2_start": 5.0},
}


def train(directory, how: str, sharded=False, stop: int = -1) -> bool:
    """In this process and others of its group; whether it came to its end."""
    torch.set_num_threads(1)
    processes = Processes(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Processes()
    phases = tuple(dataclasses.replace(p, batch_size=2) for p in RECIPE.phases)
    start = StartOptions.of({"checkpoint": "x", "statistics": "old"} | START[how])
    recipe = dataclasses.replace(RECIPE, phases=phases, start=start)
    made = trainer(small_planet(), Path(directory), recipe, processes=processes, sharded=sharded)
    try:
        made.run(should_stop=lambda: made.update == stop)
    except Interrupted:
        return False
    return True


def in_processes(space, *arguments) -> bool:
    return train(*arguments)


def state(directory):
    return checkpoint.load(checkpoint.numbered(Path(directory), "state")[-1])[0]


@pytest.mark.slow
@pytest.mark.parametrize("how", START)
def test_copies_and_parts_end_with_the_weights_of_one_process(tmp_path, how):
    train(tmp_path / "one", how)
    expected = state(tmp_path / "one")
    for sharded in (False, True):
        directory = str(tmp_path / f"two-{sharded}")
        together(2, in_processes, directory, how, sharded)
        found = state(directory)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            if not name.startswith("optimizer/"):
                torch.testing.assert_close(found[name], tensor, rtol=2e-5, atol=2e-6, msg=f"{name}, sharded {sharded}")


@pytest.mark.slow
def test_parts_that_were_stopped_end_with_the_same_bits(tmp_path):
    whole, stopped = str(tmp_path / "whole"), str(tmp_path / "stopped")
    assert together(2, in_processes, whole, "adapted", True) == [True, True]
    assert together(2, in_processes, stopped, "adapted", True, 7) == [False, False]
    assert together(2, in_processes, stopped, "adapted", True) == [True, True]
    one, other = state(whole), state(stopped)
    assert one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())
