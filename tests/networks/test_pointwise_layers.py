"""Single layers: channel mixing by degree, norms and linear layers, against torch and closed forms."""

import math

import pytest
import torch
from small_sfno import fields
from torch.testing import assert_close

from emulator.networks.layers import linear
from emulator.networks.norms import InstanceNorm, Norm
from emulator.networks.spectral import Mix, SpectralFilter
from emulator.sphere.tables import Plan, latitudes
from emulator.sphere.transform import SphericalTransform


@pytest.mark.parametrize(("kind", "half"), [("complex", False), ("real", False), ("complex", True), ("real", True)])
def test_channel_mixing_is_a_product_by_degree_with_the_right_gradients(kind, half):
    plan = SphericalTransform(10, 20, lmax=9).plan
    assert isinstance(plan, Plan)
    transform = SphericalTransform(10, 20, lmax=9)
    torch.manual_seed(0)
    layer = SpectralFilter(plan, 4, kind, precision="bfloat16" if half else "float32")
    c = transform.pack(transform.analysis(fields(10, 20, 2, 4))).requires_grad_()
    weight = (
        torch.view_as_complex(layer.weight.detach().movedim(2, -1).contiguous()) if kind == "complex" else layer.weight
    )

    def reference(c, weight):
        dense = torch.view_as_complex(transform.unpack(c).movedim(2, -1).contiguous())
        product = torch.einsum("lmbi,lio->lmbo", dense, weight.to(dense.dtype))
        return transform.pack(torch.view_as_real(product).movedim(-1, 2))

    weight = weight.detach().requires_grad_()
    there = torch.ones(9, 9).tril()[:, :, None, None, None]  # coefficients of degrees below the order are none
    upstream = transform.pack(fields(9, 9, 2, *c.shape[1:], seed=4) * there)
    expected = torch.autograd.grad((reference(c, weight) * upstream).sum(), (c, weight))
    y = Mix.apply(c, layer.weight, list(plan), half)
    found = torch.autograd.grad((y * upstream).sum(), (c, layer.weight))
    tolerance = {"rtol": 3e-2, "atol": 6e-2} if half else {"rtol": 1e-4, "atol": 1e-4}
    assert_close(y, reference(c, weight), **tolerance)
    assert_close(found[0], expected[0], **tolerance)
    g = torch.view_as_real(expected[1]).movedim(-1, 2) if kind == "complex" else expected[1]
    assert_close(found[1], g, **tolerance)


def test_instance_norm_is_torchs_own_with_its_gradients():
    x = fields(50, 2, 3).double().requires_grad_()
    scale, shift = fields(2, 3, seed=2).double().requires_grad_(), fields(2, 3, seed=3).double().requires_grad_()
    y = InstanceNorm.apply(x.flatten(1), scale.flatten(), shift.flatten(), 1e-6).view(x.shape)
    variance, mean = torch.var_mean(x, 0, correction=0)
    assert_close(y, (x - mean) / torch.sqrt(variance + 1e-6) * scale + shift)
    assert torch.autograd.gradcheck(
        lambda a, b, c: InstanceNorm.apply(a.flatten(1), b.flatten(), c.flatten(), 1e-6), (x, scale, shift)
    )


def test_area_norm_does_not_depend_on_where_the_rows_crowd():
    """Of a zonal field given on two grids, the normalised values agree with the integral's, not with the rows' mean."""
    transform = SphericalTransform(40, 80, "equiangular")
    shares = (latitudes(40, "equiangular")[1] / 160).float()[:, None].expand(40, 80)
    area = transform.arrange(shares[..., None])[:, 0]
    sine = torch.cos(latitudes(40, "equiangular")[0]).float()[:, None].expand(40, 80)
    norm = Norm("area_instance", 1, area)
    y = transform.restore(norm(transform.arrange((sine**2)[..., None, None])))[..., 0, 0]
    # over the sphere sin^2 has mean 1/3 and variance 1/5 - 1/9
    assert_close(y.detach(), (sine**2 - 1 / 3) / math.sqrt(4 / 45), rtol=0, atol=2e-4)


@pytest.mark.parametrize("points", [5, 1024, 1041, 4096])
def test_linear_layer_is_torchs_whichever_library_it_takes(points):
    x, weight, bias = fields(points, 3, 7), fields(5, 7, seed=2), fields(5, seed=3)
    expected = (x.double() @ weight.double().T + bias.double()).float()
    assert_close(linear(x, weight, bias), expected, rtol=1e-5, atol=1e-5)
    upstream = fields(points, 3, 5, seed=4)
    given = [t.requires_grad_() for t in (x, weight, bias)]
    found = torch.autograd.grad((linear(*given) * upstream).sum(), given)
    exact = [t.detach().double().requires_grad_() for t in given]
    slopes = torch.autograd.grad((torch.nn.functional.linear(*exact) * upstream.double()).sum(), exact)
    for a, b in zip(found, slopes, strict=True):
        assert_close(a, b.float(), rtol=1e-4, atol=1e-4)
