"""Samudra beside its authors' own code (PyPI's samudra), where that is installed: weights, outputs, moments, parameters."""

import importlib.util
import itertools
import sys
import types
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from emulator.networks.samudra import Samudra, SamudraOptions

AUTHORS = importlib.util.find_spec("samudra")
pytestmark = pytest.mark.skipif(
    AUTHORS is None or importlib.util.find_spec("jaxtyping") is None, reason="needs samudra and jaxtyping"
)
SMALL = dict(widths=(4, 6, 8), dilations=(1, 2, 4), expansion=3)


@pytest.fixture
def backbone(monkeypatch):
    """Their network up to its last layer, and its blocks.

    The packages around these files import what a cluster has installed; of that they need one function, of Python's own.
    """
    root = Path(AUTHORS.origin).parent
    for name in ("samudra.models", "samudra.models.modules", "samudra.utils"):
        package = types.ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        monkeypatch.setitem(sys.modules, name, package)
    train = types.ModuleType("samudra.utils.train")
    train.pairwise = itertools.pairwise
    monkeypatch.setitem(sys.modules, "samudra.utils.train", train)
    for name in ("activations", "blocks", "unet_backbone"):
        monkeypatch.delitem(sys.modules, f"samudra.models.modules.{name}", raising=False)
    blocks = importlib.import_module("samudra.models.modules.blocks")
    return importlib.import_module("samudra.models.modules.unet_backbone").UNetBackbone, blocks


def theirs(backbone, inputs, widths, dilations, expansion, edges="samudra", norm="batch"):
    network, blocks = backbone

    def create_block(in_channels, out_channels, dilation, n_layers, pad, checkpoint_simple):
        return blocks.ConvNeXtBlock(
            in_channels, out_channels, 3, dilation, n_layers, pad=pad, upscale_factor=expansion, norm=norm
        )

    doubling = blocks.BilinearUpsample if edges == "samudra" else blocks.ZonallyPeriodicBilinearUpsample
    layers = [1] * len(widths)
    return network(
        inputs,
        list(widths),
        list(dilations),
        layers,
        "circular",
        create_block,
        blocks.AvgPool(),
        lambda in_channels, out_channels: doubling(),
        None,
    )


def copied(ours, unet, decoder):
    """Our network with their weights, block by block in the order of their layers."""
    blocks = [layer for layer in unet.layers if hasattr(layer, "convblock")]
    for own, other in zip((*ours.down, ours.middle, *reversed(ours.up), ours.last), blocks, strict=True):
        parts = [part for part in other.convblock if len(list(part.parameters()))]
        named = dict(zip(("first", "norms.0", "second", "norms.1", "third"), parts, strict=True))
        if list(own.skip.parameters()):
            named["skip"] = other.skip_module
        for name, part in named.items():
            state = {key: value for key, value in part.state_dict().items() if key != "num_batches_tracked"}
            own.get_submodule(name).load_state_dict(state)
    ours.decoder.load_state_dict(decoder.state_dict())


def shaken(module):
    """With weights and moments that a training could have left."""
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if "running_var" in name:
                value.uniform_(0.5, 2)
            elif value.ndim == 1:
                value.add_(0.3 * torch.randn_like(value))


@pytest.mark.parametrize("edges", ["samudra", "samudra2"])
@pytest.mark.parametrize("shape", [(16, 32), (19, 36)], ids=str)
def test_with_their_weights_the_network_is_theirs(backbone, edges, shape):
    """In training and in evaluation, on grids that can be halved and that cannot; moments stay the same ones too."""
    torch.manual_seed(0)
    unet, decoder = theirs(backbone, 5, edges=edges, **SMALL), torch.nn.Conv2d(4, 3, 3)
    shaken(unet)
    ours = Samudra(5, 3, *shape, options=SamudraOptions(edges=edges, **SMALL))
    copied(ours, unet, decoder)
    x = torch.randn(3, 5, *shape)
    for training in (False, True):
        ours.train(training), unet.train(training)
        with torch.no_grad():
            y = decoder(F.pad(F.pad(unet(x), (1, 1, 0, 0), mode="circular"), (0, 0, 1, 1)))
            assert y.abs().max() > 0.1
            assert_close(ours(x), y, rtol=1e-5, atol=1e-5)
    for own, other in zip(ours.last.norms, (unet.layers[-1].convblock[1], unet.layers[-1].convblock[4]), strict=True):
        assert_close(own.running_mean, other.running_mean, rtol=1e-5, atol=1e-6)
        assert_close(own.running_var, other.running_var, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("widths", "expansion"), [((200, 250, 300, 400), 4), ((280, 380, 480, 520), 2)], ids=["samudra", "samudra2"]
)
def test_at_one_degree_there_are_as_many_parameters(backbone, widths, expansion):
    inputs, outputs, dilations = 2 * (77 + 4), 2 * 77, (1, 2, 4, 8)
    with torch.device("meta"):
        unet, decoder = theirs(backbone, inputs, widths, dilations, expansion), torch.nn.Conv2d(widths[0], outputs, 3)
        options = SamudraOptions(widths=widths, dilations=dilations, expansion=expansion, edges="samudra")
        ours = Samudra(inputs, outputs, 180, 360, options=options)
    expected = sum(p.numel() for part in (unet, decoder) for p in part.parameters())
    assert sum(p.numel() for p in ours.parameters()) == expected
