"""Linear algebra of analyses: tangents and adjoints of functions by torch, and conjugate gradients."""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from emulator.kernels import library


class Linearised(NamedTuple):
    """A function about a point: its `value` there, and the derivative `tangent` and its `adjoint` as linear maps."""

    value: Tensor
    tangent: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]


def linearised(function: Callable[[Tensor], Tensor], point: Tensor) -> Linearised:
    """Derivatives of `function` at `point`, from one evaluation of it.

    The adjoint is linear in what it is given, and the tangent is the adjoint of that: all operations have to be
    differentiable twice. Compiled kernels and torch's fused attention, which are not, are set aside meanwhile.

    Raises `ValueError` for operations that are not, whose part of the tangent torch would take for zero.
    """
    with _written_out(), torch.enable_grad():
        at = point.detach().requires_grad_()
        value = function(at)
        weight = torch.zeros_like(value, requires_grad=True)
        pulled = torch.autograd.grad(value, at, weight, create_graph=True, materialize_grads=True)[0]
    if not _depends(pulled, weight):
        raise ValueError("Expected a function whose derivatives can be differentiated, got one with parts that cannot")

    def tangent(direction: Tensor) -> Tensor:
        with _written_out():
            return torch.autograd.grad(pulled, weight, direction, retain_graph=True, materialize_grads=True)[0]

    def adjoint(direction: Tensor) -> Tensor:
        with _written_out():
            return torch.autograd.grad(value, at, direction, retain_graph=True, materialize_grads=True)[0]

    return Linearised(value.detach(), tangent, adjoint)


@contextlib.contextmanager
def _written_out() -> Iterator[None]:
    """Operations by those of torch that it differentiates as often as asked."""
    with library.set_aside(), sdpa_kernel(SDPBackend.MATH):
        yield


def _depends(pulled, weight):
    """Whether an adjoint depends on what it was given, and by no operation that torch differentiates but once.

    Such an operation leaves a node in the graph that no path leads on from, so that its gradient is never asked for.
    """
    if not pulled.requires_grad:
        return False
    met, waiting, found = set(), [pulled.grad_fn], False
    while waiting:
        node = waiting.pop()
        if node is None or node in met:
            continue
        if node.name() == "torch::autograd::Error":
            return False
        met.add(node)
        found |= getattr(node, "variable", None) is weight
        waiting += [before for before, _ in node.next_functions]
    return found


class Solution(NamedTuple):
    """What conjugate gradients found: `x`, the number of iterations, and the residual's norm over that of the right side."""

    x: Tensor
    iterations: int
    residual: float


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor], right: Tensor, tolerance: float, iterations: int
) -> Solution:
    """Solves `A x = right` for a symmetric positive definite A (Hestenes and Stiefel 1952), from 0.

    Args:
      apply: the product with A. right: of any shape, float64.
      tolerance: of the residual's norm over that of `right`. iterations: the most that are made.
    """
    x, residual = torch.zeros_like(right), right.clone()
    direction, size = residual.clone(), float((right * right).sum())
    now, number = size, 0
    while number < iterations and now > tolerance**2 * size:
        image = apply(direction)
        step = now / float((direction * image).sum())
        x, residual = x + step * direction, residual - step * image
        before, now = now, float((residual * residual).sum())
        direction = residual + now / before * direction
        number += 1
    return Solution(x, number, (now / size) ** 0.5 if size else 0.0)
