"""Attention in windows is that of each cell to the cells that its window holds, round the globe and over its poles."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from emulator.networks.edges import Edges
from emulator.networks.windows import Moves, Windows, far, fitting, near, shifted

GLOBE, REGION, ZONE = Edges(), Edges(round=False, open=True), Edges(open=True)


def fields(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def bias(down, along):
    """A function of rows and columns between two cells that no symmetry hides."""
    return 0.3 * down - 0.2 * along + 0.1 * down * along


def attended(windows, maps):
    """`(batch, channel, row, column)`, by the module, of maps of queries, keys and values with two heads."""
    parts = [windows.from_map(x).unflatten(-1, (1, 2, -1)) for x in maps]
    table = bias(*torch.from_numpy(windows.offsets.T.astype(float)))[:, None]
    return windows.to_map(windows.attend(parts, windows.biases(table), 0.7))


def one_by_one(maps, keys_of):
    """The same, cell by cell. `keys_of(row, column)`: of every key the row, the column, and rows and columns from it."""
    q, k, v = (x.unflatten(1, (2, -1)) for x in maps)
    y = torch.empty_like(q)
    for row in range(q.shape[3]):
        for column in range(q.shape[4]):
            rows, columns, down, along = np.array(keys_of(row, column)).T
            logits = 0.7 * torch.einsum("bhc,bhcn->bhn", q[..., row, column], k[..., rows, columns])
            logits = logits + torch.from_numpy(bias(down, along))
            y[..., row, column] = torch.einsum("bhn,bhcn->bhc", logits.softmax(-1), v[..., rows, columns])
    return y.flatten(1, 2)


def span(number, size, shift, cells):
    """Where the window of a cell begins and ends among cells that go on, and whether an end cuts it off."""
    if size >= cells:
        return 0, cells, False
    start = (number - shift) // size * size + shift
    return start, start + size, start < 0 or start + size > cells


def window_of(shape, window, shift, edges):
    """Of a cell the keys as the sphere has them: rows beyond a pole lie half a turn away."""
    (height, width), side = shape, fitting(shape[1], window, not edges.round)

    def keys(row, column):
        top, bottom, cut = span(row, window, shift[0], height)
        left, right, _ = span(column, side, shift[1], width)
        if cut and (edges.open or not shift[0]):
            top, bottom = max(top, 0), min(bottom, height)
        elif top < 0:
            top, bottom = -bottom, bottom  # as far beyond the pole as on this side
        elif bottom > height:
            bottom = 2 * height - top
        if not edges.round:
            left, right = max(left, 0), min(right, width)
        found = []
        for r in range(top, bottom):
            beyond = r < 0 or r >= height
            place = -1 - r if r < 0 else 2 * height - 1 - r if beyond else r
            for c in range(left, right):
                along = column - c
                if edges.round and side == width:
                    along = (along + side // 2) % side - side // 2
                found.append((place, (c + beyond * width // 2) % width, row - r, along))
        return found

    return keys


@pytest.mark.parametrize("edges", [GLOBE, REGION, ZONE], ids=["globe", "region", "zone"])
@pytest.mark.parametrize(
    ("shape", "window"), [((8, 8), 4), ((6, 6), 3), ((7, 10), 4), ((4, 8), 4), ((5, 4), 9)], ids=lambda v: str(v)
)
def test_every_cell_attends_to_its_window(shape, window, edges):
    maps = [fields(2, 4, *shape, seed=n) for n in range(3)]
    plain, moved = shifted(shape, window, edges)
    side = fitting(shape[1], window, not edges.round)
    half = window // 2 * (window < shape[0]), side // 2 * (side < shape[1])
    for windows, shift in ((plain, (0, 0)), (moved, half)):
        found = attended(windows.double(), maps)
        assert_close(found, one_by_one(maps, window_of(shape, window, shift, edges)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("shape", "members"), [((8, 12), 4), ((7, 6), 3), ((3, 4), 9)], ids=lambda v: str(v))
def test_distant_cells_attend_at_equal_distances_and_any_turn_commutes(shape, members):
    (height, width), side = shape, fitting(shape[1], members, False)
    windows = Windows(shape, far(height, members), far(width, side, False)).double()
    steps = -(-height // min(members, height)), width // side

    def keys(row, column):
        return [
            (r, c, (row - r) // steps[0], ((column - c) // steps[1] + side // 2) % side - side // 2)
            for r in range(row % steps[0], height, steps[0])
            for c in range(column % steps[1], width, steps[1])
        ]

    maps = [fields(2, 4, *shape, seed=n) for n in range(3)]
    found = attended(windows, maps)
    assert_close(found, one_by_one(maps, keys), rtol=0, atol=1e-12)
    assert_close(attended(windows, [x.roll(1, -1) for x in maps]), found.roll(1, -1), rtol=0, atol=1e-12)


def test_turns_by_whole_windows_commute_where_windows_reach_over_the_poles():
    maps = [fields(1, 4, 8, 16, seed=n) for n in range(3)]
    moved = shifted((8, 16), 4, GLOBE)[1].double()
    found = attended(moved, maps)
    for turn in (4, 8):
        assert_close(attended(moved, [x.roll(turn, -1) for x in maps]), found.roll(turn, -1), rtol=0, atol=1e-12)
    assert (attended(moved, [x.roll(1, -1) for x in maps]) - found.roll(1, -1)).abs().max() > 1e-2


def test_cells_go_from_window_to_window_and_gradients_back():
    plain, moved = shifted((6, 8), 4, GLOBE)
    x = fields(2, 3, 6, 8).requires_grad_()
    tokens = Moves(plain, moved)(plain.from_map(x))
    assert torch.equal(tokens, moved.from_map(x)) and torch.equal(moved.to_map(tokens), x)
    weight = fields(2, 3, 6, 8, seed=1)
    (moved.to_map(tokens) * weight).sum().backward()
    assert torch.equal(x.grad, weight)


@pytest.mark.parametrize("width", [4, 3])
def test_gradients_of_attention_over_the_poles_are_right(width):
    """Of an odd number of columns half a turn is not its own inverse."""
    moved = shifted((4, width), 2, GLOBE)[1].double()
    shape = 4 * width, 1, 1, 1, 2
    values = [fields(*shape, seed=n).requires_grad_() for n in range(3)]
    table = fields(len(moved.offsets), 1, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *given: moved.attend(given[:3], moved.biases(given[3]), 0.7), (*values, table)
    )


def test_a_window_that_does_not_go_round_without_a_rest_is_made_smaller():
    assert [fitting(24, window, False) for window in (1, 5, 6, 7, 30)] == [1, 4, 6, 6, 24]
    assert fitting(24, 7, True) == 7
    with pytest.raises(ValueError, match="cannot reshape"):
        near(10, 4, edge=False)
