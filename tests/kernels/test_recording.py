"""Recorded calls: the bits of those that Python makes, and never those of other weights, sizes or modes."""

import copy
import gc
import weakref
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from emulator.kernels import kept, library, transform
from emulator.kernels.recording import _CANNOT, _RECORDINGS, Recording, Spread
from emulator.networks.layers import Linear
from emulator.networks.sfno import SFNO, SFNOOptions
from emulator.networks.signature import Channel, Signature
from emulator.networks.vector_cnn import VectorCNN, VectorCNNOptions

pytestmark = pytest.mark.skipif(library.LIBRARY is None, reason="no compiled kernels")
VARIANTS = {
    "quickstart": {"stencil": 3, "mlp_ratio": 1, "encoder_layers": 0, "pre_norm": "branch", "position": "learned"},
    "plain": {"pre_norm": "none", "big_skip": "none", "scale_factor": 1},
    "hidden": {"encoder_layers": 1, "position": "none", "mlp_ratio": 2.0},
}
VECTORS = {
    "vectors": {"vectors": 8, "width": 16, "encoder_layers": 0, "position": "learned"},
    "few vectors": {"vectors": 2, "width": 12, "scale_factor": 1, "components": False},
}
NAMES = "temperature", "v_component_of_wind", "u_component_of_wind", "humidity", "a", "b", "c"


def made(variant="quickstart", **more) -> SFNO | VectorCNN:
    torch.manual_seed(0)
    if variant in VECTORS:
        channels = [Channel(name, "state") for name in NAMES]
        options = VectorCNNOptions(**{"blocks": 3, "scale_factor": 1.5} | VECTORS[variant] | more)
        return VectorCNN(Signature(channels, channels[:5]), 12, 24, options=options).eval()
    options = {"embed_dim": 16, "blocks": 3, "scale_factor": 1.5} | VARIANTS[variant] | more
    return SFNO(7, 5, 12, 24, options=SFNOOptions(**options)).eval()


def recordings(net) -> list:
    return [found for _, found in _RECORDINGS.get(net, {}).values()]


@pytest.mark.parametrize("variant", [*VARIANTS, *VECTORS])
@pytest.mark.parametrize("batch", [1, 3])
@torch.no_grad()
def test_every_call_has_the_bits_of_the_first_one(variant, batch):
    net, inputs = made(variant), [torch.randn(batch, 7, 12, 24) for _ in range(4)]
    fresh = [copy.deepcopy(net)(x) for x in inputs]  # the first call of each
    for _ in range(2):
        found = [net(x) for x in inputs]
    assert isinstance(recordings(net)[0], Recording | Spread)
    for ours, expected in zip(found, fresh, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0)


@pytest.mark.parametrize("variant", [*VARIANTS, *VECTORS])
@torch.no_grad()
def test_it_is_the_network_in_float64(variant):
    net, x = made(variant), torch.randn(2, 7, 12, 24)
    exact = copy.deepcopy(net).double()(x.double())
    for _ in range(3):
        found = net(x)
    assert isinstance(recordings(net)[0], Recording | Spread)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=3e-6 * float(exact.abs().max()))


@torch.no_grad()
def test_what_recorded_calls_point_to_outlives_the_tables_of_others():
    net, x = made(), torch.randn(1, 7, 12, 24)
    found = [net(x) for _ in range(3)]
    assert isinstance(recordings(net)[0], Recording | Spread)
    transform._order_places.cache_clear()
    others = [np.full(n, 1 << 40) for n in range(1, 200) for _ in range(20)]  # where freed memory would be
    torch.testing.assert_close(net(x), found[0], rtol=0, atol=0)
    del others


@torch.no_grad()
def test_what_is_kept_of_weights_keeps_no_network():
    net, x = made(), torch.randn(1, 7, 12, 24)
    for _ in range(3):
        net(x)
    gone = weakref.ref(net.position)
    del net
    gc.collect()
    assert gone() is None


@torch.no_grad()
def test_without_room_for_its_weights_a_network_gives_the_same(monkeypatch):
    net, x = made(), torch.randn(1, 7, 12, 24)
    expected = net(x)
    monkeypatch.setattr(kept, "_KEPT", OrderedDict())
    monkeypatch.setattr(kept, "_MOST_BYTES", 10_000)
    again = made()
    for _ in range(3):
        torch.testing.assert_close(again(x), expected, rtol=0, atol=0)
    assert sum(entry.size for entry in kept._KEPT.values()) <= 10_000


