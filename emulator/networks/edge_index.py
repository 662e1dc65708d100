"""Edges sorted by their receivers: which rows of nodes they take, and which of them a node sums."""

import numpy as np
import torch
from torch import nn

from emulator.parallel.space import Fetch


class EdgeIndex(nn.Module):
    """Which rows of nodes an edge takes, and which edges a node sums.

    Args:
      senders, receivers: `(edge,)`, the receivers in order. sender_count, receiver_count: numbers of nodes.
      fetch: where other processes have the last of the senders, what gets them.
    Raises `ValueError` for receivers out of order and for indices that no node has.
    """

    def __init__(
        self,
        senders: np.ndarray,
        receivers: np.ndarray,
        sender_count: int,
        receiver_count: int,
        fetch: Fetch | None = None,
    ):
        super().__init__()
        senders, receivers = (torch.as_tensor(np.asarray(index)).long() for index in (senders, receivers))
        for name, index, count in (("senders", senders, sender_count), ("receivers", receivers, receiver_count)):
            if len(index) and not (0 <= int(index.min()) and int(index.max()) < count):
                raise ValueError(f"Expected {name} from 0 to {count - 1}, got {int(index.min())} to {int(index.max())}")
        if bool((receivers.diff() < 0).any()):
            raise ValueError("Expected edges in the order of their receivers")
        self.sender_count, self.receiver_count, self.fetch = sender_count, receiver_count, fetch
        self._count = len(receivers)  # a module looks for its tensors in several places, at every call
        order = torch.argsort(senders, stable=True)
        buffers = {
            "senders": senders,
            "receivers": receivers,
            # rows of the table [senders; receivers] that an edge adds up
            "ends": torch.stack([senders, receivers + sender_count], 1).flatten(),
            "pairs": torch.arange(0, 2 * len(senders), 2),
            "every": torch.arange(len(senders)),
            "of_receiver": _starts(receivers, receiver_count),
            "by_sender": order,
            "of_sender": _starts(senders, sender_count),
        }
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor, persistent=False)

    def __len__(self) -> int:
        return self._count

    def all_senders(self, own):
        """Own senders and those of other processes, `(own sender, ...)` -> `(sender, ...)`."""
        return own if self.fetch is None else torch.cat([own, self.fetch(own)])

    def to_own_senders(self, gradient):
        """What goes back through `all_senders`, for gradients that are written out; it writes over its argument."""
        if self.fetch is None:
            return gradient
        own = self.sender_count - len(self.fetch.place)
        return self.fetch.add_back(gradient[own:], gradient[:own])

    def both_ends(self, senders, receivers):
        """Sum of the rows at both ends of every edge, `(node, ...)` twice -> `(edge, ...)`."""
        table = torch.cat([senders.flatten(1), receivers.flatten(1)])
        return _bags(table, self.ends, self.pairs).view(len(self), *senders.shape[1:])

    def sum_to_receivers(self, edges):
        """`(edge, ...)` -> `(receiver, ...)`."""
        return _bags(edges.flatten(1), self.every, self.of_receiver).view(-1, *edges.shape[1:])

    def sum_to_senders(self, edges):
        """`(edge, ...)` -> `(sender, ...)`."""
        return _bags(edges.flatten(1), self.by_sender, self.of_sender).view(-1, *edges.shape[1:])


def _starts(index, count):
    """Where each node's edges begin among the sorted ones."""
    return torch.cat([index.new_zeros(1), torch.bincount(index, minlength=count).cumsum(0)[:-1]])


def _bags(rows, index, starts):
    return torch.embedding_bag(rows, index, starts, False, 0)[0]
