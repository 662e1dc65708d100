"""Networks under an objective: which kinds are told the time between noise and sample, and that it reaches them."""

import pytest
import torch
from tiny_networks import TINY
from torch.testing import assert_close

from emulator.networks.conditions import NOISE_TIME, noise_time, scalar_count
from emulator.networks.generative import build, noise_of, with_time
from emulator.networks.registry import NetworkError, kinds
from emulator.networks.signature import Signature
from emulator.planet.grid import Grid

GRID = Grid.gaussian(12)


def able(kind):
    try:
        return NOISE_TIME in with_time(TINY[kind])["condition"]
    except NetworkError as error:
        assert f"got {kind!r}, which cannot" in str(error)
        return False


def test_which_kinds_are_told_the_time():
    found = {kind for kind in kinds() if kind in TINY and able(kind)}
    assert found >= {"sfno", "unet", "fuxi", "vector_cnn"} and not found & {"column", "aurora", "torch_harmonics"}


def test_times_are_told_apart():
    """Half a period of the longest wave is two ways long, so that no two times between 0 and 1 have the same features."""
    features = noise_time(torch.linspace(0, 1, 65))
    assert features.shape == (65, scalar_count([NOISE_TIME]))
    apart = torch.cdist(features, features) + 10 * torch.eye(65)
    assert float(apart.min()) > 0.1
    assert_close(features.square().sum(1), torch.full((65,), features.shape[1] / 2))


@pytest.mark.parametrize("kind", ["sfno", "unet", "fuxi", "vector_cnn"])
def test_time_and_noise_change_what_is_sampled_and_one_sample_leaves_others_alone(kind):
    torch.manual_seed(0)
    network = build(TINY[kind], {"kind": "flow_matching", "steps": 2}, Signature.plain(3, 2), GRID)
    with torch.no_grad():
        for parameter in network.parameters():  # modulations start at zero
            parameter.add_(0.05 * torch.randn_like(parameter))
    x, noise = torch.randn(2, 3, *GRID.shape), torch.randn(2, noise_of(network.objective, 2).count, *GRID.shape)
    sample = network(x, noise=noise)
    assert sample.shape == (2, 2, *GRID.shape)
    assert_close(network(x[1:], noise=noise[1:]), sample[1:], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(network(x, noise=noise.flip(0)), sample, atol=1e-2)
    told = network._told(None)
    early, late = (told(noise[:, :2], torch.full((2,), time), x) for time in (0.1, 0.9))
    assert float((early - late).detach().abs().max()) > 1e-3
    with pytest.raises(ValueError, match="Expected noise of shape"):
        network(x, noise=noise[:, 1:])
