"""One or two linear layers with GELU between them, row by row, and their gradients, in float32 or with bfloat16 products."""

from typing import NamedTuple

import torch

from emulator.kernels import freed_memory, library, stencil
from emulator.kernels.compiled import Layout
from emulator.kernels.kept import made_of

LANES, TILE = Layout.LANES, Layout.TILE
SHORTEST_CHUNK = 1024  # rows whose gradients of weights are summed together
_Perceptron = library.task(
    "perceptron",
    "x besides first second first_bias second_bias residual source target before to gradient g_before sums room",
    "taps inputs more hidden outputs add activate alike",
    "items batch chunk sums_size room_size threads",
)


class Neighbours(NamedTuple):
    """Which cells a cell takes in, `(tap, cell)`, and for gradients which cells take it in.

    There may be more cells that are taken in than such as take in, which come first among them. `back`: `(tap, cell)` of all
    that are taken in, -1 for none. `more`: further ones, as (taps, targets, sources `(tap, target)`). `patches`: of a
    stencil of 3 x 3 cells that is taken in whole, else None.
    """

    source: torch.Tensor
    back: torch.Tensor
    more: tuple[tuple[tuple[int, ...], torch.Tensor, torch.Tensor], ...]
    patches: stencil.Patches | None = None


def serves(x: torch.Tensor, weight: torch.Tensor, half: bool) -> bool:
    """Whether the compiled kernels take `x` and the weights, with products of bfloat16 if `half`."""
    return library.takes(x, weight, half=half)


