"""What networks leave out: of every sample what its own seed says, as much as the probability, and nothing otherwise."""

import pytest
import torch
from tiny_networks import TINY
from torch.testing import assert_close

from emulator.kernels.kept import _KEPT
from emulator.networks import registry, stencil
from emulator.networks.dropout import Dropout, DropPath, leaves_out, leaving_out
from emulator.planet.grid import Grid

GRID = Grid.gaussian(16)
NETWORKS = {
    "sfno": TINY["sfno"] | {"dropout": 0.2, "drop_path": 0.3},
    "sfno_stencil": TINY["sfno"] | {"dropout": 0.2, "stencil": 3},
    "unet": TINY["unet"] | {"dropout": 0.2},
    "fuxi": TINY["fuxi"] | {"drop_path": 0.5},
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_sample_lacks_what_its_seed_says_whatever_is_beside_it(kind):
    network = registry.build(NETWORKS[kind], 3, 2, GRID).eval()
    x, seeds = torch.randn(1, 3, *GRID.shape).repeat(8, 1, 1, 1), torch.arange(8) * 12345678901 + 3
    assert leaves_out(network)
    with torch.no_grad():
        plain = network(x)
        with leaving_out(network, seeds):
            whole = network(x)
        torch.rand(3)
        with leaving_out(network, seeds[1:]):
            again = network(x[1:])
        assert_close(network(x), plain, rtol=0, atol=0)
    assert_close(again, whole[1:], rtol=1e-5, atol=1e-5)
    assert len({round(float(row.sum()), 3) for row in whole}) > 2, "other seeds leave out other things"


def stencil_network(**more):
    torch.manual_seed(0)
    return registry.build(NETWORKS["sfno_stencil"] | more, 3, 2, GRID).eval()


def test_repeated_calls_keep_nothing_more():
    network, x = stencil_network(), torch.randn(2, 3, *GRID.shape)
    widths = [len(each.convolution.bias) for each in network.modules() if isinstance(each, stencil.StencilMLP)]
    counts, held = [], []
    with torch.no_grad():
        for seed in range(6):
            with leaving_out(network, torch.tensor([seed, seed + 9])):
                network(x)
            counts.append(len(_KEPT))
            # what is freed is taken, so that a passing tensor does not happen to lie where the last one did
            held += [torch.empty(width, width) for width in widths for _ in range(30)]
    assert counts[0] > 0 and counts[-1] == counts[1]


@pytest.mark.parametrize(("width", "half"), [(8, False), (8, True), (32, False), (32, True)])
def test_the_compiled_stencil_leaves_out_what_torchs_does(width, half, monkeypatch):
    network, x, seeds = stencil_network(embed_dim=width), torch.randn(2, 3, *GRID.shape), torch.tensor([5, 8])

    def passed(compiled):
        with monkeypatch.context() as patched, torch.no_grad(), leaving_out(network, seeds):
            if not compiled:
                patched.setattr(stencil, "serves", lambda *_: False)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                return network(x).float()

    ours, theirs = passed(True), passed(False)
    # in bfloat16, of 8 digits, by the root of the mean square: the two round at other places
    error = (ours - theirs).square().mean().sqrt() if half else (ours - theirs).abs().max()
    assert float(error / theirs.std()) < (2.5 * 2**-8 if half else 1e-5)
    with torch.no_grad(), leaving_out(network, seeds + 1):
        assert float((network(x) - ours).abs().max() / theirs.std()) > 0.2, "what is left out matters"


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("layer", [Dropout(0.25), Dropout(0.25, batch_axis=0), DropPath(0.25)])
def test_the_mean_stays_and_the_share_is_the_probability(layer, named):
    torch.manual_seed(0)
    first = getattr(layer, "_axis", 1) == 0
    x = torch.ones(200, 40, 25) if first else torch.ones(40, 200, 25)
    layer.train(not named)
    with leaving_out(layer, torch.arange(200)) if named else torch.no_grad():
        y = layer(x)
    share = float((y == 0).double().mean())
    assert abs(share - 0.25) < (0.12 if isinstance(layer, DropPath) else 0.005)
    assert_close(y.unique(), torch.tensor([0.0, 4 / 3]))
