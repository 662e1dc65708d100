"""The network is the published one: with the weights of torch-harmonics' SFNO it computes the same function."""

import pytest
import torch
from small_sfno import awaken, fields
from torch.testing import assert_close

from emulator.networks.sfno import SFNO, SFNOOptions

SphericalFourierNeuralOperator = pytest.importorskip("torch_harmonics.examples.models").SphericalFourierNeuralOperator

GRIDS = {"legendre-gauss": ("gaussian", False), "equiangular": ("equiangular", True)}
POSITIONS = {
    "Identity": "none",
    "SpectralPositionEmbedding": "harmonics",
    "LearnablePositionEmbedding": "learned",
}
LAYERS = {"mlp.fwd.0": "mlp.layers.0", "mlp.fwd.2": "mlp.layers.1"}


def options_of(peer) -> SFNOOptions:
    """The options here that make the network of torch-harmonics."""
    return SFNOOptions(
        embed_dim=peer.embed_dim,
        blocks=peer.num_layers,
        scale_factor=peer.scale_factor,
        truncation=peer.hard_thresholding_fraction,
        mlp_ratio=len(peer.state_dict()["blocks.0.mlp.fwd.0.weight"]) / peer.embed_dim if peer.use_mlp else 0.0,
        encoder_layers=0,
        norm={"instance_norm": "instance", "none": "none"}[peer.normalization_layer],
        pre_norm="none",
        activation=False,
        inner_skip="none",
        big_skip="add" if peer.residual_prediction else "none",
        position=POSITIONS[type(peer.pos_embed).__name__],
    )


def renamed(name, value, net):
    """Name and value here of one of torch-harmonics' weights; None for a buffer that is made anew."""
    if name == "pos_embed.position_embeddings":
        if net.options.position != "learned":
            return None, None
        return "position.field", value[0].expand(-1, *net.outer.shape).permute(1, 2, 0)
    if name == "residual_projection.weight":
        return "residual.weight", value[..., 0, 0]
    part, _, rest = name.partition(".")
    if part in ("encoder", "decoder"):
        return f"{part}.layers.0.{rest.removeprefix('0.')}", value[..., 0, 0]
    block, _, rest = rest.partition(".")
    prefix = f"blocks.{block}."
    if rest == "global_conv.weight":  # (out, in, l) complex -> (l, in, real / imaginary, out)
        return prefix + "filters.0.weight", torch.view_as_real(value).permute(2, 1, 3, 0)
    if rest.startswith("norm."):
        return prefix + rest, value
    layer, _, kind = rest.rpartition(".")
    return f"{prefix}{LAYERS[layer]}.{kind}", value[..., 0, 0] if kind == "weight" else value


def with_the_weights_of(peer) -> SFNO:
    """Our network with the weights of torch-harmonics', every one of both."""
    grid, poles = GRIDS[peer.grid]
    net = SFNO(peer.in_chans, peer.out_chans, *peer.img_size, grid, poles, options_of(peer))
    weights = dict(renamed(name, value, net) for name, value in peer.state_dict().items())
    weights.pop(None, None)
    net.load_state_dict(weights)
    return net


PUBLISHED = [
    {},
    {"normalization_layer": "instance_norm"},
    {"normalization_layer": "instance_norm", "scale_factor": 1, "grid": "legendre-gauss"},
    {"scale_factor": 1, "grid_internal": "equiangular", "residual_prediction": True},
    {"residual_prediction": True, "out_chans": 3, "mlp_ratio": 1.5, "scale_factor": 3},
    {"use_mlp": False, "num_layers": 2, "img_size": (25, 48)},
    {"pos_embed": "spectral", "normalization_layer": "instance_norm"},
    {"pos_embed": "learnable lat"},
    {"pos_embed": "learnable latlon", "hard_thresholding_fraction": 0.7},
]


@pytest.mark.parametrize("chosen", PUBLISHED, ids=lambda c: ",".join(f"{k}={v}" for k, v in c.items()) or "defaults")
def test_weights_of_torch_harmonics_give_its_output_and_gradient(chosen):
    torch.manual_seed(3)
    arguments = {
        "img_size": (24, 48),
        "in_chans": 3,
        "out_chans": 2,
        "embed_dim": 16,
        "num_layers": 3,
        "scale_factor": 2,
    }
    peer = awaken(SphericalFourierNeuralOperator(**(arguments | chosen)))
    ours = with_the_weights_of(peer)
    assert sum(p.numel() for p in ours.parameters() if p.requires_grad) > 0
    results = []
    for net in (ours, peer):
        x = fields(2, 3, *peer.img_size).requires_grad_()
        y = net(x)
        y.square().mean().backward()
        results.append((y.detach(), x.grad))
    for found, expected in zip(*results, strict=True):
        assert_close(found / expected.std(), expected / expected.std(), rtol=0, atol=1e-5)