def wide(n: int) -> int:
    """Numbers in whole vectors."""
    return -(-n // LANES) * LANES


def pack(weight: torch.Tensor, half: bool) -> torch.Tensor:
    """Weights `(tap, in, out)` of any strides in the order of the kernels."""
    taps, depth, width = weight.shape
    group = 2 if half else 1
    words = torch.empty(-(-taps * depth // group), wide(width))
    name = "emulator_pack_half" if half else "emulator_pack"
    library.plain(name, weight.data_ptr(), *weight.stride(), taps, depth, width, words.data_ptr())
    return words


def _packed(weight):
    return pack(weight if weight.ndim == 3 else weight[None], False)


def _packed_half(weight):
    return pack(weight if weight.ndim == 3 else weight[None], True)


def _words(weight, half, changing):
    """As `pack`, of `(tap, in, out)` or `(in, out)`; kept while the weights stay the same, where they are not `changing`."""
    make = _packed_half if half else _packed
    if weight is None or changing:
        return None if weight is None else make(weight)
    return made_of(weight, make)


def _filled_up(bias):
    return torch.nn.functional.pad(bias, (0, wide(len(bias)) - len(bias)))


def _padded(bias, changing):
    if bias is None or not len(bias) % LANES:
        return bias
    return _filled_up(bias) if changing else made_of(bias, _filled_up)


def _run(half, rows, room, **fields):
    freed_memory.keep()  # a network's tensors come again at its next step, in whatever loop it is trained
    room = library.empty(torch.get_num_threads(), wide(room))
    values = {name: value.data_ptr() if isinstance(value, torch.Tensor) else value for name, value in fields.items()}
    task = _Perceptron(room=room.data_ptr(), room_size=room.shape[1], **values)  # `fields` keeps tensors alive
    weights = [fields.get(name) for name in ("first", "second", "first_bias", "second_bias", "source")]
    library.call("emulator_perceptron_half" if half else "emulator_perceptron", task, *weights)


class Ends(NamedTuple):
    """What else goes into layers and is done to their result, where no gradients are wanted.

    `besides`: further inputs of the first layer, `(cell, batch, more)`. `activate`: whether the result goes through GELU.
    """

    besides: torch.Tensor | None = None
    activate: bool = False


NO_ENDS = Ends()


def forward(x, first, first_bias, second, second_bias, residual, neighbours, half, keep, ends=NO_ENDS):
    """`(cell, batch, in)` -> the result `(cell that takes in, batch, out)` and, to `keep`, what the activation took.

    `residual`: what the result is added to, `(cell, batch or 1, out)`. Tensors come one by one, as torch passes them to an
    autograd function. Where there is something to `keep` weights are about to change, and nothing that is made of them stays:
    an autograd function runs with gradients off, so that `made_of` cannot see it, and some of its weights are new tensors.
    """
    (cells, batch, inputs), taps = x.shape, len(first)
    items = cells if neighbours is None else neighbours.source.shape[1]
    patches = None if neighbours is None or second_bias is not None else neighbours.patches
    if patches is not None and not half and stencil.serves(first, second):
        return stencil.forward(x, items, first, first_bias, second, residual, patches, keep)
    more = 0 if ends.besides is None else ends.besides.shape[2]
    middle, outputs = first.shape[2], (first if second is None else second).shape[-1]
    to = library.empty(items, batch, outputs)
    before = library.empty(items, batch, middle) if keep and second is not None else None
    deep, hidden = wide(taps * inputs + more), wide(middle)
    _run(
        half,
        items * batch,
        TILE * (deep + hidden + wide(outputs) + max(deep, hidden)),
        x=x,
        besides=ends.besides,
        first=_words(first, half, keep),
        second=_words(second, half, keep),
        first_bias=_padded(first_bias, keep),
        second_bias=_padded(second_bias, keep),
        residual=residual,
        source=None if neighbours is None else neighbours.source,
        before=before,
        to=to,
        taps=taps,
        inputs=inputs,
        more=more,
        hidden=middle,
        outputs=outputs,
        activate=ends.activate,
        alike=residual is not None and residual.shape[1] != batch,
        items=items,
        batch=batch,
        chunk=TILE * 4,
    )
    return to, before


def backward(g, x, before, first, second, neighbours, half, needs_x):
    """Gradients of x, the first weights `(tap, in, hidden)` and bias, and the second ones `(hidden, out)` and bias."""
    items, batch, outputs = g.shape
    taps, inputs, middle = first.shape
    depth = taps * inputs
    deep, hidden, out = wide(depth), wide(middle), wide(outputs)
    two = second is not None
    chunk = max(SHORTEST_CHUNK, -(-items * batch // 64) + TILE - 1) // TILE * TILE
    size = deep * hidden + hidden + (hidden * out + out if two else 0)
    sums = x.new_empty(-(-items * batch // chunk), size)
    direct = neighbours is None
    g_x = torch.empty_like(x) if needs_x else None
    g_before = None
    if needs_x and not direct:
        g_before = x.new_empty(items, batch, middle) if two else g
    _run(
        half,
        items * batch,
        TILE * (deep + 2 * hidden + out + max(deep, hidden, out) + max(hidden, out)),
        x=x,
        first=pack(first.transpose(1, 2), half) if needs_x and direct else None,
        second=pack(second.t()[None], half) if two else None,
        source=None if direct else neighbours.source,
        before=before,
        to=g_x if direct else None,
        gradient=g,
        g_before=g_before if two else None,
        sums=sums,
        taps=taps,
        inputs=inputs,
        hidden=middle,
        outputs=outputs,
        items=items,
        batch=batch,
        chunk=chunk,
        sums_size=size,
    )
    if needs_x and not direct:
        _gather(g_before, g_x, first.transpose(1, 2), neighbours.back, None, half)
        for which, targets, sources in neighbours.more:
            _gather(g_before, g_x, first.transpose(1, 2)[list(which)], sources, targets, half)
    sums = sums[0] if len(sums) == 1 else sums.sum(0)
    g_first, g_first_bias, rest = sums.split([deep * hidden, hidden, size - deep * hidden - hidden])
    g_first = g_first.view(deep, hidden)[:depth, :middle]
    g_first = (_turned(g_first) if taps == 1 else g_first).unflatten(0, (taps, inputs))
    if not two:
        return g_x, g_first, g_first_bias[:middle], None, None
    g_second, g_second_bias = rest.split([hidden * out, out])
    g_second = _turned(g_second.view(hidden, out)[:middle, :outputs])
    return g_x, g_first, g_first_bias[:middle], g_second, g_second_bias[:outputs]


def _turned(gradient):
    """The same numbers in the order of the weights, `(out, in)`, to which they are added in a seventh of the time then."""
    return gradient if len(gradient) % LANES else pack(gradient.t()[None], False).t()


def _gather(x, to, weight, source, target, half):
    """`to[target] = sum_tap x[source[tap]] weight[tap]`, or added to what it holds where there are targets."""
    taps, inputs, outputs = weight.shape
    items, batch = source.shape[1], x.shape[1]
    deep, out = wide(taps * inputs), wide(outputs)
    _run(
        half,
        items * batch,
        TILE * (deep + wide(inputs) + out + deep),
        x=x,
        first=pack(weight, half),
        source=source,
        target=target,
        to=to,
        taps=taps,
        inputs=inputs,
        hidden=outputs,
        outputs=outputs,
        add=target is not None,
        items=items,
        batch=batch,
        chunk=TILE * 4,
    )
