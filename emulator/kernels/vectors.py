"""Layers of tangent vectors beside scalars, and their gradients; rows are `(cell or coefficient, batch)`.

Vectors are first all eastward, then all northward components. Tensors are float32, contiguous, in the processor's memory.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from emulator.kernels import library
from emulator.kernels.compiled import Layout

_SpectralNorm = library.task(
    "spectral_norm",
    "a b shares gradient scale slopes factors rstd to g_a g_b sums",
    "summing",
    "rows batch scalars vectors scale_step",
    double="epsilon",
)
_Along = library.task("along", "x other gradient to g_other", "", "rows vectors")
_Gate = library.task("gate", "made turned s w to_s to_w g_made", "backward", "rows scalars vectors")
_PORTION = 1 << 14  # numbers that a thread copies at a time
_Pieces = library.task("pieces", "source to", "", "rows count from_step to_step portion")


def _norm(entry, a, b, shares, epsilon=0.0, scale_step=0, **fields):
    rows, batch, scalars = a.shape
    vectors = b.shape[2] // 2
    sums = library.empty(-(-rows // Layout.NORM_PORTION), batch, scalars + 2 * vectors)
    sizes = {"rows": rows, "batch": batch, "scalars": scalars, "vectors": vectors}
    sizes |= {"epsilon": epsilon, "scale_step": scale_step}
    given = {"a": a, "b": b, "shares": shares, "sums": sums, **fields}
    pointers = {name: tensor.data_ptr() for name, tensor in given.items() if tensor is not None}
    library.call(f"emulator_{entry}", _SpectralNorm(**pointers, **sizes), shares, fields.get("scale"))
    return sums


def _joint(a: Tensor, b: Tensor) -> tuple[int, int, int]:
    return *a.shape[:2], a.shape[2] + b.shape[2]


def spectral_norm(a: Tensor, b: Tensor, shares: Tensor, scale: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised coefficients of scalars `(row, batch, scalars)` and vectors `(row, batch, 2 * vectors)` beside one another.

    They are over the root of their mean square, the sum of squares times `shares`, `(row,)`, and times `scale`,
    `(batch or 1, scalars + vectors)`. Both parts of a vector share the mean of theirs, and a scale. With what they are
    multiplied by, `(batch, scalars + 2 * vectors)`, and that without the scale, `(batch, scalars + vectors)`.
    """
    to = library.empty(*_joint(a, b))
    factors, rstd = library.empty(*to.shape[1:]), library.empty(a.shape[1], scale.shape[1])
    step = scale.shape[1] if len(scale) > 1 else 0
    _norm("spectral_norm", a, b, shares, epsilon, step, scale=scale, factors=factors, rstd=rstd, to=to)
    return to, factors, rstd


def spectral_sums(a: Tensor, b: Tensor, shares: Tensor, gradient: Tensor | None = None) -> Tensor:
    """Sums over the rows of squares times shares, or of a gradient times coefficients: `(batch, scalars + 2 * vectors)`."""
    return _norm("spectral_sums", a, b, shares, gradient=gradient).sum(0)


def spectral_scaled(a: Tensor, b: Tensor, shares: Tensor, factors: Tensor) -> Tensor:
    """Coefficients beside one another, times factors `(batch, scalars + 2 * vectors)`."""
    to = library.empty(*_joint(a, b))
    _norm("spectral_scaled", a, b, shares, factors=factors, to=to)
    return to


def spectral_gradient(a, b, shares, gradient, factors, slopes) -> tuple[Tensor, Tensor]:
    """Gradients of both coefficients: the result's times factors, and the coefficients times slopes and shares."""
    to = torch.empty_like(a), torch.empty_like(b)
    _norm("spectral_scaled", a, b, shares, gradient=gradient, factors=factors, slopes=slopes, g_a=to[0], g_b=to[1])
    return to


def along(x: Tensor, other: Tensor) -> Tensor:
    """Components of vectors `(*rows, 2 * vectors)` along others, over the root of 1 and the other's square."""
    *rows, both = x.shape
    to = library.empty(*rows, both // 2)
    _call_along(x, other, to=to)
    return to


def along_backward(x: Tensor, other: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of both."""
    to = torch.empty_like(x), torch.empty_like(other)
    _call_along(x, other, gradient=gradient, to=to[0], g_other=to[1])
    return to


def _call_along(x, other, **fields):
    pointers = {name: tensor.data_ptr() for name, tensor in {"x": x, "other": other, **fields}.items()}
    vectors = x.shape[-1] // 2
    library.call("emulator_along", _Along(**pointers, rows=math.prod(x.shape[:-1]), vectors=vectors))


def gate(s: Tensor, w: Tensor, made: Tensor, turned: Tensor) -> tuple[Tensor, Tensor]:
    """Scalars plus the first of what was made, and vectors plus twice the logistic function of the rest times turned ones."""
    to = library.empty(*s.shape), library.empty(*w.shape)
    _call_gate(s, w, made, turned, False, to_s=to[0], to_w=to[1])
    return to


def gate_backward(g_s: Tensor, g_w: Tensor, made: Tensor, turned: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of what was made and of the turned vectors, from those of the results, which scalars and vectors have too."""
    to = torch.empty_like(made), torch.empty_like(turned)
    _call_gate(g_s, g_w, made, turned, True, g_made=to[0], to_w=to[1])
    return to


def _call_gate(s, w, made, turned, backward, **fields):
    given = {"s": s, "w": w, "made": made, "turned": turned, **fields}
    pointers = {name: tensor.data_ptr() for name, tensor in given.items()}
    scalars, vectors = s.shape[-1], w.shape[-1] // 2
    rows = math.prod(made.shape[:-1])
    sizes = {"backward": backward, "rows": rows, "scalars": scalars, "vectors": vectors}
    library.call("emulator_gate", _Gate(**pointers, **sizes))


def in_pieces(x: Tensor, axis: int) -> bool:
    """Whether it lies in one piece from the axis on, with one and the same step between these pieces, as `joined` asks."""
    expected, step = 1, None
    for n in reversed(range(x.ndim)):
        if x.shape[n] != 1:
            if n >= axis and x.stride(n) != expected:
                return False
            if n < axis:
                if step is not None and x.stride(n) != step:
                    return False
                step = (x.stride(n) if step is None else step) * x.shape[n]
        expected *= x.shape[n]
    return True


def joined(parts: Sequence[Tensor], axis: int) -> Tensor:
    """As `torch.cat`, of parts that are `in_pieces`."""
    before, behind = parts[0].shape[:axis], parts[0].shape[axis + 1 :]
    to = library.empty(*before, sum(part.shape[axis] for part in parts), *behind)
    rows, step, start = math.prod(before), math.prod(to.shape[axis:]), 0
    for part in parts:
        count, last = math.prod(part.shape[axis:]), next((n for n in reversed(range(axis)) if before[n] > 1), 0)
        sizes = {"rows": rows, "count": count, "from_step": part.stride(last), "to_step": step}
        portion = max(1, _PORTION // max(count, 1))
        task = _Pieces(part.data_ptr(), to.data_ptr() + to.element_size() * start, **sizes, portion=portion)
        library.call("emulator_pieces", task, part)
        start += count
    return to
