"""What the spherical Fourier neural operator commutes with: turns about the axis, and every rotation with real filters."""

import dataclasses

import pytest
import torch
from rotations import Rotation
from small_sfno import SMALL, awaken, fields, network
from torch.testing import assert_close

from emulator.networks.spectral import FILTERS, DegreeGate, SpectralFilter
from emulator.sphere.transform import SphericalTransform


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize(
    "grid", [{}, {"grid": "equiangular"}, {"grid": "equiangular", "poles": True, "shape": (13, 24)}]
)
@pytest.mark.parametrize("stencil", [1, 3])
def test_turning_about_the_axis_commutes_with_the_network(kind, grid, stencil):
    options = dataclasses.replace(SMALL, filter=kind, rank=3, spectral_layers=2, stencil=stencil)
    net = awaken(network(options, **grid))
    x = fields(2, 3, *net.outer.shape)
    with torch.no_grad():
        expected = net(x).roll(7, -1)
        found = net(x.roll(7, -1))
    assert expected.std() > 0.01
    largest = expected.abs().max()
    assert_close(found / largest, expected / largest, rtol=0, atol=1e-5)


def test_turning_about_the_axis_commutes_with_a_coarser_inner_grid():
    """By a turn that both grids hold."""
    net = awaken(network(dataclasses.replace(SMALL, scale_factor=2)))
    x = fields(2, 3, 12, 24)
    with torch.no_grad():
        assert_close(net(x.roll(6, -1)), net(x).roll(6, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["learned", "harmonics"])
def test_position_breaks_the_symmetry(kind):
    net = awaken(network(dataclasses.replace(SMALL, position=kind)))
    x = fields(1, 3, 12, 24)
    with torch.no_grad():
        assert (net(x.roll(7, -1)) - net(x).roll(7, -1)).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_every_rotation_commutes_with_real_filters_and_not_with_complex_ones(kind):
    """On fields that the truncation holds: pointwise layers make higher degrees, which no grid can turn exactly, so the
    nonlinear parts are tested by themselves below and here the block is linear."""
    options = dataclasses.replace(
        SMALL,
        filter=kind,
        norm="none",
        mlp_ratio=0,
        activation=False,
        encoder_layers=0,
        truncation=0.5,
        pre_norm="none",
    )
    net = awaken(network(options, shape=(16, 32))).double()
    turn = Rotation(net.outer, (1.0, 2.0, -0.5), 0.9)
    smooth = net.outer.synthesis(net.outer.analysis(fields(16, 32, 2, 3).double())).permute(2, 3, 0, 1)
    with torch.no_grad():
        found, expected = net(turn(smooth)), turn(net(smooth))
    difference = ((found - expected).abs().max() / expected.std()).item()
    if kind == "real":
        assert_close(found, expected, rtol=0, atol=1e-11)
    else:
        assert difference > 0.1


def test_every_rotation_commutes_with_the_whole_real_network_as_the_grid_is_refined():
    """With GELU and norms the error is aliasing alone: it falls with resolution for fields of fixed degree."""
    options = dataclasses.replace(SMALL, filter="real", spectral_layers=2, norm="area_instance", embed_dim=4, blocks=2)
    errors = []
    for nlat in (12, 24, 40):
        net = network(options, shape=(nlat, 2 * nlat)).double()
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                generator = torch.Generator().manual_seed(len(name))
                shape = (40, *parameter.shape[1:]) if "filters" in name or "gates" in name else parameter.shape
                drawn = torch.randn(shape, generator=generator, dtype=torch.float64) * 0.2
                parameter.copy_(drawn[: len(parameter)])
                if "filters" in name or "gates" in name:
                    parameter[6:] = 0  # a filter that keeps degrees up to 5 at every resolution
        turn = Rotation(net.outer, (1.0, 2.0, -0.5), 0.9)
        c = torch.zeros(nlat, nlat, 2, 1, 3, dtype=torch.float64)
        low = torch.randn(4, 4, 2, 1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        c[:4, :4] = low * torch.ones(4, 4).tril()[:, :, None, None, None]
        c[:, 0, 1] = 0
        x = net.outer.synthesis(c).permute(2, 3, 0, 1)
        with torch.no_grad():
            expected = turn(net(x))
            errors.append(((net(turn(x)) - expected).abs().max() / expected.std()).item())
    assert errors[1] < 0.01 * errors[0] and errors[2] < 0.01 * errors[1], errors


def test_gate_and_real_filter_see_only_what_a_rotation_leaves():
    transform = SphericalTransform(16, 32, lmax=12).double()
    turn = Rotation(transform, (0.3, -1.0, 0.4), 1.7)
    torch.manual_seed(0)
    layers = [awaken(DegreeGate(transform.plan, 3)).double(), SpectralFilter(transform.plan, 3, "real").double()]
    x = transform.synthesis(transform.analysis(fields(16, 32, 2, 3).double()))
    for layer in layers:

        def apply(field, layer=layer):
            c = transform.analyse(transform.arrange(field))
            return transform.restore(transform.synthesise(layer(c)))

        with torch.no_grad():
            turned = turn(x.permute(2, 3, 0, 1)).permute(2, 3, 0, 1)
            expected = turn(apply(x).permute(2, 3, 0, 1)).permute(2, 3, 0, 1)
            assert_close(apply(turned), expected, rtol=0, atol=1e-11)
