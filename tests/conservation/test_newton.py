"""The small systems of Newton's method: arrays and tensors, singular ones, and elements that stop by themselves."""

import typing

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.conservation import newton


def double(values):
    return torch.tensor(values, dtype=torch.float64)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 9999), st.booleans())
def test_solutions_in_units_of_any_size(count, batch, seed, triangular):
    random = np.random.default_rng(seed)
    root = random.standard_normal((batch, count, count))
    matrix = root @ root.swapaxes(1, 2) + np.eye(count)
    matrix = np.tril(matrix) if triangular else matrix
    units = 10.0 ** random.uniform(-8, 8, (batch, count))
    matrix = matrix * units[:, :, None] * units[:, None]
    solution = random.standard_normal((batch, count)) / units
    target = (matrix @ solution[:, :, None])[:, :, 0]
    np.testing.assert_allclose(newton.solve(matrix, target) * units, solution * units, atol=1e-8)
    tensors = newton.solve(torch.from_numpy(matrix), torch.from_numpy(target))
    np.testing.assert_allclose(tensors.numpy() * units, solution * units, atol=1e-8)


@pytest.mark.parametrize("kind", [np.array, double])
def test_a_budget_that_nothing_changes_stays_and_the_others_are_solved(kind):
    matrix = kind([[[2.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 4.0]]])
    found = newton.solve(matrix, kind([[2.0, 5.0, 2.0]]))
    np.testing.assert_allclose(np.asarray(found), [[1.0, 0.0, 0.5]], rtol=1e-12)


@pytest.mark.parametrize("kind", [np.array, double])
def test_equal_rows_share_and_numbers_that_are_none_stay_where_they_are(kind):
    singular = kind([[[1.0, 1.0], [1.0, 1.0]], [[np.nan, 1.0], [1.0, 1.0]], [[2.0, 0.0], [0.0, 2.0]]])
    found = np.asarray(newton.solve(singular, kind([[1.0, 1.0], [1.0, 1.0], [2.0, 4.0]])))
    np.testing.assert_allclose(found[0].sum(), 1.0, rtol=1e-2)
    assert np.isnan(found[1]).any()
    np.testing.assert_allclose(found[2], [1.0, 2.0], rtol=1e-12)


class Square(typing.NamedTuple):
    """Residual of `y^2 = target`."""

    multipliers: object
    residual: object


@pytest.mark.parametrize("kind", [np.array, double])
def test_every_element_stops_by_itself(kind):
    """A root is that of the element alone, one that has no root is told, and one that is no number does not
    run."""
    target = kind([[4.0], [9.0], [-1.0], [np.nan]])

    def evaluate(y):
        return Square(y, y * y - target)

    start = evaluate(kind([[1.0], [3.0], [1.7], [1.0]]))
    found, open_ = newton.iterate(
        start, lambda t: -t.residual / (2 * t.multipliers), evaluate, abs(target), torch.float64
    )
    np.testing.assert_allclose(np.asarray(found.multipliers)[:2], [[2.0], [3.0]], rtol=1e-12)
    assert np.asarray(open_).tolist() == [False, False, True, True]
    assert float(found.multipliers[3, 0]) == 1.0
