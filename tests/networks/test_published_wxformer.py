"""The network is CREDIT's WXFormer: with the weights of `miles-credit`'s it computes the same function, where maps end alike.

Theirs gives its perceptron of distances other distances than those of the cells: it looks up entries of a table of
`2 w + 1` columns as if it had `2 w - 1`. Here it is given the same ones.
"""

import importlib

import pytest
import torch
from credit_weights import ENDING, end_in_zeros, renamed
from torch.testing import assert_close

from emulator.networks.wxformer import WXFormer, WXFormerOptions

pytest.importorskip("credit.models.crossformer")
MODULES = {"transposed": "credit.models.crossformer", "shuffle": "credit.models.wxformer.crossformer"}
SIZE = dict(widths=(16, 32, 64, 128), depths=(1, 1, 2, 1), strides=(2,) * 4, far=(4, 2, 2, 1), near=2)
NAMES = (
    *[(rf"^layers\.(\d)\.1\.layers\.(\d)\.{n}\.norm\.", rf"stages.\1.blocks.\2.norms.{n}.") for n in (0, 2)],
    *[(rf"^layers\.(\d)\.1\.layers\.(\d)\.{n}\.", rf"stages.\1.blocks.\2.attentions.{n // 2}.") for n in (0, 2)],
    *[(rf"^layers\.(\d)\.1\.layers\.(\d)\.{n}\.layers\.0\.", rf"stages.\1.blocks.\2.norms.{n}.") for n in (1, 3)],
    *[
        (rf"^layers\.(\d)\.1\.layers\.(\d)\.{n}\.layers\.1\.", rf"stages.\1.blocks.\2.mlps.{n // 2}.layers.0.")
        for n in (1, 3)
    ],
    *[
        (rf"^layers\.(\d)\.1\.layers\.(\d)\.{n}\.layers\.4\.", rf"stages.\1.blocks.\2.mlps.{n // 2}.layers.1.")
        for n in (1, 3)
    ],
    (r"^layers\.(\d)\.0\.convs\.(\d)(\.1)?\.(weight|bias)", r"stages.\1.embed.convolutions.\2.\4"),
    (r"\.g$", ".weight"),
    (r"\.b$", ".bias"),
    ("to_qkv", "mixing"),
    ("to_out", "out"),
    (r"dpb\.layers", "distance"),
    *[(f"up_block{n + 1}", f"ups.{n}") for n in range(3)],
    ("up_block4", "head"),
    (r"^(ups\.\d)\.conv\.", r"\1.0."),
    (r"\.sharp\.", ".2.convolution."),
    (r"weight_orig$", "parametrizations.weight.original"),
    (r"weight_u$", "parametrizations.weight.0.left"),
    (r"weight_v$", "parametrizations.weight.0.right"),
)


def peer(decoder, shape, spectral_norm):
    torch.manual_seed(0)
    channels = dict(image_height=shape[0], image_width=shape[1], levels=2, channels=2, surface_channels=1, frames=2)
    design = dict(dim=SIZE["widths"], depth=SIZE["depths"], dim_head=8, interp=False, input_only_channels=1)
    windows = dict(global_window_size=SIZE["far"], local_window_size=2, cross_embed_strides=(2,) * 4)
    stencils = dict(cross_embed_kernel_sizes=((4, 8, 16), (2, 4), (2, 4), (2, 4)), use_spectral_norm=spectral_norm)
    return importlib.import_module(MODULES[decoder]).CrossFormer(**channels, **design, **windows, **stencils)


def ours(theirs, decoder, shape, spectral_norm):
    options = WXFormerOptions(**SIZE, head_width=8, decoder=decoder, spectral_norm=spectral_norm)
    net = WXFormer(12, 5, shape, ENDING, options).eval()
    stack = r"\1.1.layers." if decoder == "transposed" else r"\1.3.layers."
    state = {name: value for name, value in theirs.state_dict().items() if not name.startswith("cube_embedding")}
    found, own = renamed(state, (*NAMES, (r"^(ups\.\d)\.b\.", stack))), net.state_dict()
    found |= {name: value for name, value in own.items() if name.endswith(".followed")}
    net.load_state_dict({name: value.view(own[name].shape) for name, value in found.items()})
    for stage in net.stages:
        for block in stage.blocks:
            for attention in block.attentions:
                width = attention.windows.largest[1]
                number = torch.arange(len(attention.places))
                pairs = number // (2 * width + 1) - width, number % (2 * width + 1) - width
                attention.places.copy_(torch.stack(pairs, 1))
    return net


@pytest.mark.parametrize("spectral_norm", [False, True])
@pytest.mark.parametrize("decoder", ["transposed", "shuffle"])
def test_with_the_published_weights_it_is_the_same_function(decoder, spectral_norm, monkeypatch):
    end_in_zeros(monkeypatch)
    shape = 32, 64
    theirs = peer(decoder, shape, spectral_norm)
    x = torch.randn(2, 6, 2, *shape)
    with torch.no_grad():
        for parameter in theirs.parameters():  # nothing at its start, such as norms and biases, hides a difference
            torch.nn.init.normal_(parameter, std=0.1)
        for _ in range(3):  # directions of its spectral norms
            theirs(x)
        net = ours(theirs, decoder, shape, spectral_norm)
        expected = theirs.eval()(x).squeeze(2)
        found = net(x.flatten(1, 2))
    assert expected.std() > 0.01
    assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("decoder", ["transposed", "shuffle"])
def test_it_has_as_many_parameters_as_the_published_one(decoder):
    """But for theirs of an embedding that is never called."""
    theirs = peer(decoder, (32, 64), False)
    unused = sum(p.numel() for p in theirs.cube_embedding.parameters())
    net = WXFormer(12, 5, (32, 64), ENDING, WXFormerOptions(**SIZE, head_width=8, decoder=decoder))
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in theirs.parameters()) - unused
