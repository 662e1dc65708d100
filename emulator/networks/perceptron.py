"""One or two linear layers with GELU between them, on states with the channels last, as one compiled operation."""

import torch

from emulator.kernels import perceptron as native


class Perceptron(torch.autograd.Function):
    """`(cell, batch, in)` float32, contiguous, in the processor's memory -> `(cell, batch, out)`; see `perceptron`."""

    @staticmethod
    def forward(ctx, x, first, first_bias, second, second_bias, residual, neighbours, half):
        keep = any(ctx.needs_input_grad)
        turned = None if second is None else second.t()
        y, before = native.forward(x, _by_tap(first), first_bias, turned, second_bias, residual, neighbours, half, keep)
        ctx.save_for_backward(x, before, first, second)
        ctx.neighbours, ctx.half = neighbours, half
        ctx.biased = first_bias is not None, second_bias is not None
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        x, before, first, second = ctx.saved_tensors
        turned = None if second is None else second.t()
        g_x, g_first, g_first_bias, g_second, g_second_bias = native.backward(
            g.contiguous(), x, before, _by_tap(first), turned, ctx.neighbours, ctx.half, ctx.needs_input_grad[0]
        )
        return (
            g_x,
            g_first.permute(2, 1, 0).reshape(first.shape),
            g_first_bias if ctx.biased[0] else None,
            None if g_second is None else g_second.t(),
            g_second_bias if ctx.biased[1] else None,
            g if ctx.needs_input_grad[5] else None,
            None,
            None,
        )


def _by_tap(weight):
    """`(out, in, ...)` -> `(tap, in, out)`, a view."""
    return weight.reshape(*weight.shape[:2], -1).permute(2, 1, 0)


def serves(x: torch.Tensor, weight: torch.Tensor, half: bool) -> bool:
    """Whether `perceptron` takes `x` and the weights, with bfloat16 products if `half`."""
    return not torch.compiler.is_compiling() and native.serves(x, weight, half)


def halved(x: torch.Tensor, precision: str) -> bool:
    """Whether products of `x` are to be of bfloat16: by a layer's own precision or by autocast."""
    if precision == "bfloat16":
        return True
    kind = x.device.type
    return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16


def perceptron(
    x: torch.Tensor,
    first: torch.Tensor,
    first_bias: torch.Tensor | None,
    second: torch.Tensor | None = None,
    second_bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    neighbours: native.Neighbours | None = None,
    half: bool = False,
) -> torch.Tensor:
    """`(..., in)` -> `(..., out)`: a linear layer, or two with GELU between them, added to a residual where there is one.

    Weights are `(out, in)` as torch's, the first ones `(hidden, in, *stencil)` where cells take in their `neighbours`; then
    x is `(cell, batch, in)`. `half`: products of numbers rounded to bfloat16, summed in float32. What enters and leaves is
    float32.
    """
    shape = x.shape
    if x.ndim != 3:
        x = x.reshape(-1, 1, shape[-1])
    onto = None if residual is None else residual.to(x.dtype).contiguous()
    y = Perceptron.apply(x.contiguous(), first, first_bias, second, second_bias, onto, neighbours, half)
    return y.view(*shape[:-1], y.shape[-1])
