"""The passes of a step over whole maps: as torch's operations have them, and forecasts that go on with the same bits."""

import dataclasses

import pytest
import torch
from small_planet import numpy_statistics
from small_training import CONFIG as SMALL
from small_training import buffers_of

from emulator.data.channels import Layout
from emulator.data.forcing import StepInputs
from emulator.data.samples import Samples
from emulator.kernels import fields, library
from emulator.model.conserving import ConservationOptions, conservation
from emulator.model.rollout import rollout
from emulator.model.step import Step
from emulator.networks.sfno import SFNO, SFNOOptions

PROGNOSTIC = ["temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity", "surface_pressure"]
CONFIG = dataclasses.replace(SMALL, prognostic=PROGNOSTIC)
pytestmark = pytest.mark.skipif(library.LIBRARY is None, reason="no compiled kernels")


@pytest.fixture(scope="module")
def parts(planet):
    dataset = planet.assign_attrs(time_step_seconds=21600.0)
    samples = Samples(dataset, Layout.of(dataset, {"prognostic": PROGNOSTIC}))
    return samples, numpy_statistics(planet), buffers_of(samples, numpy_statistics(planet))


def made(parts, kind="sequential"):
    samples, statistics, buffers = parts
    layout = samples.layout
    scheme = conservation(ConservationOptions.of({"kind": kind}), samples, statistics).scheme
    groups = (layout.prognostic, layout.given)
    inputs = sum(group.count for group in groups) + samples.batch([0], 1).clock.shape[2] + len(buffers.static)
    torch.manual_seed(0)
    options = SFNOOptions(embed_dim=16, blocks=2, stencil=3, mlp_ratio=1, encoder_layers=0, position="learned")
    network = SFNO(inputs, layout.prognostic.count + layout.diagnostic.count, *samples.grid.shape, options=options)
    return Step(network, layout, buffers, scheme).eval()


def start(parts, rows=(2, 7)):
    batch = parts[0].batch(list(rows), 1)
    return batch.state[:, 0], StepInputs(batch.forcing[:, 0].clone(), batch.clock[:, 0])


@torch.no_grad()
def test_what_the_network_sees_has_torchs_bits_gaps_included(parts):
    step, (state, given) = made(parts), start(parts)
    given.forcing[0, 0, :2], given.forcing[1, 0, 3, 4] = torch.nan, torch.inf
    found = step.inputs(state, given.forcing, given.clock)
    with library.set_aside():
        expected = step.inputs(state, given.forcing, given.clock)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert bool((found[0, step.layout.prognostic.count, :2] == 0).all())


@torch.no_grad()
def test_fields_keep_within_their_envelope_as_torch_has_it_and_nan_stays(parts):
    step, (state, _) = made(parts), start(parts)
    predicted = 3 * torch.randn(2, step.network.out_channels, *state.shape[2:])
    predicted[1, 0, 0, 0] = torch.nan
    found = step._finished(predicted, state, None, None)
    with library.set_aside():
        expected = step._finished(predicted, state, None, None)
    sizes = step.change_std, step.diagnostic_scale.std.view(-1, 1, 1)  # of what is added up, and so of its rounding
    for ours, theirs, size in zip(found, expected, sizes, strict=True):
        torch.testing.assert_close(ours / size, theirs / size, rtol=1e-6, atol=2e-6, equal_nan=True)
    assert bool(found[0][1, 0, 0, 0].isnan())
    assert bool(((found[0] == step.upper) | (found[0] == step.lower)).any())


@torch.no_grad()
def test_parts_of_batches_are_read_where_they_lie(parts):
    maps = torch.randn(3, 5, 4, 6)
    mean, std = torch.randn(2), torch.rand(2) + 0.5
    some = fields.Part(maps[1:, 1:3], mean, std)
    found = fields.normalised([some, fields.Part(maps[:1, 4:].expand(2, 1, 4, 6))])
    expected = torch.cat(
        [(maps[1:, 1:3] - mean.view(-1, 1, 1)) / std.view(-1, 1, 1), maps[:1, 4:].expand(2, 1, 4, 6)], 1
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["none", "sequential", "projection"])
@torch.no_grad()
def test_steps_are_those_of_torchs_operations(parts, kind):
    step, (state, given) = made(parts, kind), start(parts)
    for _ in range(3):
        found = step(state, given.forcing, given.clock, step.anchor(state))
    with library.set_aside():
        expected = step(state, given.forcing, given.clock, step.anchor(state))
    scale = step.change_std.clamp(min=1e-9)
    apart = ((found.state - expected.state) / scale).abs().max()
    assert 0 < float(apart) < 1e-3  # in units of a step's change: rounding of fields, and of the network


@torch.no_grad()
def test_a_forecast_that_goes_on_elsewhere_has_the_bits_of_one_that_was_not_stopped(parts):
    """The first steps of a process are not recorded, later ones are: no step may tell the difference."""
    state, given = start(parts)
    whole = [result.state for result in rollout(made(parts), state, [given] * 9)]
    before = list(rollout(made(parts), state, [given] * 4))[-1]
    after = list(rollout(made(parts), before.onward, [given] * 5, before.anchor, first=5))
    torch.testing.assert_close(after[-1].state, whole[-1], rtol=0, atol=0)
