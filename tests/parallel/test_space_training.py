"""Training with states that several processes hold together gives the weights of one process."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from pointwise_network import register as in_every_process  # noqa: F401
from pointwise_network import registered  # noqa: F401
from small_planet import small_planet
from small_training import RECIPE, VALUES, samples_of, trainer
from together import together

from emulator.files.interruption import Interrupted
from emulator.model import checkpoint
from emulator.parallel.distributed import space_of
from emulator.parallel.processes import Processes
from emulator.training.options import TrainOptions
from emulator.training.validation import Validation

POINTWISE = {"kind": "pointwise", "width": 8}
NOISY = POINTWISE | {"noise": {"channels": 1}}
CPU = torch.device("cpu")

CONFIGS = {
    "mse": VALUES | {"network": POINTWISE},
    "penalty": VALUES
    | {"network": POINTWISE, "loss": {"kind": "huber"}, "conservation": {"kind": "none", "penalty": 0.1}},
    "projection": VALUES | {"network": POINTWISE, "conservation": {"kind": "projection"}},
    "crps": VALUES | {"network": NOISY, "loss": {"kind": "crps", "members": 2}},
    "spectral": VALUES
    | {"network": {"kind": "sfno", "embed_dim": 8, "blocks": 1, "norm": "layer"}, "loss": {"kind": "spectral"}},
    "energy": VALUES | {"network": NOISY, "loss": {"kind": "energy", "members": 2}},
}


def train(directory, config: str, together_: int = 1, sharded=False, stop: int = -1, replay=0.0) -> bool:
    """Train in this process and others of its group, `together_` of which hold a state; whether it came to its end."""
    torch.set_num_threads(1)
    processes = Processes(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Processes()
    space = space_of(processes, together_, CPU)
    options = TrainOptions.of(CONFIGS[config])
    phases = tuple(dataclasses.replace(p, batch_size=2, replay=replay) for p in RECIPE.phases)
    recipe = dataclasses.replace(RECIPE, phases=phases, members=options.members)
    planet = small_planet()
    error = weighted_loss(planet, options, space)
    validation = Validation(
        samples_of(planet, options, space), error, 6, 4, 2, 2, 0, options.members, options.members == 1
    )
    more = {"config": options, "processes": processes, "sharded": sharded, "space": space, "validation": validation}
    made = trainer(planet, Path(directory), recipe, **more)
    try:
        made.run(should_stop=lambda: made.update == stop)
    except Interrupted:
        return False
    return True


def weighted_loss(planet, options, space):
    from small_planet import numpy_statistics
    from small_training import weighted

    return weighted(samples_of(planet, options, space), numpy_statistics(planet), options).loss(options.loss)


def in_processes(space, *arguments) -> bool:
    return train(*arguments)


def state(directory):
    return checkpoint.load(checkpoint.numbered(Path(directory), "state")[-1])


def rows(directory, name):
    return [json.loads(line) for line in (Path(directory) / name).read_text().splitlines()]


def assert_near(ours, theirs, tolerance=1e-6):
    mine, other = state(ours)[0], state(theirs)[0]
    assert mine.keys() == other.keys()
    for name, tensor in other.items():
        assert mine[name].shape == tensor.shape, name
        if name.startswith(("step/", "average/")):
            torch.testing.assert_close(mine[name], tensor, rtol=tolerance, atol=tolerance, msg=name)
    for name in ("metrics.jsonl", "validation.jsonl"):
        for mine, other in zip(rows(ours, name), rows(theirs, name), strict=True):
            assert mine.keys() == other.keys()
            for key, value in other.items():
                small = key.startswith(("residual", "saturation"))
                assert mine[key] == pytest.approx(value, rel=1e-4, abs=1e-8 if small else 0), (name, key)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    made = {}

    def of(config):
        if config not in made:
            made[config] = tmp_path_factory.mktemp(config)
            assert train(made[config], config)
        return made[config]

    return of


CASES = [
    ("mse", 2, 2, False),
    pytest.param("mse", 4, 2, False, marks=pytest.mark.slow),
    pytest.param("mse", 4, 2, True, marks=pytest.mark.slow),
    pytest.param("mse", 4, 4, False, marks=pytest.mark.slow),
    pytest.param("mse", 5, 5, False, marks=pytest.mark.slow),  # 12 rows: 3, 3, 2, 2 and 2
    pytest.param("penalty", 2, 2, False, marks=pytest.mark.slow),
    pytest.param("projection", 2, 2, False, marks=pytest.mark.slow),
    pytest.param("spectral", 4, 2, False, marks=pytest.mark.slow),
    pytest.param("crps", 2, 2, False, marks=pytest.mark.slow),
    pytest.param("energy", 4, 2, False, marks=pytest.mark.slow),
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("config, size, of_a_state, sharded", CASES)
def test_processes_that_hold_a_state_together_give_the_weights_of_one(
    alone, tmp_path, config, size, of_a_state, sharded
):
    assert all(together(size, in_processes, str(tmp_path), config, of_a_state, sharded))
    assert_near(tmp_path, alone(config))


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_stopped_training_goes_on_with_the_same_bits_and_with_another_number(tmp_path):
    """Samples that go on from the network's own states (`replay`) are part of what is saved."""
    how = "mse", 2, False
    straight, stopped, other = (str(tmp_path / name) for name in ("straight", "stopped", "other"))
    assert together(2, in_processes, straight, *how, -1, 0.5, timeout=600) == [True] * 2
    for folder in (stopped, other):
        assert together(2, in_processes, folder, *how, 7, 0.5, timeout=600) == [False] * 2
    assert together(2, in_processes, stopped, *how, -1, 0.5, timeout=600) == [True] * 2
    theirs = state(straight)[0]
    for name, tensor in state(stopped)[0].items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=0, msg=name)
    assert (tmp_path / "stopped/metrics.jsonl").read_bytes() == (tmp_path / "straight/metrics.jsonl").read_bytes()
    assert train(other, "mse", replay=0.5)
    assert_near(other, straight)
