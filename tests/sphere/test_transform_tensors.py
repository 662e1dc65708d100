"""The transform as tensor code: its gradients, compilation, precision, shared tables and memory."""

import copy

import pytest
import torch
from coefficients import coefficients, random
from torch.testing import assert_close

from emulator.sphere.transform import SphericalTransform, VectorTransform


@pytest.mark.parametrize(("nlat", "nlon", "lmax"), [(5, 8, 4), (4, 8, 5), (4, 10, 4), (3, 192, 3)])
def test_gradients_are_those_of_differences(nlat, nlon, lmax):
    transform = SphericalTransform(nlat, nlon, lmax=lmax).double()
    field = random(nlat, nlon, 1).requires_grad_()
    c = random(lmax, lmax, 2, 1).requires_grad_()
    assert torch.autograd.gradcheck(transform.analysis, field, check_batched_grad=False)
    assert torch.autograd.gradcheck(transform.synthesis, c)
    if nlon < 20:
        assert torch.autograd.gradgradcheck(transform.analysis, field)


def test_gradients_of_the_wind_transform_are_those_of_differences():
    transform = VectorTransform(5, 8, lmax=4).double()
    u, v = random(5, 8, seed=1).requires_grad_(), random(5, 8, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(transform.analysis, (u, v))
    parts = random(4, 4, 2, seed=1).requires_grad_(), random(4, 4, 2, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(transform.synthesis, parts)


@pytest.mark.parametrize("used", ["both", "coefficients", "cells"])
@pytest.mark.parametrize(("nlat", "nlon", "lmax", "channels"), [(7, 16, 6, 17), (8, 192, 5, 16), (9, 14, 6, 3)])
def test_gradients_of_cells_used_twice_are_those_of_two_uses(nlat, nlon, lmax, channels, used):
    """In float32 by the compiled kernels where they know the length, in float64 by products, exactly and twice."""
    transform = SphericalTransform(nlat, nlon, lmax=lmax)

    def gradient(transform, besides, cells, create_graph=False):
        c, kept = transform.analyse_besides(cells) if besides else (transform.analyse(cells), cells)
        total = 0
        if used != "cells":
            total = total + (c * c.detach().cos()).sum() + c.square().sum()
        if used != "coefficients":
            total = total + (kept * kept.detach().sin().mT.contiguous().mT).sum() + kept.pow(3).sum()
        return torch.autograd.grad(total, cells, create_graph=create_graph)[0]

    cells = random(nlat * nlon, 2, channels).float().requires_grad_()
    found, expected = (gradient(transform, besides, cells) for besides in (True, False))
    assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))

    transform.double()
    cells = random(nlat * nlon, 2).requires_grad_()
    for create_graph in (False, True):
        found, expected = (gradient(transform, besides, cells, create_graph) for besides in (True, False))
        assert_close(found, expected)
    seconds = [torch.autograd.grad(g.square().sum(), cells)[0] for g in (found, expected)]
    assert_close(*seconds)


def test_cells_used_twice_leave_gradients_and_cells_alone():
    transform = SphericalTransform(6, 12)
    cells = random(72, 16).float().requires_grad_()
    c, kept = transform.analyse_besides(cells)
    with pytest.raises(RuntimeError, match="modified inplace"):
        kept.add_(1)
    given = random(*kept.shape, seed=1).float()
    torch.autograd.grad((c, kept), cells, (torch.ones_like(c), given))
    assert torch.equal(given, random(*kept.shape, seed=1).float())


def test_a_default_device_without_memory_does_not_reach_the_tables_of_others():
    with torch.device("meta"):
        assert SphericalTransform(10, 22).cell_index.is_meta
    field = random(10, 22).float()
    transform = SphericalTransform(10, 22)
    assert torch.equal(transform.restore(transform.arrange(field[..., None]))[..., 0], field)
    assert torch.isfinite(transform.analysis(field)).all()


@pytest.mark.slow
def test_compiled_transform_is_one_graph_with_the_same_result_and_gradient():
    transform = SphericalTransform(16, 32)

    def smooth(x):
        c = transform.analysis(x)
        return transform.synthesis(c * torch.sigmoid(c)).square()

    compiled = torch.compile(smooth, fullgraph=True)
    field = random(16, 32, 3).float()
    results = []
    for function in (smooth, compiled):
        x = field.clone().requires_grad_()
        y = function(x)
        y.sum().backward()
        results.append((y.detach(), x.grad))
    assert_close(results[1], results[0], rtol=1e-5, atol=1e-5)


def test_nothing_complex_is_computed_where_products_do_the_work():
    from torch.utils._python_dispatch import TorchDispatchMode

    kinds = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            out = function(*arguments, **(keywords or {}))
            kinds.update(t.dtype for t in (out if isinstance(out, tuple | list) else [out]) if torch.is_tensor(t))
            return out

    transform = SphericalTransform(16, 32)
    field = random(16, 32, 2).float().requires_grad_()
    with Watch():
        transform.synthesis(transform.analysis(field)).sum().backward()
    assert torch.float32 in kinds
    assert not any(kind.is_complex for kind in kinds)


def test_precision_of_the_process_does_not_reach_the_transform():
    transform = SphericalTransform(32, 64)
    field = random(32, 64, 8).float()
    expected = transform.analysis(field)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        found = transform.analysis(field)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(found, expected)


def test_half_precision_leaves_tables_and_result_in_float32():
    transform = SphericalTransform(16, 32)
    field = random(16, 32, 2).float()
    expected = transform.analysis(field)
    assert torch.equal(transform.bfloat16().analysis(field), expected)
    assert transform.analysis_table.dtype == torch.float32
    # from float64 anew, not from the rounded tables
    c = coefficients(16)
    assert_close(transform.double().analysis(transform.synthesis(c)), c, rtol=0, atol=1e-12)


def test_tables_are_shared_by_all_transforms_of_a_grid_and_no_part_of_a_checkpoint():
    first, second = SphericalTransform(20, 40), SphericalTransform(20, 40)
    copied = copy.deepcopy(torch.nn.Sequential(first))[0]
    for name, table in first.named_buffers():
        for other in (second, copied):
            assert other.get_buffer(name).data_ptr() == table.data_ptr(), name
    assert not first.state_dict()
    other_grid = SphericalTransform(20, 40, "equiangular")
    assert other_grid.analysis_table.data_ptr() != first.analysis_table.data_ptr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((16, 32, "octahedral"), "Expected a grid among"),
        ((16, 3), "at least 4 longitudes, got 3"),
        ((16, 32, "gaussian", False, 18), "between 1 and 17 degrees for 32 longitudes, got 18"),
        ((16, 32, "gaussian", False, 0), "between 1 and 17 degrees"),
        ((1, 32), "at least 2 latitudes, got 1"),
    ],
)
def test_impossible_grids_are_refused(arguments, message):
    for kind in (SphericalTransform, VectorTransform):
        with pytest.raises(ValueError, match=message):
            kind(*arguments)


def test_fields_of_another_shape_are_refused():
    transform = SphericalTransform(16, 32)
    with pytest.raises(ValueError, match=r"Expected a field of shape \(16, 32, '\*channels'\), got \(32, 16, 2\)"):
        transform.analysis(torch.zeros(32, 16, 2))
    with pytest.raises(ValueError, match=r"Expected coefficients of shape \(16, 16, 2, '\*channels'\)"):
        transform.synthesis(torch.zeros(16, 15, 2))
