"""The network is FuXi as `miles-credit` has it: with its weights it computes the same function, where maps end alike."""

import pytest
import torch
from credit_weights import ENDING, end_in_zeros, renamed
from torch.testing import assert_close

from emulator.networks.edges import Edges
from emulator.networks.fuxi import FuXi, FuXiOptions

Fuxi = pytest.importorskip("credit.models.fuxi").Fuxi

NAMES = (
    (r"cube_embedding\.proj", "embed"),
    (r"cube_embedding\.norm", "norm"),
    (r"u_transformer\.layer\.", ""),
    (r"u_transformer\.", ""),
    (r"\.attn\.", ".attention."),
    (r"\.norm1\.", ".attention_norm."),
    (r"\.norm2\.", ".mlp_norm."),
    (r"\.mlp\.fc1\.", ".mlp.layers.0."),
    (r"\.mlp\.fc2\.", ".mlp.layers.1."),
    (r"\.qkv\.", ".mixing."),
    (r"\.q_bias", ".query_bias"),
    (r"\.v_bias", ".value_bias"),
    (r"\.logit_scale", ".scale"),
    (r"\.cpb_mlp\.", ".distance."),
    (r"\.proj\.", ".out."),
    (r"down\.conv\.", "down.0."),
    (r"up\.conv\.", "up.0."),
    (r"down\.b\.", "down.1.layers."),
    (r"up\.b\.", "up.1.layers."),
    (r"^fc\.", "head."),
)


def peer(height, width, patch, window, **more):
    torch.manual_seed(0)
    size = dict(image_height=height, image_width=width, patch_height=patch, patch_width=patch, window_size=window)
    channels = dict(levels=2, channels=2, surface_channels=1, frames=2, frame_patch_size=2)
    design = dict(dim=16, num_groups=4, num_heads=2, depth=3, use_spectral_norm=False, interp=False)
    return Fuxi(**size, **channels, **(design | more)).eval()


def ours(theirs, patch, window, shape, **more):
    options = FuXiOptions(width=16, groups=4, heads=2, blocks=3, patch=patch, window=window, **more)
    net = FuXi(10, 5, shape, ENDING, options).eval()
    changed = {
        "embed.weight": lambda w: w.transpose(1, 2).flatten(1, 2),  # the oldest fields of all variables first
        ".scale": lambda w: w[..., 0],
        "head.weight": lambda w: w.unflatten(0, (-1, 5)).transpose(0, 1).flatten(0, 1)[..., None, None],
        "head.bias": lambda w: w.unflatten(0, (-1, 5)).t().flatten(),
    }
    net.load_state_dict(renamed(theirs.state_dict(), NAMES, changed))
    return net


@pytest.mark.parametrize(
    ("shape", "patch", "window"),
    [((24, 48), 2, 3), ((24, 48), 2, 2), ((16, 48), 2, 4), ((40, 40), 1, 5), ((12, 24), 2, 3)],
    ids=lambda value: str(value),
)
def test_with_the_published_weights_it_is_the_same_function(shape, patch, window, monkeypatch):
    end_in_zeros(monkeypatch)
    theirs = peer(*shape, patch, window)
    for parameter in theirs.parameters():  # nothing at its start, such as norms and biases, hides a difference
        torch.nn.init.normal_(parameter, std=0.2)
    net = ours(theirs, patch, window, shape)
    x = torch.randn(2, 5, 2, *shape)
    with torch.no_grad():
        expected, found = theirs(x).squeeze(2), net(x.transpose(1, 2).flatten(1, 2))
    assert expected.std() > 0.1
    assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_it_has_as_many_parameters_as_the_published_one(monkeypatch):
    monkeypatch.setattr(Fuxi, "to", lambda self, device: self)  # its constructor moves it to a device
    with torch.device("meta"):
        theirs = peer(640, 1280, 4, 7, dim=1536, depth=48, num_heads=8, num_groups=32)
        net = FuXi(10, 5, (640, 1280), Edges(), FuXiOptions(width=1536, blocks=48, heads=8, patch=4, window=7))
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in theirs.parameters())
