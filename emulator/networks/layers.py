"""Pointwise layers for states with the channels last: linear layers and multi-layer perceptrons."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from emulator.kernels import perceptron as native
from emulator.kernels.layers import gelu_backward
from emulator.kernels.library import alone, takes
from emulator.kernels.precision import exact_products
from emulator.networks.dropout import Dropout

_ONEDNN = torch.backends.mkldnn.is_available()  # asked once: torch.compile cannot trace the question


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`(..., in)` -> `(..., out)` as `torch.nn.functional.linear`, in whichever way is fastest for the device.

    In float32 on CPU, a 1x1 convolution in the channels-last layout is the same product by another library (oneDNN in
    place of MKL): 190 against 80 GFLOP/s on one core of a Zen 5, equal on Intel. With one thread torch makes that choice
    for a batch of 16 or more, hence the shape; other numbers of points ask for the library by name.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or not _ONEDNN:
        return F.linear(x, weight, bias)
    points = x.numel() // x.shape[-1]
    batch = math.gcd(points, 16)
    if points < 1024 or (batch < 16 and torch.compiler.is_compiling()):
        return F.linear(x, weight, bias)
    if batch < 16:
        return _Product.apply(x.reshape(points, -1), weight, bias).view(*x.shape[:-1], -1)
    image = x.reshape(batch, points // batch, 1, x.shape[-1]).permute(0, 3, 1, 2)
    y = F.conv2d(image, weight[:, :, None, None], bias)
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], weight.shape[0])


class _Product(torch.autograd.Function):
    """Linear layer on `(point, in)` in float32 by the faster library, forward and backward."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        with exact_products():
            return F.linear(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        needed, g_x, g_weight = ctx.needs_input_grad, None, None
        with exact_products():
            if needed[0]:
                g_x = torch.mm(g, weight)
            if needed[1]:
                g_weight = torch.mm(g.t(), x)
        return g_x, g_weight, g.sum(0) if ctx.biased else None


class _Compiled(torch.autograd.Function):
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
    ends: native.Ends = native.NO_ENDS,
) -> torch.Tensor:
    """`(..., in)` -> `(..., out)`: a linear layer, or two with GELU between them, added to a residual where there is one.

    Weights are `(out, in)` as torch's, the first ones `(hidden, in, *stencil)` where cells take in their `neighbours`; then
    x is `(cell, batch, in)`. `half`: products of numbers rounded to bfloat16, summed in float32. What enters and leaves is
    float32. `ends`: what only an `alone` network can ask for.
    """
    shape = x.shape
    native_too = alone(x, first, second, first_bias, second_bias, residual) and x.ndim == 3
    if native_too and x.is_contiguous() and (residual is None or residual.is_contiguous()):
        turned = None if second is None else second.t()
        tensors = _by_tap(first), first_bias, turned, second_bias, residual, neighbours
        return native.forward(x, *tensors, half, False, ends)[0]
    if x.ndim != 3:
        x = x.reshape(-1, 1, shape[-1])
    onto = None if residual is None else residual.to(x.dtype).contiguous()
    y = _Compiled.apply(x.contiguous(), first, first_bias, second, second_bias, onto, neighbours, half)
    return y if len(shape) == 3 else y.view(*shape[:-1], y.shape[-1])


def full(x: torch.Tensor) -> torch.Tensor:
    """At least single precision: what leaves a layer of half precision goes on in float32, float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def apply_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    precision: str,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """`(..., in)` -> `(..., out)` by weights `(out, in)` in the precision asked for, added to a residual in its type."""
    half = halved(x, precision)
    if serves(x, weight, half):
        y = perceptron(x, weight, bias, residual=residual, half=half)
        # what follows in a graph network goes by the type
        return y.bfloat16() if precision == "bfloat16" and residual is None else y
    if precision == "float32":
        y = linear(x, weight, bias)
    else:
        dtype = torch.bfloat16
        y = F.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
    return y if residual is None else residual + y


class Linear(nn.Linear):
    """Linear layer over the channels in the precision asked for, with weights of standard deviation sqrt(gain / in)."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True, gain: float = 1.0, precision: str = "float32"):
        super().__init__(inputs, outputs, bias=bias)
        self.precision = precision
        nn.init.normal_(self.weight, std=math.sqrt(gain / inputs))
        if bias:
            nn.init.zeros_(self.bias)

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None, activate: bool = False) -> torch.Tensor:
        """`(..., in)` -> `(..., out)`, added to a residual of that shape where there is one, in the residual's type.

        `activate`: GELU of that.
        """
        half = halved(x, self.precision)
        if activate and alone(x, residual, self.weight) and x.ndim == 3 and x.is_contiguous():
            if residual is None or residual.is_contiguous():
                ends = native.Ends(activate=True)
                return perceptron(x, self.weight, self.bias, residual=residual, half=half, ends=ends)
        if activate:
            return gelu(self.forward(x, residual))
        return apply_linear(x, self.weight, self.bias, self.precision, residual)


class _GELU(torch.autograd.Function):
    """GELU with a compiled gradient, 1.7 times as fast as torch's on CPU; forward torch's own is as fast."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return F.gelu(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return gelu_backward(g.contiguous(), *ctx.saved_tensors)


def gelu(x: torch.Tensor) -> torch.Tensor:
    """GELU (Hendrycks and Gimpel 2016) by the error function."""
    if torch.compiler.is_compiling() or not (takes(x) and x.is_contiguous()):
        return F.gelu(x)
    return _GELU.apply(x)


class MLP(nn.Module):
    """Linear layers with GELU between them: `widths[0]` -> ... -> `widths[-1]` channels, added to a residual."""

    def __init__(
        self, widths, bias_last: bool = True, gain: float = 1.0, precision: str = "float32", dropout: float = 0.0
    ):
        super().__init__()
        self.dropout = Dropout(dropout)  # after every layer
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        last = len(pairs) - 1
        self.layers = nn.ModuleList(
            Linear(i, o, n < last or bias_last, 2.0 if n < last else gain, precision) for n, (i, o) in enumerate(pairs)
        )

    def forward(
        self, x: torch.Tensor, residual: torch.Tensor | None = None, besides: torch.Tensor | None = None
    ) -> torch.Tensor:
        """`besides`: further inputs, behind those of x. A residual may be the same for all samples, `(cell, 1, out)`."""
        half, whole = halved(x, self.layers[0].precision), not self.dropout.active
        if whole and len(self.layers) <= 2 and serves(x, self.layers[0].weight, half):
            weights = [tensor for layer in self.layers for tensor in (layer.weight, layer.bias)]
            if besides is None:
                return perceptron(x, *weights, residual=residual, half=half)
            if alone(x, besides) and x.ndim == 3 and x.is_contiguous() and besides.is_contiguous():
                return perceptron(x, *weights, residual=residual, half=half, ends=native.Ends(besides))
        if besides is not None:
            return self(torch.cat([x, besides], -1), residual)
        for layer in self.layers[:-1]:
            x = self.dropout(gelu(layer(x)))
        x = self.dropout(self.layers[-1](x))
        return x if residual is None else residual + x
