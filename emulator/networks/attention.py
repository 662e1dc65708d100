"""Attention of the tokens of windows to one another, with a bias between them."""

import torch
import torch.nn.functional as F

from emulator.kernels import attention as native
from emulator.kernels import library
from emulator.kernels.library import takes
from emulator.networks.layers import full


def attention(
    *tensors: torch.Tensor, bias: torch.Tensor | None = None, scale: float | torch.Tensor | None = None
) -> torch.Tensor:
    """Weights of the keys are the softmax of their products with the query, times `scale`, and the bias.

    By the compiled kernel in float32 on CPU, otherwise by torch's `scaled_dot_product_attention`.

    Args:
      tensors: queries, keys and values, `(window, token, sample, part, head, channel)`; those that follow each other may be
        parts of one tensor, which saves their gradients a copy.
      bias: `(window, 1 or head, 1 or query, key)`, fewer windows take turns; None: zeros. Every query has a key of which it
        is finite.
      scale: by default one over the root of the channels; `(head,)`: queries and keys are divided by their lengths first.
    Returns `(window, query, sample, head * channel)`.
    Raises `ValueError` for shapes that do not belong together.
    """
    parts = _parts(tensors)
    _check(parts, bias)
    q, k, v = parts
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    shared = bias is None or len(bias) == 1 or not bias.requires_grad
    by_head = scale if isinstance(scale, torch.Tensor) else None
    fits = shared and max(q.shape[1], k.shape[1]) <= native.MOST_TOKENS and all(map(_in_rows, parts))
    if takes(*tensors, bias, by_head, fits=fits):
        return _Compiled.apply(scale, bias, *tensors)
    return by_torch(q, k, v, bias, scale)


def by_torch(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor | None, scale: float | torch.Tensor
) -> torch.Tensor:
    """The same of three tensors `(window, token, sample, head, channel)` by torch alone."""
    if isinstance(scale, torch.Tensor):
        q, k = (_directions(full(x)) for x in (q, k))
        q, k, scale = (q * scale[:, None]).to(v.dtype), k.to(v.dtype), 1.0
    windows, queries, samples, heads, channels = q.shape
    # windows vary fastest where biases take turns
    q, k, v = (x.permute(2, 0, 3, 1, 4).flatten(0, 1) for x in (q, k, v))  # (sample * window, head, token, channel)
    if bias is not None:
        bias = bias.to(q.dtype)
        bias = bias if len(bias) == 1 else bias.repeat(len(q) // len(bias), 1, 1, 1)
    y = F.scaled_dot_product_attention(q, k, v, bias, scale=scale)
    return (
        y.unflatten(0, (samples, windows)).permute(1, 3, 0, 2, 4).reshape(windows, queries, samples, heads * channels)
    )


def _directions(x):
    """Vectors along the last axis over their lengths; by torch's own operations where they are to be differentiated twice."""
    return F.normalize(x, dim=-1) if library.ASIDE else _Directions.apply(x)


class _Directions(torch.autograd.Function):
    """In half the passes of torch's own."""

    @staticmethod
    def forward(ctx, x):
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_(min=1e-12)
        y = x / length
        ctx.save_for_backward(y, length)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        y, length = ctx.saved_tensors
        return torch.addcmul(g, y, (g * y).sum(-1, keepdim=True), value=-1).div_(length)


def spread(table: torch.Tensor, offset: torch.Tensor, queries: int) -> torch.Tensor:
    """A bias `(head, query, key)` from a table `(offset, head)` and where in it every pair lies, `(query * key,)`.

    It is contiguous, since torch's fused attention on a GPU takes no mask whose keys lie apart.
    """
    return _Spread.apply(table, offset).t().contiguous().unflatten(1, (queries, -1))


class _Spread(torch.autograd.Function):
    """Rows of a table, whose gradients are sums in a fixed order."""

    @staticmethod
    def forward(ctx, table, offset):
        ctx.save_for_backward(offset)
        ctx.offsets = len(table)
        return table.index_select(0, offset)

    @staticmethod
    def backward(ctx, g):
        return _Sums.apply(g, *ctx.saved_tensors, ctx.offsets), None


class _Sums(torch.autograd.Function):
    """Sums of the rows that belong to each of so many offsets, in float32 at least; gradients of `_Spread`."""

    @staticmethod
    def forward(ctx, g, offset, offsets):
        ctx.save_for_backward(offset)
        rows, heads = g.to(torch.promote_types(g.dtype, torch.float32)), g.shape[1]
        if not g.is_cpu:  # sorted first, and so in one order, which additions by index are not
            return rows.new_zeros(offsets, heads).index_put_((offset,), rows, accumulate=True).to(g.dtype)
        # one by one, which torch adds up fastest
        places = offset if heads == 1 else (offset[:, None] * heads + torch.arange(heads, device=g.device)).flatten()
        return rows.new_zeros(offsets * heads).index_add_(0, places, rows.flatten()).view(-1, heads).to(g.dtype)

    @staticmethod
    def backward(ctx, g):
        return _Spread.apply(g, *ctx.saved_tensors), None, None


def _parts(tensors):
    return [part for tensor in tensors for part in tensor.unbind(3)]


def _check(parts, bias):
    if len(parts) != 3:
        raise ValueError(f"Expected queries, keys and values in the attention's tensors, got {len(parts)} parts")
    (windows, queries, samples, heads, channels), key, value = (tuple(x.shape) for x in parts)
    keys = key[1]
    if not keys or not key == value == (windows, keys, samples, heads, channels):
        raise ValueError(
            f"Expected keys and values {(windows, 'key', samples, heads, channels)} for queries {tuple(parts[0].shape)}, "
            f"at least one, got {key} and {value}"
        )
    if bias is None:
        return
    fits = bias.ndim == 4 and bias.shape[1] in (1, heads) and bias.shape[2] in (1, queries) and bias.shape[3] == keys
    if not fits or not len(bias) or windows % len(bias):
        raise ValueError(
            f"Expected a bias (a number that divides {windows} windows, 1 or {heads} heads, 1 or {queries} queries, "
            f"{keys} keys), got {tuple(bias.shape)}"
        )


def _in_rows(x):
    """Whether heads follow each other in a row, each with its channels."""
    return x.stride(-1) == 1 and x.stride(-2) == x.shape[-1]


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scale, bias, *tensors):
        parts = _parts(tensors)
        whole = native.padded(bias, parts[1].shape[1])
        by_head = scale.contiguous() if isinstance(scale, torch.Tensor) else None
        ctx.scale = scale if by_head is None else None
        given, needed = (*parts, whole, ctx.scale if by_head is None else by_head), ctx.needs_input_grad
        y, kept = native.forward(*given, any(needed), needed[1])
        ctx.save_for_backward(by_head, whole, kept, *tensors)
        return y.flatten(3)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        scale, bias, kept, *tensors = ctx.saved_tensors
        scale = ctx.scale if scale is None else scale
        q, k, v = _parts(tensors)
        made = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors]
        of_bias = ctx.needs_input_grad[1]
        given = g.contiguous(), q, k, v, bias, scale, kept, _parts(made), of_bias
        g_scale, g_bias = native.backward(*given)
        return g_scale, g_bias[None, ..., : k.shape[1]] if of_bias else None, *made
