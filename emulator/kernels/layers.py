"""Pointwise layers, gradients and orders of cells for which torch's kernels are slow."""

import torch

from emulator.kernels import library
from emulator.kernels.compiled import Layout

_Gelu = library.task("gelu", "x gradient to", "", "count")
_Moments = library.task(
    "moments", "x scale shift to mean rstd sums factors", "summing", "cells columns channels", double="epsilon"
)
_Rearrange = library.task("rearrange", "maps cells cell", "out", "count batch channels")
_Norm = library.task("norm", "x gradient scale mean rstd to g_scale g_shift sums factors", "summing", "cells columns")

_RowNorm = library.task(
    "row_norm", "x onto modulation gradient to moments sums", "", "batch rows width", double="epsilon"
)


def gelu_backward(gradient: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Gradient of GELU at `x`, within 2e-7 of the one that the error function gives. Both contiguous."""
    to = torch.empty_like(x)
    library.call("emulator_gelu_backward", _Gelu(x.data_ptr(), gradient.data_ptr(), to.data_ptr(), count=x.numel()))
    return to


def norm_backward(gradient, x, scale, mean, rstd, between=None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, scale and shift of an instance norm of `(cell, column)`, all contiguous.

    `between`: from the gradients of scale and shift to what the gradient and x are multiplied by and what is added for the
    gradient of x, `(column,)` each, where these cells are not all that the norm has been taken over.
    """
    cells, columns = x.shape
    results = torch.empty_like(x), torch.empty_like(scale), torch.empty_like(scale)
    room = x.new_empty(-(-cells // Layout.NORM_PORTION), 2, columns), x.new_empty(3, columns)
    pointers = (tensor.data_ptr() for tensor in (x, gradient, scale, mean, rstd, *results, *room))
    task = _Norm(*pointers, cells=cells, columns=columns)
    library.call("emulator_norm_sums", task)
    if between is not None:
        torch.stack(between(*results[1:]), out=room[1])
    library.call("emulator_norm_gradient", task)
    return results


def norm_forward(x, scale, shift, eps: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Instance norm of `(cell, column)`: the result, and of every column mean and 1 / standard deviation; all contiguous.

    `scale`, `shift`: of every channel, in which the columns of a batch take turns.
    """
    cells, columns = x.shape
    to, mean, rstd = library.empty(cells, columns), library.empty(columns), library.empty(columns)
    sums, factors = library.empty(-(-cells // Layout.NORM_PORTION), 2, columns), library.empty(2, columns)
    pointers = (tensor.data_ptr() for tensor in (x, scale, shift, to, mean, rstd, sums, factors))
    sizes = {"cells": cells, "columns": columns, "channels": len(scale)}
    library.call("emulator_norm_forward", _Moments(*pointers, epsilon=eps, **sizes), scale, shift)
    return to, mean, rstd


def row_norm_forward(x, modulation, onto, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Layer norm of `(batch, row, width)`, scaled, shifted and added to `onto`, and the moments of every row.

    `modulation`: shift, then scale of every sample, `(batch, 2 width)`; all contiguous, widths in whole vectors.
    """
    batch, rows, width = x.shape
    to, moments = library.empty(*x.shape), library.empty(batch, rows, 2)
    pointers = (tensor.data_ptr() for tensor in (x, onto, modulation))
    task = _RowNorm(*pointers, None, to.data_ptr(), moments.data_ptr(), None, batch, rows, width, eps)
    library.call("emulator_row_norm", task, modulation)
    return to, moments


def row_norm_backward(gradient, x, modulation, moments) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of `x` and of the modulation; sums are always in the same order."""
    batch, rows, width = x.shape
    g_x, sums = torch.empty_like(x), x.new_empty(batch, -(-rows // Layout.NORM_PORTION), 2 * width)
    pointers = (tensor.data_ptr() for tensor in (modulation, gradient, g_x, moments, sums))
    library.call("emulator_row_norm", _RowNorm(x.data_ptr(), None, *pointers, batch, rows, width))
    return g_x, sums.sum(1)


def maps_to_cells(maps: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
    """`(batch, channel, *space)` as `(cell, batch, channel)`; `cell`: at every place of a map, `(place,)` int64."""
    batch, channels = maps.shape[:2]
    cells = library.empty(len(cell), batch, channels)
    _rearrange(maps, cells, cell, False)
    return cells


def cells_to_maps(cells: torch.Tensor, cell: torch.Tensor, space: tuple[int, ...]) -> torch.Tensor:
    """Inverse of `maps_to_cells`."""
    maps = library.empty(*cells.shape[1:], *space)
    _rearrange(maps, cells, cell, True)
    return maps


def _rearrange(maps, cells, cell, out):
    pointers = (tensor.data_ptr() for tensor in (maps, cells, cell))
    sizes = dict(zip(("count", "batch", "channels"), cells.shape, strict=True))
    library.call("emulator_rearrange", _Rearrange(*pointers, out=out, **sizes), cell)
