"""A perceptron on the rows of edges or nodes and its gradient, each in one pass that keeps tiles of rows in the cache.

Rows are `(edge, batch, width)`: the hidden values `h` are what is gathered or given plus `x` times the first weights; the
messages are `LayerNorm(W silu(h) + b)`, summed by receiver or added to a residual. Weights are `(out, in)` as torch's.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from emulator.kernels import library
from emulator.kernels.compiled import Layout

LANES, WIDEST = Layout.LANES, 1024  # a width is a multiple of the one and at most the other
EPS = 1e-5  # of the norm's variance, as in structures.h
_ROOM = 2**22  # floats at most that all parts' gradients of weights take, except that there are eight parts or one

_Messages = library.task(
    "messages",
    "x start shared senders receivers origins targets first second turned bias scale shift residual h sums result "
    "g_sums g_rows after g_h g_receivers g_x room",
    "width inputs backward carry",
    "edges batch parts",
)

_Maps = library.task(
    "maps",
    "x weight_0 weight_1 weight_2 bias_0 bias_1 bias_2 y_0 y_1 y_2 g_x room",
    "width count backward",
    "rows parts",
)


class Tail(NamedTuple):
    """Parameters of what follows the hidden values: weight and bias of the second layer, scale and shift of the norm."""

    weight: Tensor
    bias: Tensor
    scale: Tensor
    shift: Tensor


def serves(width: int, *tensors: Tensor) -> bool:
    """Whether the compiled kernels take such rows."""
    return library.takes(*tensors, fits=width % LANES == 0 and width <= WIDEST)


def _addresses(tensors: dict[str, Tensor | None]) -> dict[str, int]:
    """Where the given tensors lie; the kernels know no strides."""
    found = {}
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not tensor.is_contiguous():
            raise ValueError(f"Expected contiguous tensors, got another one for {name}")
        found[name] = tensor.data_ptr()
    return found


def _run(backward: bool, edges: int, batch: int, width: int, carry: bool = False, **tensors: Tensor | None) -> None:
    parts = _parts(edges * batch, width)
    inputs = tensors["x"].shape[-1] if tensors.get("x") is not None else 0
    whole = {"width": width, "inputs": inputs, "backward": backward, "carry": carry}
    task = _Messages(**_addresses(tensors), **whole, edges=edges, batch=batch, parts=parts)
    library.call("emulator_messages", task)


def _parts(rows: int, width: int) -> int:
    """A number that depends on nothing else, so that results do not depend on the number of threads."""
    most = min(8, max(1, _ROOM // (16 * width * width)))
    return 1 if rows < 512 else 8 * min(most, max(1, rows // 8192))


def forward(tail: Tail, edges: int, batch: int, first: Tensor | None = None, **tensors: Tensor | None) -> None:
    """Fill `h` and `result` and add to `sums`, those that are given.

    From: `x` `(edge, batch, inputs)` with the first weights; `start` `(width,)`, or `senders` and `receivers`
    `(node, batch, width)` with the indices `origins` (or every edge its own) and `targets`, and `shared` `(edge, width)`;
    `residual`, `(edge, batch, width)` or with `shared` `(edge, width)`.
    """
    weights = {"first": None if first is None else first.t().contiguous(), "second": tail.weight.t().contiguous()}
    norm = {"bias": tail.bias, "scale": tail.scale, "shift": tail.shift}
    _run(False, edges, batch, len(tail.bias), **weights, **norm, **tensors)


def backward(
    tail: Tail, edges: int, batch: int, first: Tensor | None = None, carry: bool = False, **tensors: Tensor | None
) -> tuple[Tensor, Tensor | None, Tail]:
    """Fill `g_h` (which may be `h`) and `g_x` and add to `g_receivers`; gradients of `start`, of `first` and of the tail.

    From `h` (or `start`, and there is no `g_x`) and `x`, or `after`, `x` plus the messages, and then `x` is filled; for the
    gradients of the messages by receiver, `g_sums`, and by row, `g_rows`, which with `carry` are part of the gradient of `x`.
    """
    width, inputs = len(tail.bias), 0 if first is None else first.shape[1]
    sizes = [width * width, inputs * width] + [width] * 4
    room = tail.bias.new_empty(_parts(edges * batch, width), sum(sizes))
    weights = {"second": tail.weight.t().contiguous(), "turned": tail.weight}
    weights |= {"bias": tail.bias, "scale": tail.scale, "shift": tail.shift}
    if first is not None:
        weights["first"] = first.t().contiguous() if tensors.get("h") is None else first
    _run(True, edges, batch, width, carry, room=room, **weights, **tensors)
    second, g_first, g_start, *vectors = _total(room).split(sizes)
    g_first = None if first is None else g_first.view(inputs, width).t()
    return g_start, g_first, Tail(second.view(width, width), *vectors)


def _total(room: Tensor) -> Tensor:
    """The sum of all parts; one part needs none."""
    return room[0] if len(room) == 1 else room.sum(0)


def maps(x: Tensor, *layers: tuple[Tensor, Tensor | None]) -> list[Tensor]:
    """Up to three linear layers, weight and bias, of the same rows: `(..., width)` -> `(..., width)` each."""
    weights, results = [weight.t().contiguous() for weight, _ in layers], [torch.empty_like(x) for _ in layers]
    _run_maps(False, x, weights, [bias for _, bias in layers], results)
    return results


def maps_backward(
    x: Tensor, g_x: Tensor, gradients: list[Tensor], weights: list[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Add to `g_x` what follows from the gradients of the results of `maps`; gradients of weights and biases."""
    width, count = x.shape[-1], len(weights)
    square, parts = width * width, _parts(x.numel() // width, width)
    room = x.new_empty(parts, count * (square + width))
    _run_maps(True, x, weights, [], gradients, g_x=g_x, room=room)
    of_weights, of_biases = _total(room).split([count * square, count * width])
    return list(zip(of_weights.view(count, width, width), of_biases.view(count, width), strict=True))


def _run_maps(backward, x, weights, biases, results, **more):
    tensors = {"x": x, **more}
    for name, each in (("weight", weights), ("bias", biases), ("y", results)):
        tensors |= {f"{name}_{n}": tensor for n, tensor in enumerate(each)}
    width = x.shape[-1]
    rows = x.numel() // width
    task = _Maps(
        **_addresses(tensors), width=width, count=len(weights), backward=backward, rows=rows, parts=_parts(rows, width)
    )
    library.call("emulator_maps", task)
