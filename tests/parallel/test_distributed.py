"""Processes that train together: found from the launcher's variables, and the same training as one process's."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from together import forked

from emulator.model import checkpoint
from emulator.parallel.distributed import (
    device_of,
    from_first,
    highest,
    mean_over,
    part_of,
    process_group,
    share,
    whole,
)
from emulator.parallel.processes import Processes, first_host, processes_of

TESTS = Path(__file__).resolve().parents[1]

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "n1", "MASTER_PORT": "29400"}
STEP = {
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[003-004]",
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "0",
}


def test_the_world_is_found_from_torchrun_and_from_a_slurm_step():
    assert processes_of({}) == Processes(0, 1)
    assert processes_of(TORCHRUN) == Processes(3, 8, 1, "n1", 29400)
    found = processes_of(STEP)
    assert (found.rank, found.size, found.local_rank, found.address) == (5, 8, 1, "gpu003")
    assert found.port != processes_of(STEP | {"SLURM_JOB_ID": "78"}).port
    assert processes_of(STEP | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"}).address == "10.0.0.1"
    assert processes_of(STEP | TORCHRUN).rank == 3


def test_a_batch_script_without_srun_is_one_process():
    assert (
        processes_of({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "a"}).size
        == 1
    )


@pytest.mark.parametrize(
    "environment, message",
    [
        ({"RANK": "0"}, "no WORLD_SIZE"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "rank 2 of 2"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK, got 'x'"),
        (STEP | {"SLURM_STEP_NODELIST": "", "SLURM_JOB_NODELIST": ""}, "names of nodes"),
    ],
)
def test_an_impossible_world_is_refused(environment, message):
    with pytest.raises(ValueError, match=message):
        processes_of(environment)


@pytest.mark.parametrize(
    "nodes, first",
    [
        ("login", "login"),
        ("a,b", "a"),
        ("gpu[003-004,7],x", "gpu003"),
        ("n[7]", "n7"),
        ("r[1-2]-ib", "r1-ib"),
        ("rack[2-3]n[07,09]", "rack2n07"),
        ("a-1,a[2-3]", "a-1"),
    ],
)
def test_the_first_host_of_a_list_of_nodes(nodes, first):
    assert first_host(nodes) == first


@given(st.integers(1, 8), st.integers(1, 6))
def test_the_shares_of_a_batch_are_the_batch(size, each):
    batch = list(range(size * each))
    parts = [share(batch, Processes(rank, size)) for rank in range(size)]
    assert [index for part in parts for index in part] == batch and {len(part) for part in parts} == {each}


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="3 processes can share evenly, got 4"):
        share(range(4), Processes(0, 3))


def test_one_process_starts_no_group_and_changes_nothing():
    with process_group(Processes(), torch.device("cpu")):
        assert not torch.distributed.is_initialized()
        values = torch.randn(3)
        assert mean_over(values) is values and highest(values) is values and whole(values) is values
        assert part_of(values, torch.zeros(3)) is values and from_first(5) == 5
    assert device_of(Processes()).type in ("cpu", "cuda")


PROCESS = """
import dataclasses, json, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from emulator.parallel.distributed import device_of, from_first, highest, mean_over, process_group
from emulator.files.interruption import Interrupted
from emulator.parallel.processes import processes_of
from small_planet import small_planet
from small_training import CONFIG, RECIPE, STOCHASTIC, trainer
import os
world = processes_of(os.environ)
with process_group(world, torch.device("cpu"), 60):
    assert from_first(7 + world.rank) == 7
    assert float(highest(torch.tensor([float(world.rank)]))) == world.size - 1
    assert float(mean_over(torch.tensor([float(world.rank)]))) == (world.size - 1) / 2
    recipe = dataclasses.replace(RECIPE, **json.loads({recipe!r}))
    phases = [dataclasses.replace(p, **{{"batch_size": 4, **json.loads({phase!r})}}) for p in recipe.phases]
    phases = (dataclasses.replace(phases[0], updates=14, **json.loads({first!r})), *phases[1:])
    recipe = dataclasses.replace(recipe, phases=phases)
    options = dict(network={{"norm": "layer"}}, config={config}, processes=world, sharded={sharded})
    made = trainer(small_planet(), Path({directory!r}), recipe, **options)
    try:
        made.run(should_stop=lambda: world.rank == {who} and made.update == {stop})
    except Interrupted:
        sys.exit(75)
"""


def train(directory, size, sharded=False, stop=-1, who=0, config="CONFIG", **more) -> list[int]:
    """Train in `size` processes; the process `who` asks for a stop after update `stop`. Gives the exit codes.

    `more`: what is another in the `recipe`, in every `phase` and in the `first` of them.
    """
    changes = {name: json.dumps(more.pop(name, {})) for name in ("recipe", "phase", "first")}
    assert not more
    values = {"config": config, **changes}
    code = PROCESS.format(tests=str(TESTS), directory=str(directory), sharded=sharded, stop=stop, who=who, **values)
    return forked(exec, [(code, {})] * size, worlds(size), 280)


def launch(code, size) -> list[int]:
    """Run a program in `size` processes that find one another, each an interpreter of its own. Gives the exit codes."""
    launched = []
    for world in worlds(size):
        environment = {**os.environ, **world, "OMP_NUM_THREADS": "1"}
        launched.append(subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=TESTS.parent))
    return [process.wait(280) for process in launched]


def worlds(size) -> list[dict[str, str]]:
    """The launcher's variables of every process."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = opened.getsockname()[1]
    meeting = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [{"RANK": str(rank)} | meeting for rank in range(size)]