@pytest.mark.parametrize("variant", [*VARIANTS, *VECTORS])
def test_a_training_keeps_nothing_of_its_weights_but_for_the_last_validation(variant, monkeypatch):
    """Small tensors that stay after every update lie between large ones that do not: the process would grow by both."""
    monkeypatch.setattr(kept, "_KEPT", OrderedDict())
    net, x, counts = made(variant), torch.randn(1, 7, 12, 24), []
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    for _ in range(4):
        for _ in range(2):
            held = len(kept._KEPT)
            net(x).square().mean().backward()
            assert len(kept._KEPT) == held
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            net(x)
        counts.append(len(kept._KEPT))
    assert counts[-1] == counts[1] > 0


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_residual_of_another_type_is_read_as_what_it_is(dtype):
    layer, x = Linear(32, 32), torch.randn(40, 2, 32)
    residual = torch.randn(40, 2, 32).to(dtype)
    torch.testing.assert_close(layer(x, residual), layer(x) + residual.float())


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@torch.no_grad()
def test_threads_take_whole_samples_with_the_bits_of_each_alone(two_threads):
    net, x = made(), torch.randn(9, 7, 12, 24)
    expected = torch.cat([copy.deepcopy(net)(one[None]) for one in x])
    for _ in range(3):
        found = net(x)
    assert isinstance(recordings(net)[0], Spread) == library.has_threads() and torch.get_num_threads() == 2
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    changed_in_place(net)
    expected = copy.deepcopy(net)(x)
    for _ in range(3):
        torch.testing.assert_close(net(x), expected, rtol=0, atol=0)


def changed_in_place(net):
    for parameter in net.parameters():
        parameter.mul_(1.25)


def changed_behind_torchs_back(net):
    for parameter in net.parameters():
        parameter.data.numpy()[...] *= 1.25


def replaced(net):
    net.load_state_dict({name: value * 1.25 for name, value in net.state_dict().items()}, assign=True)


def one_layer_replaced(net):
    layer = net.decoder.layers[-1]
    layer.weight = nn.Parameter(layer.weight * 2)


@pytest.mark.parametrize("change", [changed_in_place, changed_behind_torchs_back, replaced, one_layer_replaced])
@torch.no_grad()
def test_other_weights_are_seen_however_they_come_about(change):
    net, x = made(), torch.randn(1, 7, 12, 24)
    before = [net(x) for _ in range(3)][-1]
    change(net)
    expected = copy.deepcopy(net)(x)
    assert not torch.allclose(before, expected)
    for _ in range(3):
        torch.testing.assert_close(net(x), expected, rtol=0, atol=0)


@torch.no_grad()
def test_a_result_is_not_overwritten_by_the_next_call():
    net, x = made(), torch.randn(2, 1, 7, 12, 24)
    for _ in range(3):
        first = net(x[0])
    kept = first.clone()
    net(x[1])
    torch.testing.assert_close(first, kept, rtol=0, atol=0)


@torch.no_grad()
def test_what_torch_computes_in_between_cannot_be_recorded():
    net, x = made(norm="layer"), torch.randn(1, 7, 12, 24)
    found = [net(x) for _ in range(3)]
    assert recordings(net) == [_CANNOT]
    torch.testing.assert_close(found[2], found[0], rtol=0, atol=0)


@torch.no_grad()
def test_hooks_and_those_who_watch_torch_see_every_layer():
    net, x, seen = made(), torch.randn(1, 7, 12, 24), []
    for _ in range(3):
        net(x)
    with torch.profiler.profile() as _, torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        net(x)
    assert counter.get_total_flops() > 0
    net.blocks[1].register_forward_hook(lambda *_: seen.append(1))
    net(x)
    assert seen == [1]


def test_with_gradients_nothing_is_recorded_and_both_agree():
    net, x = made(), torch.randn(1, 7, 12, 24)
    with torch.no_grad():
        for _ in range(3):
            ahead = net(x)
    y = net(x)
    y.square().mean().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    torch.testing.assert_close(y, ahead, rtol=0, atol=2e-6 * float(ahead.abs().max()))


@torch.no_grad()
def test_a_copy_records_for_itself():
    net, x = made(), torch.randn(1, 7, 12, 24)
    for _ in range(3):
        net(x)
    other = copy.deepcopy(net)
    changed_in_place(other)
    expected = [other(x) for _ in range(3)]
    assert not torch.allclose(net(x), expected[2])
    torch.testing.assert_close(expected[2], expected[0], rtol=0, atol=0)
