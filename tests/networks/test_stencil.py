"""The MLP that sees its neighbours, against a convolution of the padded map and against the MLP that does not."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from emulator.networks.edges import pad_sphere
from emulator.networks.layers import MLP
from emulator.networks.stencil import StencilMLP, _takers
from emulator.sphere.transform import SphericalTransform

GRIDS = [
    (12, 24, "gaussian", False),
    (13, 24, "equiangular", True),
    (9, 18, "equiangular", False),
    (6, 20, "gaussian", False),
]


def made(grid, size=3, widths=(3, 5, 2)):
    torch.manual_seed(0)
    transform = SphericalTransform(*grid)
    return StencilMLP(transform, widths, size), torch.randn(*transform.shape, 2, widths[0])


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("size", [3, 5])
def test_it_is_a_convolution_of_the_map_that_goes_on_beyond_its_edges_both_ways(grid, size):
    net, field = made(grid, size)
    net = net.double()
    field = field.double().requires_grad_()
    weights = torch.randn(*field.shape[:3], 2, dtype=torch.float64)
    found = net.transform.restore(net(net.transform.arrange(field)))
    image = pad_sphere(field.permute(2, 3, 0, 1), size // 2, net.transform.poles)
    hidden = F.gelu(F.conv2d(image, net.convolution.weight, net.convolution.bias))
    expected = F.conv2d(hidden, net.last.weight[:, :, None, None]).permute(2, 3, 0, 1)
    assert_close(found, expected, rtol=0, atol=1e-12)
    wanted = (field, *net.parameters())
    ours, theirs = (torch.autograd.grad((y * weights).sum(), wanted, retain_graph=True) for y in (found, expected))
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b, rtol=0, atol=1e-10)


def test_a_stencil_of_one_cell_is_the_plain_mlp():
    net, field = made(GRIDS[0])
    plain = MLP((3, 5, 2), bias_last=False)
    with torch.no_grad():
        centre = net.convolution.weight[:, :, 1, 1].clone()
        net.convolution.weight.zero_()
        net.convolution.weight[:, :, 1, 1] = centre
    plain.layers[0].load_state_dict({"weight": centre, "bias": net.convolution.bias})
    plain.layers[1].load_state_dict(net.last.state_dict())
    cells = net.transform.arrange(field)
    assert_close(net(cells), plain(cells), rtol=0, atol=1e-6)


def test_half_precision_is_near():
    net, field = made(GRIDS[0])
    cells = net.transform.arrange(field)
    expected = net(cells)
    net.precision = net.last.precision = "bfloat16"
    found = net(cells)
    assert 0 < (found.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_slopes_and_their_directions_come_from_the_stencil_alone():
    """A centred difference in longitude, which no isotropic filter and no layer on single cells can make."""
    transform = SphericalTransform(12, 24)
    net = StencilMLP(transform, (1, 2, 1), 3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.convolution.weight[0, 0, 1, 2], net.convolution.weight[0, 0, 1, 0] = 1, -1
        net.convolution.weight[1] = -net.convolution.weight[0]
        net.last.weight[0, 0], net.last.weight[0, 1] = 1, -1  # gelu(x) - gelu(-x) = x
        longitude = torch.arange(24) * (2 * torch.pi / 24)
        field = (3 * longitude).sin().expand(12, 24)[..., None, None]
        found = transform.restore(net(transform.arrange(field.contiguous())))
    expected = 2 * torch.sin(torch.tensor(3 * 2 * torch.pi / 24)) * (3 * longitude).cos()
    assert_close(found[..., 0, 0], expected.expand(12, 24), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 27])
def test_a_stencil_that_has_no_middle_or_leaves_the_grid_is_refused(size):
    with pytest.raises(ValueError, match=rf"odd number of cells from 3 on within \(12, 24\), got {size}"):
        StencilMLP(SphericalTransform(12, 24), (1, 1, 1), size)


def test_of_two_who_take_a_cell_in_the_last_one_counts_whatever_the_threads():
    """Many more pairs than one thread is given: the table, and with it the order of a gradient's sums, is always the same."""
    generator = torch.Generator().manual_seed(0)
    cells, pairs = 500, []
    for _ in range(3):
        count = 200_000
        pairs.append((torch.randint(cells, (count,), generator=generator), torch.arange(count)))
    back, left = _takers(pairs, cells)
    for row, (taken, by), (_, rest) in zip(back, pairs, left, strict=True):
        expected = dict(zip(taken.tolist(), by.tolist(), strict=True))  # the last of equal keys stays
        assert row.tolist() == [expected.get(cell, -1) for cell in range(cells)]
        assert len(rest) == len(by) - len(expected)
