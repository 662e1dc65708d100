"""Addition without a rounding bias, so that float32 fields close a budget far below one unit in the last place.

A uniform increment added to float32 numbers of one binade is itself rounded to a multiple of their unit in the last
place: 1.5e-5 K at 250 K, which is 0.007 W m-2 over a six-hour step, the same in every cell. A fixed pattern of offsets
within half a unit, added before rounding, makes the errors differ from cell to cell with mean zero (non-subtractive
dither; Lipshitz, Wannamaker and Vanderkooy 1992). The pattern depends on the position in the field alone, not on the
batch, so results do not depend on how a batch is split.
"""

import functools

import torch
from torch import Tensor

from emulator.kernels import columns as native
from emulator.kernels import library

GOLDEN_STEP = 2654435769  # the golden ratio's share of 2^32, odd, so that 2^32 cells have different offsets
EXPONENT_BITS = 0x7F800000  # of an IEEE float32
MANTISSA_UNIT = 2.0**-23


def add(field: Tensor, increment: Tensor) -> Tensor:
    """`field + increment` with the rounding of float32 made unbiased; plain addition for float64.

    An increment of zero leaves the field as it is. Shapes broadcast to that of `field`, `(batch, ...)`.
    """
    if field.dtype != torch.float32:
        return field + increment
    if library.takes(field, increment):
        pattern = pattern_of(tuple(field.shape[1:]), field.device)
        traced = torch.is_grad_enabled() and (field.requires_grad or increment.requires_grad)
        return _Dither.apply(field, increment, pattern) if traced else native.dither(field, increment, pattern)
    unit = (field.detach().view(torch.int32) & EXPONENT_BITS).view(torch.float32)
    pattern = pattern_of(tuple(field.shape[1:]), field.device)
    return field + torch.addcmul(increment, unit, pattern)


@functools.lru_cache(maxsize=32)
def pattern_of(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Weyl sequence within +-0.499 units in the last place of a number in [1, 2), as an additive recurrence over cells.

    In whole numbers of 32 bits, so that compiled kernels can form it on the way.
    """
    index = torch.arange(1, torch.Size(shape).numel() + 1, dtype=torch.int64)
    wrapped = (index * GOLDEN_STEP + 2**31) % 2**32 - 2**31
    values = wrapped.to(torch.float32) * (0.998 * 2.0**-32 * MANTISSA_UNIT)
    return values.reshape(shape).to(device)


class _Dither(torch.autograd.Function):
    """The same sum in one pass."""

    @staticmethod
    def forward(ctx, field, increment, pattern):
        ctx.shape = increment.shape
        return native.dither(field, increment, pattern)

    @staticmethod
    def backward(ctx, g):
        return g, g.sum_to_size(ctx.shape), None
