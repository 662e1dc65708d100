"""Members that are computed one after the other, and again in the backward pass: the same gradient for less memory."""

import dataclasses

import pytest
import torch
from small_training import STOCHASTIC, loss_of, numpy_statistics, samples_of, trainer

from emulator.model.in_parts import in_parts
from emulator.networks.registry import build
from emulator.networks.unet import UNet, UNetOptions
from emulator.parallel.rates import most_held
from emulator.planet.grid import Grid
from emulator.training.options import TrainOptions
from emulator.training.run import rows_at_once
from emulator.training.window import Window, WindowOptions

WIDE = {"kind": "sfno", "embed_dim": 48, "blocks": 3, "noise": {"channels": 2}, "norm": "layer"}


def window_and_batch(planet, tmp_path, members, network=WIDE):
    loss = STOCHASTIC.loss if members == 1 else dataclasses.replace(STOCHASTIC.loss, members=members)
    config = dataclasses.replace(STOCHASTIC, network=network, loss=loss)
    made = trainer(planet, tmp_path, config=config)
    for name, parameter in made.step.named_parameters():
        parameter.grad = torch.zeros_like(parameter)
        if "noise" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    batch = made.samples.batch([3], 1)
    noise = torch.randn(members, 1, made.step.noise.count, *made.samples.grid.shape)
    return (
        made.step,
        Window(made.step, loss_of(samples_of(planet, config), numpy_statistics(planet), config)),
        batch,
        noise,
    )


@pytest.mark.parametrize("rows", [1, 3])
def test_gradients_are_those_of_all_at_once(planet, tmp_path, rows):
    found = []
    for at_once in (0, rows):
        torch.manual_seed(0)
        step, window, batch, noise = window_and_batch(planet, tmp_path, 8)
        step.rows = at_once
        total, _ = window(batch.for_members(8, noise), WindowOptions())
        total.backward()
        found.append([total.detach(), *(p.grad for p in step.parameters())])
    assert any(tensor.abs().max() > 1e-3 for tensor in found[0][1:])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_eight_members_take_less_than_five_times_the_memory_of_one(planet, tmp_path):
    held = {}
    for members, rows in ((2, 0), (8, 0), (8, 1)):
        torch.manual_seed(0)
        step, window, batch, noise = window_and_batch(planet, tmp_path, members)
        step.rows = rows
        batch = batch.for_members(members, noise)
        held[members, rows] = most_held(lambda: window(batch, WindowOptions())[0].backward())  # noqa: B023
    one = held[2, 0] / 2
    assert held[8, 0] > 6 * one and held[8, 1] < 5 * one, held


def test_parts_have_their_own_arguments_and_without_gradients_all_run_at_once():
    calls = []

    class Recorded(torch.nn.Module):
        def forward(self, x, noise):
            calls.append(len(x))
            return x * noise

    x, noise = torch.randn(5, 2, requires_grad=True), torch.randn(5, 2)
    assert torch.equal(in_parts(Recorded(), 2, x, noise=noise), x * noise) and calls == [2, 2, 1]
    with torch.no_grad():
        in_parts(Recorded(), 2, x, noise=noise)
    assert calls[-1] == 5


def test_networks_whose_rows_meet_are_refused():
    paths = {"store": "a", "statistics": "b", "output": "c"}
    options = TrainOptions.of(paths | {"checkpoint_rows": 1})
    assert rows_at_once(options, UNet(3, 2, 8, 16, options=UNetOptions(width=4, depth=1))) == 1
    batch_norms = build(
        {"kind": "samudra", "widths": [4, 4], "dilations": [1, 2], "norm": "batch"}, 3, 2, Grid.gaussian(12)
    )
    with pytest.raises(ValueError, match=r"network with moments of whole batches \(.*running_mean\), got 1"):
        rows_at_once(options, batch_norms)
