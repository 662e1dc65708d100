"""One network for steps of 6, 12 and 24 hours: told the length as a channel, rolled out by each and by all in turn."""

import dataclasses

import numpy as np
import pytest
import torch
from small_planet import numpy_statistics
from small_store import FREE
from small_training import CONFIG, RECIPE, weighted

from emulator.data.channels import Layout, More
from emulator.data.samples import Samples
from emulator.model.assemble import buffers, make_step, signature_of
from emulator.model.conserving import ConservationOptions, conservation
from emulator.model.rollout import rollout
from emulator.training.options.phases import Phase
from emulator.training.trainer import Trainer
from emulator.training.window import StepLoss

KINDS = {
    "unet": {"kind": "unet", "width": 8, "depth": 1},
    "graph": {"kind": "graph", "refinement": 1, "width": 16, "rounds": 2},
    "sfno": {"kind": "sfno", "embed_dim": 16, "blocks": 2, "stencil": 3},
    "conditioned": {"kind": "sfno", "embed_dim": 16, "blocks": 2, "stencil": 3, "condition": ["time_step"]},
}
HOURS = {1: 6, 2: 12, 4: 24}


def made(planet, network, scheme=FREE):
    data = planet.assign_attrs(time_step_seconds=21600.0)
    layout = Layout.of(data, {"prognostic": CONFIG.prognostic}, more=More(steps=(6, 12, 24)))
    samples, statistics = Samples(data, layout), numpy_statistics(planet)
    closing = conservation(ConservationOptions.of(scheme), samples, statistics).scheme
    torch.manual_seed(0)
    step = make_step(network, layout, samples.grid, buffers(samples, statistics, kind="none"), closing)
    error = weighted(samples, statistics)
    longer = {n: error.over_length(step, n).loss(CONFIG.loss) for n in layout.lengths}
    return step, samples, StepLoss(error.loss(CONFIG.loss), longer=longer)


def inputs_of(samples, start, lengths):
    """Of steps of some lengths, one after the other, from times that the samples have."""
    for length in lengths:
        yield next(samples.batch(start, 1, length).inputs())
        start = start + length


def reached(step, samples, start, lengths):
    """The state after steps of some lengths."""
    *_, last = rollout(step, samples.batch(start, 1).start(), inputs_of(samples, start, lengths))
    return last.state


@pytest.mark.parametrize("kind", KINDS)
def test_every_network_is_told_the_length_and_steps_by_each(planet, kind):
    step, samples, _ = made(planet, KINDS[kind], {})
    with torch.no_grad():
        for name, parameter in step.network.named_parameters():  # a decoder of zeros tells nothing apart
            if parameter.dim() > 1 and not parameter.any():
                parameter.normal_(0, 0.1)
    signature, start = signature_of(samples.layout), np.array([3, 9])
    assert [c.name for c in signature.inputs if c.role == "length"] == ["step_length"]
    place = signature.of("length")[0]
    batch = samples.batch(start, 1)
    given = batch.start(), batch.forcing[:, 0], batch.clock[:, 0]
    made_of = {}
    step.network.register_forward_hook(lambda module, seen, out: made_of.update({"seen": seen[0], "out": out}))
    outs = {}
    for n in HOURS:
        step(*given, anchor=step.anchor(given[0]), length=float(n))
        assert (made_of["seen"][:, place] == np.log2(n)).all()
        outs[n] = made_of["out"].detach()
    assert not torch.equal(outs[1], outs[2]) and not torch.equal(outs[2], outs[4])
    for lengths in ([4], [2, 2], [1, 1, 1, 1], [2, 1, 1], [1, 2, 1]):  # all end at 24 hours
        result = list(rollout(step, batch.start(), inputs_of(samples, start, lengths)))
        assert torch.isfinite(result[-1].state).all()
        assert all(abs(r.record["residual_after_energy"]).max() < 1e-7 for r in result)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_one_network_is_better_than_persistence_by_steps_of_every_length(planet, tmp_path, kind):
    step, samples, loss = made(planet, KINDS[kind])
    recipe = dataclasses.replace(RECIPE, phases=(Phase(240, 1, 4),), lr=4e-3, lengths=(1, 2, 4), save_every=1000)
    Trainer(step, loss, samples, recipe, tmp_path, "lengths").run()
    start = np.arange(2, 40, 6)
    truth = samples.batch(start, 1, 4).truth(0)[0]
    scale, persistent = step.change_std, samples.batch(start, 1).start()

    def error(state):
        return float(((state - truth) / scale).square().mean().sqrt())

    found = {str(way): error(reached(step, samples, start, way)) for way in ([4], [2, 2], [1, 1, 1, 1], [2, 1, 1])}

    assert max(found.values()) < 0.7 * error(persistent)
