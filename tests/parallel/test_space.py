"""How the bands of one state meet: the parts are the whole, and every exchange carries gradients back as its transpose."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from together import together

from emulator.parallel.space import Fetch, Space, even_bounds

ROWS, COLUMNS = 11, 7  # neither divides among 2 or 4
SIZES = [2, 4]


def field(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def needed_rows(rank, size, margin=2):
    """Of a band the rows around it too; beyond the first and the last those on this side again, as beyond a pole."""
    start, stop = even_bounds(ROWS, size)[rank : rank + 2]
    rows = np.arange(start - margin, stop + margin)
    return np.where(rows < 0, -1 - rows, np.where(rows >= ROWS, 2 * ROWS - 1 - rows, rows))


def meet(space):
    """Everything that a space does with the bands of a field, and the gradients."""
    x = field(ROWS, COLUMNS, 3)
    band = x[space.band(ROWS)].clone().requires_grad_()
    out = {"whole": space.whole(band, ROWS, 0), "highest": space.highest(band.amax())}
    out["total"] = space.total(band.square().sum())
    inner, outer = even_bounds(COLUMNS, space.size), space.bounds(ROWS)
    turned = space.turned(band, inner, outer)
    out["turned"], out["back"] = turned.detach(), space.turned_back(turned, inner, outer).detach()
    fetch = Fetch(space, outer, lambda rank: needed_rows(rank, space.size))
    fetched = fetch(band)
    out["fetched"] = fetched.detach()
    weights = field(ROWS, COLUMNS, 3)[:, inner[space.rank] : inner[space.rank + 1]] + 1
    # the loss is the sum of the processes' parts, each of which takes in the total
    loss = (turned * weights).sum() + fetched.pow(3).sum() + out["total"].sqrt() * (space.rank + 1)
    loss.backward()
    out["total"], out["gradient"] = out["total"].detach(), space.whole(band.grad, ROWS, 0)
    return out


@pytest.mark.parametrize("size", SIZES)
def test_parts_are_the_whole_and_gradients_those_of_one_process(size):
    x = field(ROWS, COLUMNS, 3).requires_grad_()
    rows = torch.from_numpy(np.concatenate([needed_rows(rank, size) for rank in range(size)]))
    loss = (x * (field(ROWS, COLUMNS, 3) + 1)).sum() + x[rows].pow(3).sum()
    loss = loss + x.square().sum().sqrt() * sum(range(1, size + 1))
    loss.backward()
    results = together(size, meet)
    inner = even_bounds(COLUMNS, size)
    for rank, out in enumerate(results):
        torch.testing.assert_close(out["whole"], x.detach(), rtol=0, atol=0)
        torch.testing.assert_close(out["highest"], x.detach().amax(), rtol=0, atol=0)
        torch.testing.assert_close(out["total"], x.detach().square().sum(), rtol=1e-14, atol=0)
        torch.testing.assert_close(out["total"], results[0]["total"], rtol=0, atol=0)
        torch.testing.assert_close(out["turned"], x.detach()[:, inner[rank] : inner[rank + 1]], rtol=0, atol=0)
        band = x.detach()[slice(*even_bounds(ROWS, size)[rank : rank + 2])]
        torch.testing.assert_close(out["back"], band, rtol=0, atol=0)
        torch.testing.assert_close(out["fetched"], x.detach()[needed_rows(rank, size)], rtol=0, atol=0)
        torch.testing.assert_close(out["gradient"], x.grad, rtol=1e-12, atol=1e-12)


def test_one_process_changes_nothing():
    space, x = Space(), field(ROWS, 3)
    assert space.total(x) is x and space.highest(x) is x and space.whole(x, ROWS, 0) is x
    assert space.turned(x, (0, 3), (0, ROWS)) is x and space.band(ROWS) == slice(0, ROWS)
    rows = needed_rows(0, 1)
    torch.testing.assert_close(Fetch(space, (0, ROWS), lambda rank: rows)(x), x[rows], rtol=0, atol=0)


@given(st.integers(1, 12), st.integers(0, 40))
def test_shares_differ_by_one_at_most(parts, more):
    bounds = even_bounds(parts + more, parts)
    sizes = np.diff(bounds)
    assert bounds[0] == 0 and bounds[-1] == parts + more and sizes.max() - sizes.min() <= 1


def test_fewer_rows_than_processes_are_refused():
    space = Space()
    space.size = 5
    with pytest.raises(ValueError, match="each of 5 processes, got 4 rows"):
        space.bounds(4)
