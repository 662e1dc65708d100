"""A training update and a validation as if on a GPU, by tensors without values: nothing is left on the CPU, nothing waits.

Every kind of network is run through an update: the window, its loss, the gradients, clipping, AdamW and the average. What
cannot be faked: the check of the loss and the last sums of a validation, at which the host does wait and which
get a value here; saving and logging, which read values; several processes; streams; and the time that anything takes.
"""

import dataclasses

import numpy as np
import pytest
import torch
from fake_gpu import CUDA, fake_gpu, on_host
from small_planet import numpy_statistics, small_planet
from small_training import RECIPE, STOCHASTIC, VALUES, buffers_of, loss_of, trainer, weighted
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorDeviceMismatchError

from emulator.conservation.penalties import Penalty
from emulator.data.channels import Layout, More
from emulator.data.samples import Samples
from emulator.model.assemble import make_step
from emulator.model.conserving import ConservationOptions, conservation
from emulator.networks.registry import build, kinds
from emulator.parallel.processes import Processes
from emulator.planet.grid import Grid
from emulator.training import trainer as training
from emulator.training import validation as validating
from emulator.training.options import TrainOptions
from emulator.training.options.phases import Phase
from emulator.training.options.sections import StartOptions
from emulator.training.trainer import Trainer
from emulator.training.validation import Validation
from emulator.training.window import Window, WindowOptions

SFNO = {"kind": "sfno", "embed_dim": 8, "blocks": 1}
NETWORKS = {
    "sfno": SFNO | {"stencil": 3, "position": "harmonics", "checkpointing": True, "blocks": 2},
    "graph": {"kind": "graph", "refinement": 1, "width": 8, "rounds": 2},
    "hierarchical": {"kind": "hierarchical", "width": 8, "rounds": 1, "levels": 2, "spacing": 1.0},
    "unet": {"kind": "unet", "width": 4, "depth": 1},
    "samudra": {"kind": "samudra", "widths": [4], "dilations": [2], "checkpointing": True},
    "attention_unet": {"kind": "attention_unet", "width": 4, "depth": 1},
    "mgno": {"kind": "mgno", "width": 4, "layers": 1, "depth": 1},
    "fno": {"kind": "fno", "width": 4, "blocks": 1, "modes": [2, 2]},
    "fuxi": {"kind": "fuxi", "width": 4, "blocks": 2, "heads": 2, "window": 2, "patch": 1, "groups": 2},
    "wxformer": {
        "kind": "wxformer",
        "widths": [8],
        "depths": [1],
        "strides": [2],
        "stencils": [2, 4],
        "far": [2],
        "near": 2,
        "head_width": 4,
        "spectral_norm": True,
    },
    "aurora": {
        "kind": "aurora",
        "embed_dim": 8,
        "depths": (1, 2),
        "up_depths": (1, 1),
        "heads": (2, 2),
        "perceiver_heads": 2,
        "drop_path": 0.1,
    },
    "column": {"kind": "column", "width": 8},
    "a recurrence": {"kind": "column", "design": "recurrence", "width": 8, "layers": 1},
    "vector_cnn": {"kind": "vector_cnn", "width": 4, "vectors": 2, "blocks": 2, "scale_factor": 1.5, "knots": 3},
    "torch_harmonics": {"kind": "torch_harmonics", "embed_dim": 8, "num_layers": 1},
    "external": {"kind": "external", "factory": "other_network:columns", "options": {"width": 8}},
    "sfno in half precision": SFNO | {"mlp_precision": "bfloat16", "filter_precision": "bfloat16", "filter": "real"},
    "graph in half precision": {"kind": "graph", "refinement": 1, "width": 8, "rounds": 2, "precision": "bfloat16"},
}
NO_SCHEME = {"conservation": {"kind": "none"}}


@pytest.fixture(scope="module")
def planet():
    return small_planet(times=16, nlat=8, levels=3)


@pytest.fixture(autouse=True)
def answers(monkeypatch):
    """Values where the host waits for them by intent."""
    monkeypatch.setattr(training, "_usable", lambda norm, loss, limit: norm.device == loss.device == CUDA)
    monkeypatch.setattr(validating, "mean_over", lambda sums: np.ones(3) if sums.device == CUDA else None)