SLOW_TO_LET_GO = """
import os, threading, time
import torch
from emulator.parallel.distributed import process_group, space_of
from emulator.parallel.processes import processes_of
main = threading.get_ident()
class Slow:
    def __del__(self):
        time.sleep(0.03 * (threading.get_ident() != main))
world = processes_of(os.environ)
with process_group(world, torch.device("cpu"), 60):
    space = space_of(world, 2, torch.device("cpu"))
    for _ in range(40):
        exchanged = torch.zeros(3)
        exchanged.slow = Slow()
        torch.distributed.all_reduce(exchanged, group=space.group)
        del exchanged
"""


def test_threads_of_the_exchange_let_go_before_the_processes_end():
    """What a thread frees while the interpreter ends has aborted finished trainings on busy machines."""
    assert launch(SLOW_TO_LET_GO, 2) == [0, 0]


FULL_DISK = """
import os, sys
import torch
from emulator.parallel.distributed import process_group
from emulator.parallel.processes import processes_of
world = processes_of(os.environ)
try:
    with process_group(world, torch.device("cpu"), 60):
        if world.rank == 1:
            raise OSError("no space left")
        for _ in range(5):
            torch.distributed.all_reduce(torch.zeros(3))
except ConnectionError as error:
    assert str(error).startswith("Process 1 of 2 has lost another one"), error
    sys.exit(7)
"""


def test_an_error_of_one_process_ends_the_others_with_a_sentence(capfd):
    assert launch(FULL_DISK, 2) == [7, 1]
    assert "OSError: no space left" in capfd.readouterr().err


def state(directory):
    return checkpoint.load(checkpoint.numbered(directory, "state")[-1])


# Layer norm: before an instance norm a bias has no effect, and Adam makes steps of full size from its gradient's rounding.
def assert_near(ours, theirs, tolerance=1e-6):
    ours, theirs = state(ours)[0], state(theirs)[0]
    assert ours.keys() == theirs.keys() and any(name.startswith("average/") for name in ours)
    for name, tensor in theirs.items():
        if name.startswith(("step/network", "average/")):
            torch.testing.assert_close(ours[name], tensor, rtol=tolerance, atol=tolerance, msg=name)
    return ours, theirs


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    directory = tmp_path_factory.mktemp("alone")
    assert train(directory, 1) == [0]
    return directory


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    directory = tmp_path_factory.mktemp("together")
    assert train(directory, 2) == [0, 0]
    return directory


def test_two_processes_that_share_one_network_give_the_weights_of_one(alone, tmp_path):
    assert train(tmp_path, 2, sharded=True) == [0, 0]
    assert_near(tmp_path, alone)


def test_two_processes_give_the_weights_of_one(alone, together):
    assert state(together)[1]["update"] == 20
    assert_near(together, alone)
    rows = [[json.loads(line) for line in (d / "metrics.jsonl").read_text().splitlines()] for d in (together, alone)]
    for ours, theirs in zip(*rows, strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-4)


def test_a_stop_that_one_process_hears_stops_all_and_the_rest_gives_the_same_bits(together, tmp_path):
    assert train(tmp_path, 2, stop=7, who=1) == [75, 75]
    assert state(tmp_path)[1]["update"] == 7
    assert train(tmp_path, 2) == [0, 0]
    ours, theirs = state(tmp_path)[0], state(together)[0]
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0, msg=name)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (together / "metrics.jsonl").read_bytes()


def test_processes_save_by_time_together_and_end_with_the_same_bits(together, tmp_path):
    """Each process has a clock of its own; if each went by it, one would wait for the others without end."""
    assert train(tmp_path, 2, stop=3, recipe={"save_seconds": 0.05}) == [75, 75]
    assert train(tmp_path, 2, recipe={"save_seconds": 0.05}) == [0, 0]
    ours, theirs = state(tmp_path)[0], state(together)[0]
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0, msg=name)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (together / "metrics.jsonl").read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_more_processes_add_up_in_the_same_order_after_a_stop(tmp_path):
    """With three the order of a sum decides its bits, and DDP chooses it by what it sees first: the second phase, here."""
    three, stopped, straight = {"phase": {"batch_size": 3}}, tmp_path / "stopped", tmp_path / "straight"
    assert train(straight, 3, **three) == [0] * 3
    assert train(stopped, 3, stop=16, **three) == [75] * 3
    assert train(stopped, 3, **three) == [0] * 3
    for name, tensor in state(straight)[0].items():
        torch.testing.assert_close(state(stopped)[0][name], tensor, rtol=0, atol=0, msg=name)


TURNS = [((2, True), (1, False)), pytest.param((1, False), (2, True), marks=pytest.mark.slow)]


@pytest.mark.parametrize("first, then", TURNS, ids=["2 to 1", "1 to 2"])
def test_another_number_of_processes_goes_on_with_the_same_training(alone, tmp_path, first, then):
    assert set(train(tmp_path, *first, stop=7)) == {75}
    assert set(train(tmp_path, *then)) == {0}
    assert_near(tmp_path, alone)


def test_parts_of_a_batch_add_up_to_it(alone, tmp_path):
    assert train(tmp_path, 1, phase={"accumulate": 2}) == [0]
    assert_near(tmp_path, alone)


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp"])
def test_parts_of_a_batch_add_up_to_it_over_two_processes(alone, tmp_path, sharded):
    assert train(tmp_path, 2, sharded, phase={"accumulate": 2}) == [0, 0]
    assert_near(tmp_path, alone)
