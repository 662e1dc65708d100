"""Messages along one set of edges, and updates of nodes by their sums, by compiled kernels: what parallel sweeps are made of.

As `emulator.networks.rounds`, which does both together and round after round; here nodes may hear along several sets of edges
before they are updated, so that the two are apart and every set has edges of its own.
"""

import torch
from torch import Tensor

from emulator.kernels import messages as native
from emulator.kernels import reused
from emulator.kernels.messages import Tail

_OWN = 4  # tensors before the tail: weights of edges, senders and receivers, and the bias


def messages(index, senders: Tensor, receivers: Tensor, edges: Tensor, weights: tuple, update: bool):
    """`(node, batch, width)` twice and `(edge, batch or 1, width)` -> their sums, and edges (None unless `update`).

    `weights`: of edges, senders and receivers, the receivers' bias, and the tail.
    """
    *own, tail = weights
    tensors = (x.contiguous() for x in (senders, receivers, edges))
    return _Messages.apply((torch.is_grad_enabled(), update), index, *tensors, *own, *tail)


def update(nodes: Tensor, sums: Tensor, own: Tensor, own_bias: Tensor, of_sums: Tensor, tail: Tail) -> Tensor:
    """Nodes `(node, batch, width)` plus a perceptron of them and of the sums."""
    return _Update.apply(torch.is_grad_enabled(), nodes.contiguous(), sums.contiguous(), own, own_bias, of_sums, *tail)


class _Messages(torch.autograd.Function):
    @staticmethod
    def forward(ctx, options, index, senders, receivers, edges, *parameters):
        (keep, updated), (edge, sender, receiver, bias), tail = options, parameters[:_OWN], Tail(*parameters[_OWN:])
        count, batch, width = len(index), *receivers.shape[1:]
        (at_senders,), (at_receivers,) = native.maps(senders, (sender, None)), native.maps(receivers, (receiver, bias))
        if edges.shape[1] == batch:
            rows = {"x": edges, "first": edge}
        else:  # multiplied once for all samples
            rows = {"shared": native.maps(edges, (edge, None))[0]}
        result = reused.lend(count * batch * width).view(count, batch, width) if updated else None
        if updated:
            rows |= {"residual": edges, "result": result}
        kept = _kept(count, batch, width, edges) if keep else {}
        ends = {"origins": index.senders, "targets": index.receivers}
        sums = torch.zeros_like(receivers)
        at = {"senders": index.all_senders(at_senders), "receivers": at_receivers}
        native.forward(tail, count, batch, sums=sums, **at, **ends, **rows, **kept)
        if keep:
            ctx.save_for_backward(senders, receivers, edges, *kept.values(), *parameters)
            ctx.index = index
            ctx.set_materialize_grads(False)
        return sums, result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g_sums, g_result):
        senders, receivers, edges, h, normed, rstd, *parameters = ctx.saved_tensors
        torch.autograd.graph.increment_version(h)  # it is written over: a second time is refused
        (edge, sender, receiver, _), tail, index = parameters[:_OWN], Tail(*parameters[_OWN:]), ctx.index
        count, batch, _ = h.shape
        g_sums = None if g_sums is None else g_sums.contiguous()
        g_result = None if g_result is None else g_result.contiguous()
        g_at_receivers = torch.zeros_like(receivers)
        rows = {"h": h, "normed": normed, "rstd": rstd, "g_h": h, "g_rows": g_result, "g_sums": g_sums}
        rows |= {"targets": index.receivers, "g_receivers": g_at_receivers}
        if edges.shape[1] == batch:
            g_edges = normed  # of no use after its own gradient
            _, g_edge, g_tail = native.backward(
                tail, count, batch, edge, g_result is not None, **rows, x=edges, g_x=g_edges
            )
        else:
            *_, g_tail = native.backward(tail, count, batch, **rows)
            g_edges = torch.zeros_like(edges) if g_result is None else g_result.sum(1, keepdim=True)
            ((g_edge, _),) = native.maps_backward(edges, g_edges, [h.sum(1, keepdim=True)], [edge])
        at_senders = index.to_own_senders(index.sum_to_senders(h))
        g_senders, g_receivers = torch.zeros_like(senders), torch.zeros_like(receivers)
        ((g_sender, _),) = native.maps_backward(senders, g_senders, [at_senders], [sender])
        ((g_receiver, g_bias),) = native.maps_backward(receivers, g_receivers, [g_at_receivers], [receiver])
        return None, None, g_senders, g_receivers, g_edges, g_edge, g_sender, g_receiver, g_bias, *g_tail


class _Update(torch.autograd.Function):
    @staticmethod
    def forward(ctx, keep, nodes, sums, own, own_bias, of_sums, *tail):
        (at_nodes,), kept = native.maps(nodes, (own, own_bias)), _kept(*nodes.shape, nodes) if keep else {}
        updated = torch.empty_like(nodes)
        rows = {"x": sums, "first": of_sums, "senders": at_nodes, "residual": nodes, "result": updated}
        native.forward(Tail(*tail), *nodes.shape[:2], **rows, **kept)
        if keep:
            ctx.save_for_backward(nodes, sums, own, of_sums, *tail, *kept.values())
        return updated

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        nodes, sums, own, of_sums, *tail, h, normed, rstd = ctx.saved_tensors
        torch.autograd.graph.increment_version(h)
        g, g_sums = g.contiguous(), torch.empty_like(sums)
        rows = {"h": h, "normed": normed, "rstd": rstd, "x": sums, "g_rows": g, "g_h": h, "g_x": g_sums}
        _, g_of_sums, g_tail = native.backward(Tail(*tail), *nodes.shape[:2], of_sums, **rows)
        g_nodes = g.clone()
        ((g_own, g_bias),) = native.maps_backward(nodes, g_nodes, [h], [own])
        return None, g_nodes, g_sums, g_own, g_bias, g_of_sums, *g_tail


def _kept(count: int, batch: int, width: int, like: Tensor) -> dict[str, Tensor]:
    """What the gradient needs: hidden values, normed messages and one over their spread."""
    h, normed = (reused.lend(count * batch * width).view(count, batch, width) for _ in range(2))
    return {"h": h, "normed": normed, "rstd": like.new_empty(count * batch)}