def moved(made, recipe=RECIPE, penalty=None) -> Trainer:
    """A trainer as on a GPU, within the mode."""
    loss = dataclasses.replace(made._run_window._module.loss, penalty=penalty).to(CUDA)
    return Trainer(made.step.to(CUDA), loss, made.samples, recipe, made.directory, "same")


def updated(made, copies, batches, recipe=RECIPE, penalty=None) -> Trainer:
    """After an update for each batch; in all but the first nothing may be waited for, not even for constants."""
    there = moved(made, recipe, penalty)
    for there.update, batch in enumerate(batches):
        copies.up.clear()
        row = there._learn(batch.to(CUDA))
        assert {value.device for value in row.values()} == {CUDA}
    assert len(batches) == 1 or not copies.up
    assert not copies.down
    return there


def test_every_kind_of_network_is_here():
    assert {options["kind"] for options in NETWORKS.values()} == set(kinds())


@pytest.mark.parametrize("network", NETWORKS)
def test_an_update_of_every_network(planet, tmp_path, network):
    if network == "torch_harmonics":
        pytest.importorskip("torch_harmonics")
    config = TrainOptions.of(VALUES | NO_SCHEME | {"network": NETWORKS[network]})
    made = trainer(planet, tmp_path, config=config)
    batches = [made._order.batch(0)]
    with fake_gpu() as copies:
        there = updated(made, copies, batches)
        parameters = list(there.step.parameters())
        assert {(p.device, p.grad.device) for p in parameters} == {(CUDA, CUDA)}
        moments = [there.tuned.optimizer.state[p][name] for p in parameters for name in ("exp_avg", "exp_avg_sq")]
        assert {moment.device for moment in moments} == {CUDA}
        assert {value.device for value in there.average.values()} == {CUDA}


def test_updates_of_adapters(planet, tmp_path):
    lora = {"rank": 2, "layers": ["blocks.*"], "besides": ["decoder.*"]}
    start = StartOptions.of({"checkpoint": "x", "statistics": "old", "l2_start": 1.0, "lora": lora})
    recipe = dataclasses.replace(RECIPE, start=start)
    config = TrainOptions.of(VALUES | NO_SCHEME | {"network": SFNO})
    made = trainer(planet, tmp_path, config=config)
    batches = [made._order.batch(n) for n in range(2)]
    with fake_gpu() as copies:
        there = updated(made, copies, batches, recipe)
        assert {factor.device for factor in there.tuned.saved().values()} == {CUDA}


@pytest.mark.parametrize("network", ["unet", "sfno"])
def test_updates_in_half_precision_close_budgets_in_full(planet, tmp_path, network):
    """Under autocast, which corrections leave: they refuse fields of bfloat16."""
    recipe = dataclasses.replace(RECIPE, precision="bfloat16")
    made = trainer(planet, tmp_path, recipe, config=TrainOptions.of(VALUES | {"network": NETWORKS[network]}))
    types = set()
    for part in made.step.network.modules():
        part.register_forward_hook(lambda module, inputs, output: types.add(output.dtype))
    batches = [made._order.batch(0)]
    with fake_gpu() as copies:
        there = updated(made, copies, batches, recipe)
        assert {p.grad.dtype for p in there.step.parameters()} == {torch.float32}
        assert torch.bfloat16 in types


@pytest.mark.parametrize("network", ["sfno", "graph in half precision", "unet", "fuxi", "vector_cnn"])
def test_a_network_is_one_graph_to_torch_compile(network):
    """As for a GPU, whose products are torch's own; a break would have Python between the parts, at every layer."""
    options = NETWORKS[network] | ({"checkpointing": False, "blocks": 1} if network == "sfno" else {})
    made = build(options, 4, 3, Grid.gaussian(8))
    torch._dynamo.reset()
    with fake_gpu(records=False):
        compiled = torch.compile(made.to(CUDA), backend="eager", fullgraph=True)
        assert compiled(torch.zeros(1, 4, 8, 16, device=CUDA)).device == CUDA


@pytest.mark.parametrize("kind", ["sequential", "projection"])
def test_updates_with_budgets_over_several_steps(planet, tmp_path, kind):
    recipe = dataclasses.replace(RECIPE, phases=(Phase(4, 2, 2, 1.0),))
    config = TrainOptions.of(VALUES | {"conservation": {"kind": kind}})
    made = trainer(planet, tmp_path, recipe, config=config)
    budgets = made.step.scheme.budgets
    penalty = Penalty(budgets, dict.fromkeys(budgets, 1.0))
    batches = [made._order.batch(n) for n in range(2)]
    with fake_gpu() as copies:
        updated(made, copies, batches, recipe, penalty)


