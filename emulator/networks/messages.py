"""Message passing on edges sorted by their receivers, with gradients written out.

Nodes are `(node, batch, channel)` and edges `(edge, batch, channel)`. The first layer of an edge's perceptron is linear in
[edge, sender, receiver], so nodes are multiplied before they are gathered: there are fewer of them than edges. Gathering
two rows for every edge and summing the edges of a node are both sums over bags of rows (`torch.embedding_bag`), forward and
backward, and nothing is scattered. Only what cannot be had again cheaply is kept for the backward pass.
"""

import contextlib

import torch
import torch.nn.functional as F
from torch import nn

from emulator.kernels.messages import EPS, Tail
from emulator.kernels.precision import exact_products
from emulator.networks import at_once, rounds
from emulator.networks.edge_index import EdgeIndex
from emulator.networks.layers import Linear, full


def _tail(h, weight, bias, scale, shift):
    """`LayerNorm(W silu(h) + b)` of `(row, channel)`, in float32 or better, and what its gradient needs."""
    m = torch.addmm(bias.to(h.dtype), F.silu(h), weight.to(h.dtype).t())
    y, mean, rstd = torch.native_layer_norm(full(m), (m.shape[1],), scale, shift, EPS)
    return y, (h, m, mean, rstd)


def _tail_backward(g, saved, weight, scale, shift):
    """Gradients of `_tail` with respect to its input and its four parameters."""
    h, m, mean, rstd = saved
    g, g_scale, g_shift = torch.ops.aten.native_layer_norm_backward(
        g, full(m), (m.shape[1],), mean, rstd, scale, shift, [True, True, True]
    )
    g_bias, g = g.sum(0), g.to(h.dtype)
    g_weight = full(torch.mm(g.t(), F.silu(h)))
    g = torch.mm(g, weight.to(h.dtype))
    return torch.ops.aten.silu_backward(g, h), (g_weight, g_bias, g_scale, g_shift)


def _products(h):
    """Matrix products of full precision by the fastest library; half precision takes torch's own.

    What torch.compile makes one graph of has no settings inside: there the process's own count.
    """
    if torch.compiler.is_compiling():
        return contextlib.nullcontext()
    return exact_products(small=h.dtype != torch.float32)


class _Perceptron(torch.autograd.Function):
    """`_tail` for rows of any shape."""

    @staticmethod
    def forward(ctx, h, weight, bias, scale, shift):
        with _products(h):
            y, saved = _tail(h.flatten(0, -2), weight, bias, scale, shift)
        ctx.save_for_backward(weight, scale, shift, *saved)
        return y.view(h.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        weight, scale, shift, *saved = ctx.saved_tensors
        with _products(saved[0]):
            g_h, g_parameters = _tail_backward(g.flatten(0, -2).contiguous(), saved, weight, scale, shift)
        return g_h.view(g.shape), *g_parameters


class _Messages(torch.autograd.Function):
    """Messages along edges, summed at their receivers, and the edges updated by them.

    `edges`: `(edge, batch or 1, channel)`, 1 for edges that the samples share. `senders`, `receivers`: the nodes, already
    multiplied by their part of the first layer. Returns the sums `(receiver, batch, channel)` and, with `update`, the edges
    plus their messages. Over eight parameters, since torch hands gradients to tensors that are passed one by one.
    """

    @staticmethod
    def forward(ctx, edges, senders, receivers, first, weight, bias, scale, shift, index, dtype, update):
        batch, width = senders.shape[1:]
        h = index.both_ends(full(senders), full(receivers)).flatten(0, 1)
        rows = edges.flatten(0, 1).to(dtype)
        with _products(rows):
            if dtype != h.dtype:
                h += _spread(torch.mm(rows, first.to(dtype).t()), edges.shape[1], batch)
                h = h.to(dtype)
            elif edges.shape[1] == batch:
                h.addmm_(rows, first.t())
            else:
                h += _spread(torch.mm(rows, first.t()), edges.shape[1], batch)
            y, saved = _tail(h, weight, bias, scale, shift)
        y = y.view(-1, batch, width)
        ctx.save_for_backward(edges, first, weight, scale, shift, *saved)
        ctx.index, ctx.batch = index, batch
        return index.sum_to_receivers(y), edges + y if update else None

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g_sums, g_edges):
        edges, first, weight, scale, shift, *saved = ctx.saved_tensors
        index, dtype, width = ctx.index, saved[0].dtype, scale.shape[0]
        g = g_sums.flatten(1).index_select(0, index.receivers).view(-1, width)
        if g_edges is not None:
            g += g_edges.reshape(-1, width)
        with _products(saved[0]):
            g, g_parameters = _tail_backward(g, saved, weight, scale, shift)
            single = full(g).view(-1, ctx.batch, width)
            g_senders, g_receivers = index.sum_to_senders(single), index.sum_to_receivers(single)
            if edges.shape[1] != ctx.batch:  # edges that the samples share collect from all of them
                g = single.sum(1).to(dtype)
                g_edges = None if g_edges is None else g_edges.sum(1, keepdim=True)
            g_first = full(torch.mm(g.t(), edges.flatten(0, 1).to(dtype)))
            if g_edges is None or dtype != g_edges.dtype:
                g = full(torch.mm(g, first.to(dtype))).view(edges.shape)
                g_edges = g if g_edges is None else g.add_(g_edges)
            else:
                g_edges = torch.addmm(g_edges.reshape(-1, width), g, first).view(edges.shape)
        return g_edges, g_senders, g_receivers, g_first, *g_parameters, None, None, None


