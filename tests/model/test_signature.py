"""What a network is told of its channels is what the step puts there."""

import dataclasses
import json

import pytest
import torch
from small_planet import numpy_statistics
from small_training import CONFIG

from emulator.data.channels import Layout, More
from emulator.data.samples import Samples
from emulator.model.assemble import buffers, make_step, signature_of
from emulator.networks import registry
from emulator.networks.signature import Signature
from emulator.options import Options


@pytest.fixture
def told(monkeypatch):
    """A kind of network that keeps what it is told, and the list where it does."""
    monkeypatch.setattr(registry.NETWORKS, "_entries", registry.NETWORKS.all())
    kept = []

    @dataclasses.dataclass(frozen=True)
    class Nothing(Options):
        """None."""

    @registry.network("told", Nothing, signature=True)
    def build(options, inputs, outputs, grid, signature):
        kept.append(signature)
        return torch.nn.Conv2d(inputs, outputs, 1)

    return kept


def test_every_channel_holds_what_its_label_says(planet, told):
    data = planet.assign_attrs(time_step_seconds=21600.0)
    layout = Layout.of(data, {"prognostic": CONFIG.prognostic}, more=More(history=2, steps=(6, 12)))
    samples, statistics = Samples(data, layout), numpy_statistics(data)
    step = make_step({"kind": "told"}, layout, samples.grid, buffers(samples, statistics), None)
    (signature,) = told
    assert signature.times == 2 and signature.hours == 6
    batch = samples.batch([5], 1)
    x = step.inputs(batch.start(), batch.forcing[:, 0], batch.clock[:, 0], torch.tensor([2.0]))[0]
    assert len(x) == len(signature.inputs) and len(signature.outputs) == step.network.out_channels
    mean, std = step.state_scale.mean.flatten(), step.state_scale.std.flatten()
    labels = layout.prognostic.labels()
    for n, channel in enumerate(signature.inputs):
        if channel.role != "state":
            continue
        field = data[channel.name].isel(time=5 + channel.time)
        field = field if channel.level is None else field.isel(level=channel.level)
        where = labels.index(channel.label.partition("@")[0])
        expected = (torch.from_numpy(field.values.copy()) - mean[where]) / std[where]
        torch.testing.assert_close(x[n], expected.float(), rtol=1e-4, atol=1e-4)
    (north,) = (n for n, channel in enumerate(signature.inputs) if channel.name == "sin_latitude")
    assert x[north, :, 0].tolist() == pytest.approx(torch.from_numpy(samples.grid.latitude).deg2rad().sin().tolist())
    (length,) = signature.of("length")
    assert x[length].unique().tolist() == [1.0]
    assert [c.label for c in signature.outputs] == labels + layout.diagnostic.labels()


def test_levels_lie_where_the_store_says_and_survive_a_checkpoint(planet):
    layout = Layout.of(planet, {"prognostic": CONFIG.prognostic})
    again = Layout.from_json(json.loads(json.dumps(layout.to_json())))
    assert again == layout and signature_of(again) == signature_of(layout)
    found = [c.at for c in signature_of(layout).outputs if c.name == "temperature"]
    half = (planet["half_level_a"] + planet["half_level_b"] * 1e5).values / 100
    assert found == pytest.approx(((half[1:] + half[:-1]) / 2).tolist())
    older = {name: value for name, value in layout.to_json().items() if name not in ("at", "hours")}
    assert Layout.from_json(older) == layout  # of a checkpoint that does not say


def test_channels_of_which_only_the_number_is_known():
    found = Signature.plain(5, 3)
    assert found.of("state") == [0, 1, 2] and found.of("forcing") == [3, 4] and found.times == 1
    assert [c.role for c in Signature.plain(2, 3).outputs] == ["state", "state", "diagnostic"]