def test_updates_of_members_with_noise_that_go_on_from_their_own_states(planet, tmp_path):
    recipe = dataclasses.replace(RECIPE, members=2, phases=(Phase(12, 2, 2, 1.0, replay=0.9),))
    made = trainer(planet, tmp_path, recipe, config=dataclasses.replace(STOCHASTIC, **NO_SCHEME))
    numbers = [n for n in range(12) if made._order.rows(n).onward.any()][:1]
    batches = [made._order.batch(n) for n in (0, *numbers)]
    with fake_gpu() as copies:
        there = updated(made, copies, batches, recipe)
        assert there.carried.device == CUDA


def test_a_validation(planet, tmp_path):
    made = trainer(planet, tmp_path)
    made.samples.batch = on_host(made.samples.batch)
    error = weighted(made.samples, numpy_statistics(planet)).error()
    with fake_gpu() as copies:
        step = made.step.to(CUDA)
        row = Validation(made.samples, error.to(CUDA), 1, 4, 2, 2)(step, Processes(), CUDA)
        assert row["one_step"] == 0.25 and not copies.down


def test_a_window_of_longer_steps_from_two_input_times(planet):
    data = planet.assign_attrs(time_step_seconds=21600.0)
    layout = Layout.of(data, {"prognostic": VALUES["prognostic"]}, more=More(history=2, steps=(6, 12)))
    samples, statistics = Samples(data, layout), numpy_statistics(planet)
    scheme = conservation(ConservationOptions.of({}), samples, statistics).scheme
    step = make_step(NETWORKS["unet"], layout, samples.grid, buffers_of(samples, statistics), scheme)
    scheme.lasting(2.0)  # made once for a length, on the host
    window, batch = Window(step, loss_of(samples, statistics)), samples.batch([4, 5], 2, 2)
    with fake_gpu() as copies:
        window.to(CUDA).loss.to(CUDA)
        for _ in range(2):
            copies.up.clear()
            window(batch.to(CUDA), WindowOptions(teacher_forced=(False, True)))[0].backward()
        assert not copies.up and not copies.down
        assert {p.grad.device for p in step.parameters()} == {CUDA}


def test_what_stays_on_the_cpu_or_waits_is_found(planet, tmp_path):
    """A tensor of a network that is no buffer, a learned value that the host asks for, and a copy of pageable memory."""
    made = trainer(planet, tmp_path, config=TrainOptions.of(VALUES | NO_SCHEME))
    made.step.network.register_forward_hook(lambda module, inputs, output: output + forgotten)
    forgotten = torch.ones(1, 1, 8, 16)
    batch = made._order.batch(0)
    with fake_gpu() as copies:
        there = moved(made)
        with pytest.raises(FakeTensorDeviceMismatchError, match="cpu and cuda:0|cuda:0 and cpu"):
            there._learn(batch.to(CUDA))
        for ask in (float, bool, lambda x: x.tolist(), lambda x: x.item() > 0):
            with pytest.raises(DataDependentOutputException):
                ask(torch.ones((), device=CUDA))
        copies.up.clear()
        torch.ones(2).to(CUDA, non_blocking=True)
        assert not copies.up
        torch.ones(2).to(CUDA).cpu()
        assert copies.up == copies.down == [(2,)]


def test_the_gradients_are_those_of_torchs_engine(planet, tmp_path):
    """What stands in for it walks the same graph: on the CPU both give the same, also through a part computed again."""
    import fake_gpu as module

    made = trainer(planet, tmp_path, config=TrainOptions.of(VALUES | NO_SCHEME), network={"checkpointing": True})
    batch, found = made._order.batch(12), []
    for backward in (torch.autograd.backward, module._backward):
        made.step.zero_grad()
        backward(made._run_window(batch, WindowOptions())[0])
        found.append([p.grad.clone() for p in made.step.parameters()])
    for ours, own in zip(*found, strict=True):
        torch.testing.assert_close(ours, own, rtol=1e-4, atol=1e-6)
