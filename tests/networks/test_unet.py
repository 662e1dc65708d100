"""The U-Net: it goes on around the sphere and over the poles."""

import dataclasses
import math

import pytest
import torch
from torch.testing import assert_close

from emulator.networks.edges import pad_sphere
from emulator.networks.unet import UNet, UNetOptions
from emulator.sphere.tables import latitudes

SMALL = UNetOptions(width=6, depth=2)


def network(shape=(12, 24), options=SMALL, **more):
    torch.manual_seed(0)
    return UNet(3, 2, *shape, options=options, **more)


def fields(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("nlat", "poles"), [(12, False), (13, True)])
@pytest.mark.parametrize("margin", [1, 2])
def test_padding_continues_a_smooth_field_over_the_poles_and_the_date_line(nlat, poles, margin):
    """A function of the position on the sphere, evaluated at colatitudes below 0 and beyond pi."""
    nlon = 24
    theta = latitudes(nlat, "equiangular", poles)[0]
    step = math.pi / (nlat - poles)

    def field(theta, phi):
        x, y, z = theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos().expand_as(theta * phi)
        return x + 0.3 * y - 0.5 * z + x * y + y * z

    inner = field(theta[:, None], torch.arange(nlon).double() * (2 * math.pi / nlon))
    wide = theta[0] + step * torch.arange(-margin, nlat + margin).double()
    around = torch.arange(-margin, nlon + margin).double() * (2 * math.pi / nlon)
    assert_close(pad_sphere(inner, margin, poles), field(wide[:, None], around), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("shape", "poles"), [((12, 24), False), ((13, 24), True), ((15, 40), False)])
def test_turning_about_the_axis_by_coarse_cells_commutes_with_the_network(shape, poles):
    net, x = network(shape, poles=poles), fields(2, 3, *shape)
    with torch.no_grad():
        y = net(x)
        assert y.shape == (2, 2, *shape)
        assert_close(net(x.roll(8, -1)), y.roll(8, -1), rtol=0, atol=1e-5)
        assert (net(x.roll(1, -1)) - y.roll(1, -1)).abs().max() > 1e-3


def test_a_cell_is_heard_across_the_date_line_and_the_pole():
    net, x = network(options=UNetOptions(width=6, depth=1)), fields(1, 3, 12, 24)
    other = x.clone()
    other[0, :, 0, 0] += 1
    with torch.no_grad():
        heard = (net(x) - net(other)).abs().amax(1)[0]
    assert heard[0, 23] > 1e-4 and heard[0, 12] > 1e-4


def test_checkpointing_gives_the_same_gradients_and_stores_less():
    x, gradients, stored = fields(2, 3, 12, 24), [], []
    for flag in (False, True):
        net, kept = network(options=dataclasses.replace(SMALL, checkpointing=flag)), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.nbytes) or t, lambda t: t):
            y = net(x)
        y.square().sum().backward()
        gradients.append([p.grad for p in net.parameters()])
        stored.append(sum(kept))
    for found, expected in zip(*gradients, strict=True):
        assert expected.any()
        assert_close(found, expected)
    assert stored[1] < 0.7 * stored[0]


def test_output_starts_at_zero_where_asked():
    assert not network(options=dataclasses.replace(SMALL, zero_output=True))(fields(1, 3, 12, 24)).any()


def test_grids_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="Expected longitudes in a multiple of 8 for 2 halvings, got 28"):
        network((12, 28))
    with pytest.raises(ValueError, match="Expected at least 8 latitudes for 2 halvings, got 6"):
        network((6, 24))
    with pytest.raises(ValueError, match="Expected depth of at least 1, got 0"):
        UNetOptions(depth=0)
    with pytest.raises(ValueError, match=r"Expected an input of shape \('batch', 3, 12, 24\)"):
        network()(torch.zeros(1, 2, 12, 24))


def test_autocast_hands_back_the_type_of_the_input():
    net = network()
    with torch.autocast("cpu", torch.bfloat16):
        assert net(torch.randn(1, net.in_channels, *net.shape)).dtype is torch.float32
