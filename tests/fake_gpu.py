"""A GPU that is not there: torch's fake tensors, which have shapes, types and devices and no values.

Within `fake_gpu` tensors and modules go to `torch.device("cuda")` as on a machine with one. Two devices that meet raise
(`FakeTensorDeviceMismatchError`), and so does whatever would have the host wait to learn a value (`.item()`, `bool(tensor)`,
`nonzero`, indices by flags: `DataDependentOutputException`, `DynamicOutputShapeException`). Copies between the devices,
which would pass silently, are recorded with whether the host would have waited for them.

What torch cannot do without a GPU is done here in its place: its engine of gradients asks for streams of the device, so
`backward` and `grad` walk the same graph node by node; modules take new parameters when they move, since torch's own way to
change them in place knows no fake ones; and autocast is told that there is something to cast for.
"""

import contextlib
import functools
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
import torch.cuda.amp.common
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

from emulator.kernels import library
from emulator.kernels.precision import exact_products
from emulator.sphere import transform

CUDA = torch.device("cuda", 0)


class Copies(TorchDispatchMode):
    """Records copies between the host and the device: `down`, to the host, and `up`, those that the host waits for."""

    def __init__(self):
        super().__init__()
        self.down: list[tuple[int, ...]] = []
        self.up: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        moved = None
        if function is torch.ops.aten._to_copy.default:
            moved, non_blocking = (arguments[0], result), (keywords or {}).get("non_blocking", False)
        elif function is torch.ops.aten.copy_.default:
            moved, non_blocking = (arguments[1], arguments[0]), len(arguments) > 2 and arguments[2]
        if moved is not None:
            source, target = (tensor.device.type for tensor in moved)
            if source == "cuda" and target == "cpu":
                self.down.append(tuple(moved[0].shape))
            if source == "cpu" and target == "cuda" and not non_blocking:
                self.up.append(tuple(moved[0].shape))
        return result


@contextlib.contextmanager
def fake_gpu(records: bool = True) -> Iterator[Copies]:
    """The mode, in which modules may be moved to `CUDA`; yields what is recorded of copies.

    Without `records`, for torch.compile, which takes no mode that is not its own.
    """
    with exact_products():  # tries its libraries on numbers at first use
        pass
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    shared = transform._shared
    places = {  # where what needs a GPU, or values, is replaced
        (torch.autograd, "backward"): _backward,
        (torch.autograd, "grad"): _grad,
        (torch.cuda, "is_available"): lambda: False,  # a real one would be asked for page-locked memory
        (torch.cuda, "is_bf16_supported"): lambda *arguments: True,
        (torch.cuda.amp.common, "amp_definitely_not_available"): lambda: False,
        (transform, "_shared"): lambda key, make, *where: shared(key, on_host(make), *where),
    }
    before = {place: getattr(*place) for place in places}
    try:
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        for place, stand_in in places.items():
            setattr(*place, stand_in)
        with library.set_aside(), FakeTensorMode(allow_non_fake_inputs=True):
            copies = Copies()
            with copies if records else contextlib.nullcontext():
                yield copies
    finally:
        for place, own in before.items():
            setattr(*place, own)
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)
        _forget()


def on_host(function: Callable) -> Callable:
    """The function with values, as the host has them, within the mode too."""

    @functools.wraps(function)
    def outside(*arguments, **options):
        with unset_fake_temporarily():
            return function(*arguments, **options)

    return outside


def _forget() -> None:
    """Empties the library's caches, which may hold fake tensors now."""
    for name, module in list(sys.modules.items()):
        for value in vars(module).values() if name.partition(".")[0] == "emulator" else ():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


def _run(node, gradients):
    """Pairs of an edge to what a node's inputs come from, and their gradients."""
    if isinstance(node, torch.autograd.function.BackwardCFunction):  # gives None for arguments that are no tensors too
        found = node.apply(*gradients)
        found = found if isinstance(found, tuple) else (found,)
        found = [gradient for gradient, needed in zip(found, node.needs_input_grad, strict=True) if needed]
        return zip([edge for edge in node.next_functions if edge[0] is not None], found, strict=True)
    found = node(*gradients)
    return zip(node.next_functions, found if isinstance(found, tuple) else (found,), strict=True)


def _walk(outputs, gradients, wanted=(), create_graph=False) -> list[Tensor | None]:
    """Gradients of the leaves into their `grad`, or of `wanted` tensors, by the nodes of the graph in order."""
    arrived = defaultdict(dict)  # by node, of its outputs

    def arrive(edge, gradient):
        node, number = edge
        if node is not None and gradient is not None:
            about = node._input_metadata[number]  # the engine too takes the sums over axes that were broadcast
            gradient = gradient.sum_to_size(about.shape).to(about.dtype)
            assert gradient.device == about.device
            before = arrived[node].get(number)
            arrived[node][number] = gradient if before is None else before + gradient

    edges = {id(tensor): _edge(tensor) for tensor in (*outputs, *wanted)}
    users, stack, seen = defaultdict(int), [edges[id(tensor)][0] for tensor in outputs], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for following, _ in node.next_functions:
            users[following] += 1
            stack.append(following)
    results = {}
    with torch.set_grad_enabled(create_graph):
        for tensor, gradient in zip(outputs, gradients, strict=True):
            arrive(edges[id(tensor)], gradient)
        ready = [node for node in dict.fromkeys(edges[id(tensor)][0] for tensor in outputs) if not users[node]]
        while ready:
            node = ready.pop()
            mine = arrived.pop(node, {})
            results |= {(node, number): gradient for number, gradient in mine.items()}
            if not hasattr(node, "variable"):
                for edge, gradient in _run(node, [mine.get(n) for n in range(_outputs(node, mine))]) if mine else ():
                    arrive(edge, gradient)
            elif mine and not wanted:
                leaf = node.variable
                leaf.grad = mine[0].detach() if leaf.grad is None else leaf.grad + mine[0].detach()
            for following, _ in node.next_functions:
                users[following] -= 1
                if following is not None and not users[following]:
                    ready.append(following)
    return [results.get(edges[id(tensor)]) for tensor in wanted]


def _edge(tensor: Tensor) -> tuple:
    edge = torch.autograd.graph.get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def _outputs(node, mine) -> int:
    return max(len(node._input_metadata), max(mine) + 1)


def _backward(tensors, grad_tensors=None, *arguments, **options):
    tensors = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    given = grad_tensors if isinstance(grad_tensors, list | tuple) else [grad_tensors] * len(tensors)
    _walk(tensors, [torch.ones_like(t) if g is None else g for t, g in zip(tensors, given, strict=True)])


def _grad(outputs, inputs, create_graph=False, materialize_grads=False, **options):
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    found = _walk(outputs, [torch.ones_like(one) for one in outputs], list(inputs), create_graph)
    pairs = zip(found, inputs, strict=True)
    return tuple(torch.zeros_like(x) if g is None and materialize_grads else g for g, x in pairs)
