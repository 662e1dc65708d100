"""Long short-term memory (Hochreiter and Schmidhuber 1997) along a sequence in both directions.

The weights are no `torch.nn.LSTM`'s, which keeps references to them and a common piece of memory on GPUs: they could neither
be spread over processes nor be written to a checkpoint as they are.
"""

import math

import torch
from torch import nn


class Recurrence(nn.Module):
    """Two recurrences, forwards and backwards: at each place the states of both.

    The function is that of `torch.nn.LSTM(bidirectional=True)`, whose two biases are one here.

    Args:
      inputs: channels. width: of a state.
    """

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.width, bound = width, 1 / math.sqrt(width)
        shapes = {
            "weight": (inputs,),
            "hidden": (width,),
            "bias": (),
        }  # of the four gates forwards, then those backwards
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(8 * width, *shape).uniform_(-bound, bound)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(place, item, inputs)` -> `(place, item, 2 width)`, forwards and backwards."""
        return self.compiled(x) if x.device.type == "cpu" else self.written_out(x)

    def compiled(self, x: torch.Tensor) -> torch.Tensor:
        """By torch's own kernel, 1.5 to 2.5 times as fast on processors."""
        first = x.new_zeros(2, x.shape[1], self.width)
        ways = zip(*(part.chunk(2) for part in (self.weight, self.hidden, self.bias)), strict=True)
        weights = [one for weight, hidden, bias in ways for one in (weight, hidden, bias, torch.zeros_like(bias))]
        return torch.lstm(x, (first, first), weights, True, 1, 0.0, self.training, True, False)[0]

    def written_out(self, x: torch.Tensor) -> torch.Tensor:
        """Place by place, both directions at once: cuDNN would copy the weights together at every call."""
        down, up = nn.functional.linear(x, self.weight, self.bias).chunk(2, -1)
        gates = torch.stack([down, up.flip(0)], 1)  # (place, direction, item, 4 width), backwards from the other end
        hidden = self.hidden.unflatten(0, (2, -1)).transpose(1, 2).to(gates.dtype)
        memory = state = gates.new_zeros(2, x.shape[1], self.width)
        states = []
        for n, now in enumerate(gates.unbind()):
            now = torch.baddbmm(now, state.to(hidden.dtype), hidden) if n else now
            enters, kept, candidate, leaves = now.chunk(4, -1)
            memory = torch.addcmul(kept.sigmoid() * memory, enters.sigmoid(), candidate.tanh())
            state = leaves.sigmoid() * memory.tanh()
            states.append(state)
        down, up = torch.stack(states).unbind(1)
        return torch.cat([down, up.flip(0)], -1)