def _spread(rows, samples, batch):
    """Rows of edges of `samples` (1 or the batch's) for every sample of the batch, `(edge * batch, channel)`."""
    if samples == batch:
        return rows
    return rows[:, None].expand(-1, batch, -1).reshape(-1, rows.shape[1])


class Perceptron(nn.Module):
    """Linear, SiLU, linear, LayerNorm: `(..., inputs)` -> `(..., width)` float32."""

    def __init__(self, inputs: int, width: int, precision: str = "float32"):
        super().__init__()
        self.first, self.second = Linear(inputs, width, gain=2.0, precision=precision), Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tail = Tail(self.second.weight, self.second.bias, self.norm.weight, self.norm.bias)
        if self.first.precision == "float32" and rounds.serves(self.first.weight.t(), x):
            return rounds.perceptron(x, self.first.weight, self.first.bias, tail)
        return _Perceptron.apply(self.first(x), *tail)


class Messages(nn.Module):
    """Messages along edges by a perceptron of [edge, sender, receiver], and their sums at the receivers.

    Args:
      index: the edges. width: channels of nodes and edges. update_edges: whether edges are returned, plus their messages.
      precision: of the matrix products, "float32" or "bfloat16"; sums, norms and what leaves a layer stay in float32.
    """

    def __init__(self, index: EdgeIndex, width: int, update_edges: bool = True, precision: str = "float32"):
        super().__init__()
        self.index, self.update_edges, self.precision = index, update_edges, precision
        # one layer of [edge, sender, receiver], kept in the parts that are applied
        self.edge_first = Linear(width, width, bias=False, gain=2 / 3)
        self.sender_first = Linear(width, width, bias=False, gain=2 / 3, precision=precision)
        self.receiver_first = Linear(width, width, gain=2 / 3, precision=precision)
        self.edge_second, self.edge_norm = Linear(width, width), nn.LayerNorm(width, eps=EPS)

    def forward(self, senders, receivers, edges):
        """`(node, batch, width)` twice and `(edge, batch or 1, width)` -> sums, and edges (None if not updated)."""
        weights = self.edge_first.weight, self.sender_first.weight, self.receiver_first.weight, self.receiver_first.bias
        tail = Tail(self.edge_second.weight, self.edge_second.bias, self.edge_norm.weight, self.edge_norm.bias)
        if self.precision == "float32" and rounds.serves(edges, senders, receivers, *weights, *tail):
            return at_once.messages(self.index, senders, receivers, edges, (*weights, tail), self.update_edges)
        dtype = torch.bfloat16 if self.precision == "bfloat16" else edges.dtype
        return _Messages.apply(
            edges,
            self.index.all_senders(self.sender_first(senders)),
            self.receiver_first(receivers),
            self.edge_first.weight,
            *tail,
            self.index,
            dtype,
            self.update_edges,
        )


class Update(nn.Module):
    """Nodes plus a perceptron of [node, sum of messages], `(node, batch, width)` each; arguments as those of `Messages`."""

    def __init__(self, width: int, precision: str = "float32"):
        super().__init__()
        _add_update(self, width, precision)

    def forward(self, nodes, sums):
        return _updated(self, nodes, sums)


def _add_update(module, width, precision):
    module.own_first = Linear(width, width, precision=precision)
    module.sum_first = Linear(width, width, bias=False, precision=precision)
    module.node_second, module.node_norm = Linear(width, width), nn.LayerNorm(width, eps=EPS)


def _updated(module, nodes, sums):
    tail = Tail(module.node_second.weight, module.node_second.bias, module.node_norm.weight, module.node_norm.bias)
    weights = module.own_first.weight, module.own_first.bias, module.sum_first.weight
    if module.own_first.precision == "float32" and rounds.serves(nodes, sums, *weights, *tail):
        return at_once.update(nodes, sums, *weights, tail)
    h = module.own_first(nodes) + module.sum_first(sums)
    return nodes + _Perceptron.apply(h, *tail)


class Interaction(Messages):
    """One round of message passing (the interaction network of Battaglia et al. 2016): edges, then their receivers."""

    def __init__(self, index: EdgeIndex, width: int, update_edges: bool = True, precision: str = "float32"):
        super().__init__(index, width, update_edges, precision)
        _add_update(self, width, precision)

    def weights(self) -> rounds.Weights:
        return rounds.Weights(
            self.edge_first.weight,
            self.sender_first.weight,
            self.receiver_first.weight,
            self.receiver_first.bias,
            Tail(self.edge_second.weight, self.edge_second.bias, self.edge_norm.weight, self.edge_norm.bias),
            self.own_first.weight,
            self.own_first.bias,
            self.sum_first.weight,
            Tail(self.node_second.weight, self.node_second.bias, self.node_norm.weight, self.node_norm.bias),
        )

    def forward(self, senders, receivers, edges):
        """`(node, batch, width)` twice and `(edge, batch or 1, width)` -> receivers, and edges (None if not updated)."""
        sums, edges = super().forward(senders, receivers, edges)
        return _updated(self, receivers, sums), edges


def exchange(layers, senders, receivers, edges):
    """Rounds of `Interaction` one after the other, `(node, batch, width)` twice and `(edge, batch or 1, width)`.

    After the first round the receivers send. Returns receivers and edges, None if the last round does not update them.
    """
    weights = [layer.weights() for layer in layers]
    known = all(layer.precision == "float32" for layer in layers) and all(layer.update_edges for layer in layers[:-1])
    if known and rounds.serves(receivers, senders, edges, *weights[0].flat()):
        return rounds.rounds(layers[0].index, senders, receivers, edges, weights, layers[-1].update_edges)
    for n, layer in enumerate(layers):
        receivers, edges = layer(receivers if n else senders, receivers, edges)
    return receivers, edges
