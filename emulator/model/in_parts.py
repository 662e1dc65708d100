"""A network run on some rows of a batch at a time, so that what its backward pass needs is kept of no more than these."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def in_parts(network: nn.Module, rows: int, x: Tensor, **more: Tensor) -> Tensor:
    """What a network makes of `x` `(batch, in, *space)`, of so many rows at a time; 0 or no gradients: of all at once.

    Each part is computed again in the backward pass (activation checkpointing), and between the two passes the input alone is
    kept. `more`: arguments by name, `(batch, ...)` each. Networks whose rows meet, as in a batch norm, are not for it.
    """
    if not rows or len(x) <= rows or not torch.is_grad_enabled():
        return network(x, **more)
    pieces = zip(x.split(rows), *(tensor.split(rows) for tensor in more.values()), strict=True)
    made = [
        checkpoint(network, part, use_reentrant=False, **dict(zip(more, given, strict=True))) for part, *given in pieces
    ]
    return torch.cat(made)
