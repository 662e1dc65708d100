"""Addition in float32 whose rounding has no bias."""

import math

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from emulator.conservation import rounding


@settings(max_examples=60, deadline=None)
@given(start=st.floats(1e-3, 1e5), part=st.floats(-3, 3), seed=st.integers(0, 99))
def test_mean_of_the_increment_survives(start, part, seed):
    """Increments of a fraction of a unit in the last place arrive on average; plain addition loses or doubles them."""
    # At a power of two the unit below is half the one above, and a field that is that number everywhere keeps a bias.
    assume(0.5001 < math.frexp(start)[0] < 0.9999)
    field = torch.full((1, 4, 32, 64), start)
    if seed:
        field = field * (1 + 0.3 * torch.rand(field.shape, generator=torch.Generator().manual_seed(seed)))
    unit = torch.nextafter(field[:, :1, :1, :1], torch.tensor(torch.inf)) - field[:, :1, :1, :1]
    increment = (part * unit).reshape(1, 1, 1, 1)
    added = rounding.add(field, increment).double() - field.double()
    error = float((added.mean() - increment.double()) / unit.double())
    assert abs(error) < 0.03
    spread = float((added - increment.double()).abs().max() / unit.double())
    assert spread < 4.1  # two units, and the unit doubles at a power of two


def test_plain_addition_is_biased():
    field = torch.full((1, 4, 32, 64), 250.0)
    increment = torch.tensor(6e-6)  # less than half a unit in the last place of 250 K
    assert torch.equal(field + increment, field)
    kept = float((rounding.add(field, increment).double() - field.double()).mean())
    assert abs(kept / 6e-6 - 1) < 0.01


def test_nothing_added_is_nothing_changed():
    field = torch.randn(2, 5, 8, 16, generator=torch.Generator().manual_seed(0)) * 1e3
    field[0, 0] = 0
    torch.testing.assert_close(rounding.add(field, torch.zeros(())), field, rtol=0, atol=0)


def test_float64_is_plain_and_gradients_pass():
    field = torch.randn(2, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(rounding.add(field, field / 3), field + field / 3, rtol=0, atol=0)
    single, increment = field.float().requires_grad_(), torch.tensor(0.1, requires_grad=True)
    rounding.add(single, increment).sum().backward()
    torch.testing.assert_close(single.grad, torch.ones_like(single))
    torch.testing.assert_close(float(increment.grad), float(single.numel()))


def test_pattern_is_that_of_the_place_not_of_the_batch():
    field = torch.full((3, 2, 8, 16), 250.0)
    added = rounding.add(field, torch.tensor(6e-6))
    torch.testing.assert_close(added[1], added[0], rtol=0, atol=0)
    torch.testing.assert_close(rounding.add(field[2:], torch.tensor(6e-6))[0], added[2], rtol=0, atol=0)
    assert len(added.unique()) == 2
