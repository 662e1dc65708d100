"""Adapters: what they change by, which weights get one, and patterns of names."""

import pytest
import torch
from small_sfno import network

from emulator.networks.adapters import Adapter, adaptable, change_of, matching
from emulator.networks.sfno import SFNOOptions

CPU = torch.device("cpu")


def made(shape, by_degree=False, rank=2, scale=0.5):
    return Adapter(shape, rank, scale, by_degree, torch.Generator().manual_seed(0), CPU)


@pytest.mark.parametrize(
    "shape, by_degree", [((5, 4), False), ((5, 3, 3, 3), False), ((6, 4, 2, 5), True), ((6, 4, 5), True)]
)
def test_a_change_starts_at_zero_and_is_of_its_rank(shape, by_degree):
    adapter = made(shape, by_degree)
    assert adapter.change().shape == shape and not adapter.change().any()
    torch.nn.init.normal_(adapter.outward)
    change = adapter.change().detach()
    matrices = change.flatten(2) if by_degree else change.flatten(1)
    assert (torch.linalg.matrix_rank(matrices) == 2).all()
    factors = dict(adapter.named_parameters())
    if by_degree:
        each = [factors["inward"] @ torch.diag(share) @ factors["outward"] for share in factors["share"]]
        expected = 0.5 * torch.stack(each)
    else:
        expected = 0.5 * factors["outward"] @ factors["inward"]
    torch.testing.assert_close(change, expected.detach().reshape(shape))
    torch.testing.assert_close(change_of(factors, shape, 1.0), 2 * change)


def test_weights_get_one_that_are_larger_than_the_rank():
    options = SFNOOptions(embed_dim=8, blocks=1, position="learned", spectral_layers=2, filter="real", stencil=3)
    found = adaptable(network(options), 4)
    assert found["blocks.0.filters.0.weight"] and not found["blocks.0.mlp.convolution.weight"]
    left = {n for n, _ in network(options).named_parameters()} - set(found)
    assert (
        "position.field" in left and "blocks.0.gates.0.scale" in left and "decoder.layers.1.weight" in left
    )  # 2 outputs
    assert all(name.endswith("bias") or "norm" in name for name in left - {
        "position.field", "blocks.0.gates.0.scale", "blocks.0.gates.0.shift", "decoder.layers.1.weight",
        "encoder.layers.0.weight",
    })  # fmt: skip


def test_patterns_take_in_and_out_by_turns():
    names = ["a.weight", "a.bias", "b.weight"]
    assert matching(["*.weight"], names, "x") == ["a.weight", "b.weight"]
    assert matching(["*", "!a.*"], names, "x") == ["b.weight"]
    assert matching(["!a.*", "*.bias"], names, "x") == ["a.bias"]
    with pytest.raises(ValueError, match=r"Expected x among a.weight, a.bias, b.weight, got '!c', which matches none"):
        matching(["*", "!c"], names, "x")
