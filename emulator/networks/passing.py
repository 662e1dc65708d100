"""Rows of edges and nodes as the compiled kernels take them: what single sets of edges and rounds of messages do alike."""

import torch
from torch import Tensor

from emulator.kernels import messages as native
from emulator.kernels.messages import Tail
from emulator.networks.edge_index import EdgeIndex


def send(
    index: EdgeIndex,
    edges: Tensor,
    weight: Tensor,
    tail: Tail,
    ends: tuple[Tensor, Tensor],
    sums: Tensor,
    to: Tensor | None,
    h: Tensor | None,
) -> None:
    """Add the messages to the `sums` of their receivers, and put edges plus messages into `to`, if not None.

    Args:
      edges: `(edge, batch or 1, width)`, 1 for those that the samples share. weight, tail: of the edges' part of the first
        layer and of what follows it. ends: own senders and receivers, `(node, batch, width)`, multiplied by their parts.
      h: where hidden values go, for the gradient; None without one.
    """
    batch = sums.shape[1]
    if edges.shape[1] == batch:
        rows = {"x": edges, "first": weight}
    else:  # multiplied once for all samples
        rows = {"shared": native.maps(edges, (weight, None))[0]}
    if to is not None:
        rows |= {"residual": edges, "result": to}
    rows |= {"senders": index.all_senders(ends[0]), "receivers": ends[1]}
    rows |= {"origins": index.senders, "targets": index.receivers}
    native.forward(tail, len(index), batch, sums=sums, h=h, **rows)


def shared_backward(edges: Tensor, weight: Tensor, g_hidden: Tensor, g_edges: Tensor | None) -> tuple[Tensor, Tensor]:
    """Gradients of edges that the samples share, `(edge, 1, width)`, and of their weight.

    From those of the hidden values and, if they were updated, of the edges, both `(edge, batch, width)`.
    """
    g_shared = torch.zeros_like(edges) if g_edges is None else g_edges.sum(1, keepdim=True)
    ((g_weight, _),) = native.maps_backward(edges, g_shared, [g_hidden.sum(1, keepdim=True)], [weight])
    return g_shared, g_weight


def update(
    nodes: Tensor,
    at_nodes: Tensor,
    sums: Tensor,
    weight: Tensor,
    tail: Tail,
    to: Tensor,
    h: Tensor | None,
) -> None:
    """Put nodes plus a perceptron of them and of the sums into `to`, `(node, batch, width)` each.

    `at_nodes`: nodes multiplied by their part of the first layer. `weight`: of the sums. `h`: as in `send`.
    """
    rows = {"x": sums, "first": weight, "senders": at_nodes, "residual": nodes, "result": to}
    native.forward(tail, *nodes.shape[:2], h=h, **rows)


def update_backward(sums: Tensor, weight: Tensor, tail: Tail, g: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tail]:
    """Gradients of the sums, of their weight and of the tail; that of the hidden values goes where these were kept.

    `g`: of the updated nodes, `(node, batch, width)`.
    """
    g_sums = torch.empty_like(sums)
    rows = {"h": h, "x": sums, "g_rows": g, "g_h": h, "g_x": g_sums}
    _, g_weight, g_tail = native.backward(tail, *sums.shape[:2], weight, **rows)
    return g_sums, g_weight, g_tail
