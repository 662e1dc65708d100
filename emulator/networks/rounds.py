"""Perceptrons and rounds of messages by compiled kernels, with gradients written out.

The same as `emulator.networks.messages` makes of torch's operations. Edges are updated in place: the gradient subtracts the
messages again, so that one copy of the edges serves all rounds.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from emulator.kernels import messages as native
from emulator.kernels import reused
from emulator.kernels.messages import Tail
from emulator.kernels.precision import exact_products
from emulator.networks import passing
from emulator.networks.edge_index import EdgeIndex


def serves(*tensors: Tensor) -> bool:
    """Whether the compiled kernels take tensors whose last axis is the width."""
    return not torch.compiler.is_compiling() and native.serves(tensors[0].shape[-1], *tensors)


class Weights(NamedTuple):
    """Parameters of a round: of edges, senders and receivers, the message's tail; of the node and the sum, the update's."""

    edge: Tensor
    sender: Tensor
    receiver: Tensor
    receiver_bias: Tensor
    message: Tail
    own: Tensor
    own_bias: Tensor
    sum: Tensor
    update: Tail

    @classmethod
    def of(cls, flat) -> "Weights":
        """From the 15 tensors in order."""
        return cls(*flat[:4], Tail(*flat[4:8]), *flat[8:11], Tail(*flat[11:]))

    def flat(self) -> tuple[Tensor, ...]:
        return *self[:4], *self.message, *self[5:8], *self.update


_EACH = 15  # tensors


def perceptron(x: Tensor, weight: Tensor, bias: Tensor, tail: Tail) -> Tensor:
    """Linear, SiLU, linear, LayerNorm: `(..., inputs)` -> `(..., width)`."""
    return _Perceptron.apply(x, weight, bias, *tail)


def rounds(
    index: EdgeIndex, senders: Tensor, receivers: Tensor, edges: Tensor, weights: list[Weights], update_edges: bool
) -> tuple[Tensor, Tensor | None]:
    """`(node, batch, width)` twice and `(edge, batch or 1, width)` -> receivers and edges after all rounds.

    After the first round the receivers send. The last round's edges are None unless `update_edges`.
    """
    flat = [parameter for each in weights for parameter in each.flat()]
    tensors = (x.contiguous() for x in (senders, receivers, edges))
    return _Rounds.apply((torch.is_grad_enabled(), update_edges), index, *tensors, *flat)


class _Perceptron(torch.autograd.Function):
    """Everything is computed again for the gradient, from inputs that are narrower."""

    @staticmethod
    def forward(ctx, x, weight, bias, *tail):
        count, width = x.shape[:-1].numel(), len(bias)
        y = reused.lend(count, width)
        native.forward(Tail(*tail), count, 1, weight, start=bias, x=x.contiguous(), result=y)
        ctx.save_for_backward(x, weight, bias, *tail)
        return y.view(*x.shape[:-1], width)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        x, weight, bias, *tail = ctx.saved_tensors
        count, g_x = x.shape[:-1].numel(), None
        g_h = reused.lend(count, len(bias)) if ctx.needs_input_grad[0] else None
        rows = {"start": bias, "x": x.contiguous(), "g_rows": g.contiguous(), "g_h": g_h}
        g_start, g_weight, g_tail = native.backward(Tail(*tail), count, 1, weight, **rows)
        if g_h is not None:
            with exact_products():
                g_x = torch.mm(g_h, weight).view(x.shape)
        return g_x, g_weight, g_start, *g_tail


class _Rounds(torch.autograd.Function):
    @staticmethod
    def forward(ctx, options, index, senders, receivers, edges, *parameters):
        (keep, update), weights = options, _split(parameters)
        first_edges, start, first = edges, receivers, senders
        updates = len(weights) - 1 + update
        saved = _Saved((len(weights), updates), len(index), *receivers.shape) if keep else None
        for n, w in enumerate(weights):
            of_edges, of_nodes = saved.of_round(n) if keep else (None, _NOTHING)
            to = edges if n else saved.edges if keep else edges.new_empty(len(index), *receivers.shape[1:])
            to = to if n < updates else None
            receivers = _round(w, index, senders, receivers, edges, to, of_edges, of_nodes)
            senders, edges = receivers, edges if to is None else to
        if keep:
            if updates and first_edges.shape[1] == start.shape[1]:
                first_edges = None  # the gradient comes back to them from the updated ones
            ctx.save_for_backward(first, start, first_edges, saved.memory, *parameters)
            ctx.index, ctx.updates = index, updates
            ctx.set_materialize_grads(False)
        # edges that were kept are changed by the gradient
        return receivers, None if not update else edges.clone() if keep else edges

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g, g_edges):
        senders, start, first_edges, memory, *parameters = ctx.saved_tensors
        torch.autograd.graph.increment_version(memory)  # it is written over: a second time is refused
        g = torch.zeros_like(start) if g is None else g.clone(memory_format=torch.contiguous_format)
        g_edges = None if g_edges is None else g_edges.clone(memory_format=torch.contiguous_format)
        weights, gradients = _split(parameters), []
        saved = _Saved((len(weights), ctx.updates), len(ctx.index), *start.shape, memory)
        state = _Backward(ctx.index, first_edges, saved.edges, g_edges)
        for n in reversed(range(len(weights))):
            of_edges, of_nodes = saved.of_round(n)
            receivers = saved.of_round(n - 1)[1].updated if n else start
            updated = n < ctx.updates
            g_senders, g_weights = state.round(weights[n], senders, receivers, of_edges, of_nodes, g, (n, updated))
            gradients = [*g_weights.flat(), *gradients]
        return None, None, g_senders, g, state.g_edges, *gradients


class _Nodes(NamedTuple):
    """What is kept of the nodes in a round, `(node, batch, width)`: hidden values, sums, and the updated ones."""

    h: Tensor | None = None
    sums: Tensor | None = None
    updated: Tensor | None = None


_NOTHING = _Nodes()


class _Saved:
    """All that is kept for the gradient of `rounds`, in one piece of memory; `edges`: those that rounds update.

    The last round's nodes are none of it.
    """

    def __init__(self, rounds: tuple[int, int], count: int, nodes: int, batch: int, width: int, memory=None):
        rounds, updates = rounds
        self._shapes = (count, batch, width), (nodes, batch, width)
        self._sizes = [count * batch * width, *[nodes * batch * width] * 3]
        edges, each, last = self._sizes[0] * bool(updates), sum(self._sizes), self._sizes[-1]
        self.memory = reused.lend(edges + rounds * each - last) if memory is None else memory
        self.edges = self.memory[:edges].view(-1, batch, width)
        self._rounds = self.memory[edges:].split(each)

    def of_round(self, n: int) -> tuple[Tensor, _Nodes]:
        """Hidden values of the edges, and what is kept of the nodes, in round `n`."""
        memory = self._rounds[n]
        of_edges, *of_nodes = memory.split(self._sizes if len(memory) == sum(self._sizes) else self._sizes[:-1])
        return of_edges.view(self._shapes[0]), _Nodes(*(x.view(self._shapes[1]) for x in of_nodes))


def _split(flat) -> list[Weights]:
    return [Weights.of(flat[n : n + _EACH]) for n in range(0, len(flat), _EACH)]


def _round(w, index, senders, receivers, edges, to, of_edges, of_nodes):
    """Receivers after a round; the edges after it are put into `to`, if not None."""
    layers = (w.sender, None), (w.receiver, w.receiver_bias), (w.own, w.own_bias)
    if senders is receivers:
        at_senders, at_receivers, at_nodes = native.maps(receivers, *layers)
    else:
        (at_senders,), (at_receivers, at_nodes) = native.maps(senders, layers[0]), native.maps(receivers, *layers[1:])
    sums, updated = (torch.empty_like(receivers) if x is None else x for x in of_nodes[1:])
    passing.send(index, edges, w.edge, w.message, (at_senders, at_receivers), sums.zero_(), to, of_edges)
    passing.update(receivers, at_nodes, sums, w.sum, w.update, updated, of_nodes.h)
    return updated


class _Backward:
    """Goes back through the rounds with the edges and their gradients, and writes over what they kept.

    Args:
      index: the edges. first_edges: those that the first round took, if they were not updated or the samples share them.
      edges: those that were updated last. g_edges: their gradient.
    """

    def __init__(self, index, first_edges: Tensor | None, edges: Tensor, g_edges: Tensor | None):
        self.index, self.first_edges, self.edges, self.g_edges = index, first_edges, edges, g_edges

    def round(self, w: Weights, senders, receivers, h: Tensor, of_nodes: _Nodes, g, place: tuple[int, bool]):
        """Gradients of the senders and the weights; that of the receivers, `g`, becomes the one before the round.

        `place`: number of the round and whether it updated the edges. From the second on the receivers send, and their
        gradient is in `g`.
        """
        n, g_at_receivers = place[0], torch.zeros_like(g)
        g_sums, g_sum, g_update = passing.update_backward(of_nodes.sums, w.sum, w.update, g, of_nodes.h)
        g_edge, g_message = self._messages(w, h, {"g_sums": g_sums, "g_receivers": g_at_receivers}, *place)
        at = [self.index.to_own_senders(self.index.sum_to_senders(h)), g_at_receivers, of_nodes.h]
        weights = [w.sender, w.receiver, w.own]
        if n:
            g_senders, g_maps = None, native.maps_backward(receivers, g, at, weights)
        else:
            g_senders = torch.zeros_like(senders)
            g_maps = native.maps_backward(senders, g_senders, at[:1], weights[:1])
            g_maps += native.maps_backward(receivers, g, at[1:], weights[1:])
        (g_sender, _), g_receiver, g_node = g_maps
        return g_senders, Weights(g_edge, g_sender, *g_receiver, g_message, *g_node, g_sum, g_update)

    def _messages(self, w, h, gradients, n, updated):
        """Gradients of the weights of the edges and of the tail; those of the hidden values go where these were."""
        batch = h.shape[1]
        given = gradients | {"targets": self.index.receivers, "h": h, "g_h": h, "g_rows": self.g_edges}
        if n == 0 and self.first_edges is not None and self.first_edges.shape[1] != batch:
            *_, g_message = native.backward(w.message, len(self.index), batch, **given)
            self.g_edges, g_edge = passing.shared_backward(self.first_edges, w.edge, h, self.g_edges)
            return g_edge, g_message
        carry = self.g_edges is not None
        if updated:
            given |= {"x": self.edges, "after": self.edges}
        else:
            given["x"] = self.edges if n else self.first_edges
        if not carry:
            self.g_edges = reused.lend(*h.shape)
        return native.backward(w.message, len(self.index), batch, w.edge, carry, **given, g_x=self.g_edges)[1:]
