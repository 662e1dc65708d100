"""Convolutions of large stencils at every few cells, as products: rows of a stencil with all cells, then sums along rows.

oneDNN takes eight output channels at a time where it could take sixteen, and for stencils of 16 cells half as long again.
"""

import torch


def convolved(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: int) -> torch.Tensor:
    """As `torch.nn.functional.conv2d` of `(batch, in, row, column)` and weights `(out, in, size, size)`.

    Channels are last in memory. The stride divides the size, and rows and columns.
    """
    outputs, inputs, size, _ = weight.shape
    n = size // stride
    cells = x.unflatten(3, (-1, stride)).unflatten(2, (-1, stride)).permute(0, 2, 4, 3, 5, 1).flatten(3)
    weight = weight.view(outputs, inputs, n, stride, n, stride).permute(2, 3, 5, 1, 4, 0)
    y = _Stencil.apply(cells.contiguous(), weight.reshape(n, stride**2 * inputs, n * outputs))
    return (y if bias is None else y + bias).permute(0, 3, 1, 2)


class _Stencil(torch.autograd.Function):
    """Cells `(batch, row, column, in)` and weights `(n, in, n * out)` of a stencil -> `(batch, row, column, out)`."""

    @staticmethod
    def forward(ctx, cells, weight):
        ctx.save_for_backward(cells, weight)
        products, diagonals, taken = _room(cells, weight)
        for product, rows in zip(products, taken, strict=True):
            torch.mm(rows[0], weight[0], out=product)
            for part, tap in zip(rows[1:], weight[1:], strict=True):
                product.addmm_(part, tap)
        return diagonals.sum(3)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        cells, weight = ctx.saved_tensors
        products, diagonals, taken = _room(cells, weight)
        products.zero_()
        diagonals.copy_(g[:, :, :, None])
        g_cells = g_weight = None
        if ctx.needs_input_grad[1]:
            g_weight = torch.zeros_like(weight)
            for product, rows in zip(products, taken, strict=True):
                for part, to in zip(rows, g_weight, strict=True):
                    to.addmm_(part.t(), product)
        if ctx.needs_input_grad[0]:
            g_cells = torch.zeros_like(cells)
            for product, rows in zip(products, _rows(g_cells, len(weight)), strict=True):
                for to, tap in zip(rows, weight, strict=True):
                    to.addmm_(product, tap.t())
        return g_cells, g_weight


def _rows(cells, n):
    """Of every sample, for each of a stencil's rows, all cells of the map's rows that it meets: `(cell, in)` each."""
    whole = cells.shape[1]
    return [[sample[r : whole - n + 1 + r].flatten(0, 1) for r in range(n)] for sample in cells]


def _room(cells, weight):
    """Room for products of rows of a stencil `(batch, cell, n * out)`, what belongs together in it, and the cells' rows."""
    (batch, whole, columns, _), n = cells.shape, len(weight)
    rows, each = whole - n + 1, weight.shape[2] // n
    products = cells.new_empty(batch, rows * columns, n * each)
    steps = products.stride(0), columns * n * each, n * each, (n + 1) * each, 1
    diagonals = products.as_strided((batch, rows, columns - n + 1, n, each), steps)  # the next column's next tap
    return products, diagonals, _rows(cells, n)
