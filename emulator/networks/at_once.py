"""Messages along one set of edges, and updates of nodes by their sums, by compiled kernels: what parallel sweeps are made of.

As `emulator.networks.rounds`, which does both together and round after round; here nodes may hear along several sets of edges
before they are updated, so that the two are apart and every set has edges of its own.
"""

import torch
from torch import Tensor

from emulator.kernels import messages as native
from emulator.kernels import reused
from emulator.kernels.messages import Tail
from emulator.networks import passing
from emulator.networks.edge_index import EdgeIndex

_OWN = 4  # tensors before the tail: weights of edges, senders and receivers, and the bias


def messages(
    index: EdgeIndex,
    senders: Tensor,
    receivers: Tensor,
    edges: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor, Tail],
    update_edges: bool,
) -> tuple[Tensor, Tensor | None]:
    """`(node, batch, width)` twice and `(edge, batch or 1, width)` -> their sums, and edges (None unless `update_edges`).

    `weights`: of edges, senders and receivers, the receivers' bias, and the tail.
    """
    *own, tail = weights
    tensors = (x.contiguous() for x in (senders, receivers, edges))
    return _AlongEdges.apply((torch.is_grad_enabled(), update_edges), index, *tensors, *own, *tail)


def update(nodes: Tensor, sums: Tensor, own: Tensor, own_bias: Tensor, of_sums: Tensor, tail: Tail) -> Tensor:
    """Nodes `(node, batch, width)` plus a perceptron of them and of the sums."""
    return _Update.apply(torch.is_grad_enabled(), nodes.contiguous(), sums.contiguous(), own, own_bias, of_sums, *tail)


class _AlongEdges(torch.autograd.Function):
    @staticmethod
    def forward(ctx, options, index, senders, receivers, edges, *parameters):
        (keep, updated), (edge, sender, receiver, bias), tail = options, parameters[:_OWN], Tail(*parameters[_OWN:])
        count, batch, width = len(index), *receivers.shape[1:]
        ends = native.maps(senders, (sender, None))[0], native.maps(receivers, (receiver, bias))[0]
        result = reused.lend(count, batch, width) if updated else None
        h = reused.lend(count, batch, width) if keep else None
        sums = torch.zeros_like(receivers)
        passing.send(index, edges, edge, tail, ends, sums, result, h)
        if keep:
            ctx.save_for_backward(senders, receivers, edges, h, *parameters)
            ctx.index = index
            ctx.set_materialize_grads(False)
        return sums, result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g_sums, g_result):
        senders, receivers, edges, h, *parameters = ctx.saved_tensors
        torch.autograd.graph.increment_version(h)  # it is written over: a second time is refused
        (edge, sender, receiver, _), tail, index = parameters[:_OWN], Tail(*parameters[_OWN:]), ctx.index
        count, batch, _ = h.shape
        g_sums, g_result = (None if g is None else g.contiguous() for g in (g_sums, g_result))
        g_at_receivers = torch.zeros_like(receivers)
        given = {"h": h, "g_h": h, "g_rows": g_result, "g_sums": g_sums}
        given |= {"targets": index.receivers, "g_receivers": g_at_receivers}
        if edges.shape[1] == batch:
            g_edges = reused.lend(*edges.shape)
            carry = g_result is not None
            _, g_edge, g_tail = native.backward(tail, count, batch, edge, carry, **given, x=edges, g_x=g_edges)
        else:
            *_, g_tail = native.backward(tail, count, batch, **given)
            g_edges, g_edge = passing.shared_backward(edges, edge, h, g_result)
        at_senders = index.to_own_senders(index.sum_to_senders(h))
        g_senders, g_receivers = torch.zeros_like(senders), torch.zeros_like(receivers)
        ((g_sender, _),) = native.maps_backward(senders, g_senders, [at_senders], [sender])
        ((g_receiver, g_bias),) = native.maps_backward(receivers, g_receivers, [g_at_receivers], [receiver])
        return None, None, g_senders, g_receivers, g_edges, g_edge, g_sender, g_receiver, g_bias, *g_tail


class _Update(torch.autograd.Function):
    @staticmethod
    def forward(ctx, keep, nodes, sums, own, own_bias, of_sums, *tail):
        (at_nodes,), h = native.maps(nodes, (own, own_bias)), torch.empty_like(nodes) if keep else None
        updated = torch.empty_like(nodes)
        passing.update(nodes, at_nodes, sums, of_sums, Tail(*tail), updated, h)
        if keep:
            ctx.save_for_backward(nodes, sums, own, of_sums, *tail, h)
        return updated

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        nodes, sums, own, of_sums, *tail, h = ctx.saved_tensors
        torch.autograd.graph.increment_version(h)  # as above
        g_sums, g_of_sums, g_tail = passing.update_backward(sums, of_sums, Tail(*tail), g.contiguous(), h)
        g_nodes = g.clone(memory_format=torch.contiguous_format)
        ((g_own, g_bias),) = native.maps_backward(nodes, g_nodes, [h], [own])
        return None, g_nodes, g_sums, g_own, g_bias, g_of_sums, *g_tail
