"""The transform of a field of which each process holds some rows is that of the whole field, and so are its gradients."""

import functools

import numpy as np
import pytest
import torch
from together import together
from torch.testing import assert_close

from emulator.kernels import library
from emulator.parallel.space import Space
from emulator.sphere.bands import folds
from emulator.sphere.tables import Plan, own_rows
from emulator.sphere.transform import SphericalTransform, VectorTransform, harmonics

# rows that do not divide, an equator, poles, the last order that longitudes hold, one order for a process, a prime factor
GRIDS = [
    (18, 36, "gaussian", False, None),
    (13, 24, "equiangular", True, 12),
    (16, 40, "equiangular", False, 15),
    (8, 14, "gaussian", False, 8),
    (7, 16, "gaussian", False, 7),
    (11, 22, "gaussian", False, 9),
]
KINDS = ["compiled", "torch", "float64"]
CASES = [(grid, kind) for grid in GRIDS for kind in KINDS]
CHANNELS = (2, 5)


class _Alone(Space):
    """A process that is one of several, where nothing is exchanged."""

    def __init__(self, rank, size):
        super().__init__()
        self.rank, self.size = rank, size


def numbers(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def both_ways(grid, kind, space=None):
    """Coefficients, field and both gradients of one transform there and one back, and harmonics."""
    if kind == "torch":
        with library.set_aside():
            return both_ways(grid, "compiled", space)
    transform = SphericalTransform(*grid) if space is None else SphericalTransform(*grid, space=space)
    transform = transform.double() if kind == "float64" else transform
    dtype, lmax = transform.analysis_table.dtype, transform.lmax
    field = numbers(*grid[:2], *CHANNELS)[transform.band].to(dtype).requires_grad_()
    # weights of coefficients l < m count nothing: they are zero there
    weights = numbers(lmax, lmax, 2, *CHANNELS, seed=1).to(dtype)
    back = numbers(*grid[:2], *CHANNELS, seed=2)[transform.band].to(dtype)
    cells = transform.arrange(field)
    packed, kept = transform.analyse_besides(cells)
    c = transform.unpack(packed)
    assert_close(c, transform.analysis(field), rtol=0, atol=2e-6)
    synthesised = transform.restore(transform.synthesise(packed.square()))
    ((c * weights).sum() + (synthesised * back).sum() + transform.restore(kept).pow(3).sum()).backward()
    degrees = torch.arange(lmax)
    inside = (degrees[:, None] >= degrees)[..., None, None, None].to(dtype)
    wanted = (weights * inside).requires_grad_()
    again = transform.synthesis(wanted)
    (again * back).sum().backward()
    at = transform.restore(harmonics(transform, 7))
    return tuple(x.detach() for x in (c, synthesised, field.grad, again, wanted.grad * inside, at))


def in_bands(space):
    return [both_ways(grid, kind, space) for grid, kind in CASES], _winds(space)


def _winds(space):
    transform = VectorTransform(*GRIDS[0], space=space).double()
    u, v = (numbers(18, 36, 2, seed=seed)[transform.band] for seed in (0, 1))
    parts = transform.analysis(u, v)
    return *parts, *transform.synthesis(*parts)


@functools.cache
def results(size):
    return together(size, in_bands)


def of_all(parts):
    """Rows one after the other; coefficients, which other processes have as zeros, added up."""
    c, synthesised, gradient, again, by_coefficient, at = zip(*parts, strict=True)
    return sum(c), torch.cat(synthesised), torch.cat(gradient), torch.cat(again), sum(by_coefficient), torch.cat(at)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(("grid", "kind"), CASES)
def test_the_transform_of_bands_is_that_of_the_whole(size, grid, kind):
    found = of_all([cases[CASES.index((grid, kind))] for cases, _ in results(size)])
    for value, expected in zip(found, both_ways(grid, kind), strict=True):
        tolerance = (1e-12 if kind == "float64" else 1e-6) * float(expected.abs().max())
        assert_close(value, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("size", [2, 4])
def test_winds_in_bands_are_those_of_the_whole(size):
    parts = list(zip(*(winds for _, winds in results(size)), strict=True))
    expected = _winds(Space())
    for n, (value, wanted) in enumerate(zip(parts, expected, strict=True)):
        assert_close(sum(value) if n < 2 else torch.cat(value), wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("lmax", [16, 31, 48, 96])
def test_every_order_and_row_is_one_process_s_and_shares_are_even(lmax, size):
    plans = [Plan(lmax + 1, 2 * lmax, lmax, 8, rank=rank, size=size) for rank in range(size)]
    orders = [m for plan in plans for block in plan.bounds for m in range(*block)]
    assert sorted(orders) == list(range(lmax))
    assert all(start % 2 == 0 for plan in plans for start, _ in plan.bounds)
    rows = [sorted(own_rows(plan)) for plan in plans]
    assert [len(own) for own in rows] == [len(part) for part in np.array_split(range(lmax + 1), size)]
    assert all(own == list(range(len(own))) for own in rows)
    counts = [sum(lmax - m for block in plan.bounds for m in range(*block)) for plan in plans]
    if lmax >= 8 * size:
        assert max(counts) <= 1.2 * lmax * (lmax + 1) / 2 / size
    whole = folds(plans[0])
    assert sum(fold.half.stop - fold.half.start for fold in whole) == plans[0].half


@pytest.mark.parametrize(("grid", "size"), [((8, 16, "gaussian", False, 5), 4), ((3, 16, "equiangular", True, 8), 4)])
def test_more_processes_than_rows_or_orders_are_refused(grid, size):
    with pytest.raises(ValueError, match=r"Expected at least (7 degrees|a row)"):
        SphericalTransform(*grid, space=_Alone(0, size))
