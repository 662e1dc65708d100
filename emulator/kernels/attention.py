"""Attention within small windows with a bias, and its gradients, in float32."""

import torch
from torch import Tensor

from emulator.kernels import freed_memory, library
from emulator.kernels.compiled import Layout

LANES = Layout.LANES
MOST_TOKENS = 512  # queries and keys of a window; beyond, its logits leave the cache
_CHUNKS = 16  # of samples of windows, whose gradients of a bias are summed, so that sums do not depend on threads
_STEPS = [f"{part}_{of}" for part in ("q", "k", "v", "to", "g_q", "g_k", "g_v") for of in ("window", "token", "sample")]
_Attention = library.task(
    "attention",
    "q k v steepness bias gradient to kept g_q g_k g_v sums steepness_sums room",
    "few queries keys channels heads bias_heads bias_step",
    f"windows samples biases chunk sums_size room_size {' '.join(_STEPS)}",
    double="scale",
    portions="threads next",
)


def wide(n: int) -> int:
    """Numbers in whole vectors."""
    return -(-n // LANES) * LANES


def _few(q, k, bias, scale) -> bool:
    """Whether lanes are heads of windows in place of keys, of which there would be too few for one vector."""
    alike = max(bias.shape[:3]) == 1 and not isinstance(scale, Tensor)
    return alike and max(q.shape[1], k.shape[1]) < LANES


def _room_of_few(queries: int, keys: int, channels: int) -> int:
    """Numbers that a thread needs for so many tokens of LANES heads: queries, keys, values, results and their gradients."""
    return LANES * (wide(channels) * (3 * queries + 4 * keys) + 2 * queries * keys)


def padded(bias: Tensor | None, keys: int) -> Tensor:
    """A bias `(..., key)` with minus infinity behind its last key, in whole vectors; None: zeros for all queries."""
    if bias is None:
        bias = torch.zeros(1, 1, 1, keys)
    if more := wide(keys) - keys:
        bias = torch.nn.functional.pad(bias, (0, more), value=-torch.inf)  # which may leave heads or windows innermost
    return bias.contiguous()


def forward(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float | Tensor, keep: bool, of_bias: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Attention of the tokens of every window to one another, or to others.

    Args:
      q: `(window, query, sample, head, channel)`. k, v: `(window, key, sample, head, channel)`. The last two axes are
        contiguous, the others may have any steps.
      bias: `(window, 1 or head, 1 or query, key)` as `padded` gives it, added to products; fewer windows take turns. Every
        query has a key of which it is finite.
      scale: of the products; `(head,)`, contiguous: of the products of directions. keep: whether to keep what gradients need.
      of_bias: whether gradients of the bias will be asked for.
    Returns `(window, query, sample, head, channel)` and what is kept, None where gradients form it again.
    """
    freed_memory.keep()
    windows, queries, samples, heads, channels = q.shape
    keys = k.shape[1]
    to = library.empty(*q.shape)
    few = not of_bias and _few(q, k, bias, scale)
    kept = library.empty(windows, samples, heads, 2, queries) if keep and not few else None
    room = wide(channels) * (wide(keys) + queries + keys) + queries * (wide(keys) + 1) + keys
    if isinstance(scale, Tensor):
        room += wide(channels) * (queries + keys)
    _run(room, q, k, v, bias, scale, few, to=to, kept=kept)
    return to, kept


def backward(
    g: Tensor, q, k, v, bias: Tensor, scale: float | Tensor, kept: Tensor | None, into, of_bias: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of q, k and v, written into three tensors of their shapes and any steps of the first three axes.

    `g`: of the result, contiguous. `kept`: by `forward`. Returns that of a scale `(head,)`, and that of a bias that is the
    same for all windows, where it is asked for, `(head or 1, query or 1, key)` in whole vectors; sums are always in the same
    order.
    """
    windows, queries, samples, heads, channels = q.shape
    keys, by_head = k.shape[1], isinstance(scale, Tensor)
    chunk = max(-(-windows * samples // _CHUNKS), 1) if of_bias or by_head else None
    count = chunk and -(-windows * samples // chunk)
    sums = library.empty(count, *bias.shape[1:]) if of_bias else None
    of_scale = library.empty(count, heads) if by_head else None
    room = wide(channels) * (wide(keys) + 3 * queries + 2 * keys) + 2 * queries * wide(keys) + queries + keys
    few = kept is None
    _run(room, q, k, v, bias, scale, few, kept=kept, gradient=g, into=into, sums=sums, of_scale=of_scale, chunk=chunk)
    return tuple(None if of_chunks is None else of_chunks.sum(0) for of_chunks in (of_scale, sums))


def _run(room, q, k, v, bias, scale, few, to=None, kept=None, gradient=None, into=(None,) * 3, **of_chunks):
    windows, queries, samples, heads, channels = q.shape
    threads = torch.get_num_threads()
    # by default a few for every thread, which may be slower than others
    chunk = of_chunks.get("chunk") or max(windows * samples // (4 * threads), 1)
    room = _room_of_few(queries, k.shape[1], channels) if few else room
    steepness, scale = (scale, 1.0) if isinstance(scale, Tensor) else (None, scale)
    room = library.empty(threads, wide(room))
    tensors = (
        q,
        k,
        v,
        steepness,
        bias,
        gradient,
        to,
        kept,
        *into,
        of_chunks.get("sums"),
        of_chunks.get("of_scale"),
        room,
    )
    placed = q, k, v, to if gradient is None else gradient, *into  # rows of the gradient lie as the result's
    steps = (tensor.stride()[:3] if tensor is not None else (0, 0, 0) for tensor in placed)
    per_query = bias.shape[3] if bias.shape[2] > 1 else 0
    task = _Attention(
        *(None if tensor is None else tensor.data_ptr() for tensor in tensors),
        *(few, queries, k.shape[1], channels, heads, bias.shape[1], per_query),
        *(windows, samples, len(bias), chunk, bias[0].numel(), room.shape[1]),
        *(step for of_tensor in steps for step in of_tensor),
        scale,
    )
    library.call("emulator_attention", task, bias, steepness)
