"""Weights of channels that follow their errors (Samudra 2, arXiv 2606.02610), so that none is drowned by larger ones.

Each channel's mean square error is multiplied by a running mean of its reciprocal, so that slow fields of small errors, such
as the deep ocean's, count as much as quick ones. After an update with the errors e, the weights w become
w + (v - w) / window, where v = 1 / e, but at most `limit` times the smallest of these.
"""

import dataclasses
from typing import Literal

import torch
from torch import Tensor, nn

from emulator.losses.registry import loss
from emulator.losses.scaled import ScaledError
from emulator.options import Options, option
from emulator.parallel.distributed import mean_over
from emulator.parallel.space import ALONE, Space

LEAST = 1e-8  # an error that is nothing counts as this, as published


@dataclasses.dataclass(frozen=True)
class DynamicOptions(Options):
    """Squared error of channels that all come to count the same, whatever their size (Samudra 2)."""

    kind: Literal["dynamic"] = option("dynamic")
    window: int = option(25, "updates that the weights of channels are a running mean over", minimum=1)
    limit: float | None = option(20.0, "largest weight over the smallest; none: no limit", minimum=1)


class DynamicError(nn.Module):
    """Squared error of `ScaledError`, each channel times a weight that follows its error.

    What is given of the channels' weights stays: channels come to count as these say. The weights `scale` start at 1.

    Args:
      error: the squared error, which gives scales and weights of the channels. window, limit: as above.
      space: the processes that hold a state together, each of which gives its part.
    """

    remembers = "scale", "seen"  # see emulator.networks.remembered

    def __init__(self, error: ScaledError, window: int, limit: float | None, space: Space = ALONE):
        super().__init__()
        if error.kind != "mse":
            raise ValueError(f"Expected a squared error to weight by channel, got {error.kind!r}")
        self.window, self.limit, self.space = window, limit, space
        share = space.total(error.factor.flatten(1).double().sum(1)) / error.unit.flatten().double().square()
        self.register_buffer("factor", error.factor, persistent=False)
        self.register_buffer("share", share.float(), persistent=False)  # of the loss, where all scaled errors are alike
        self.register_buffer("scale", torch.ones(len(share)))
        self.register_buffer("seen", torch.zeros(len(share) + 1), persistent=False)  # sums of errors, and how many

    def forward(self, state: Tensor, diagnostic: Tensor, true_state: Tensor, true_diagnostic: Tensor) -> Tensor:
        """Mean over the batch; all arguments `(batch, channel, *space)` in physical units."""
        difference = torch.cat([state - true_state, diagnostic - true_diagnostic], 1)
        errors = (difference.square() * self.factor).transpose(0, 1).flatten(1).sum(1) / len(state)
        if torch.is_grad_enabled():
            scaled = torch.where(self.share > 0, errors.detach() / self.share, 0.0)
            self.seen += torch.cat([scaled, scaled.new_ones(1)])
        return (errors * self.scale).sum()

    def advance(self) -> None:
        """Has the weights follow the errors since the last time, of all processes; without any they stay."""
        errors = mean_over(self.seen.clone())
        some = errors[-1] > 0
        self.seen.zero_()
        wanted = 1 / (errors[:-1] * self.space.size / errors[-1]).clamp(min=LEAST)
        if self.limit is not None:
            wanted = torch.minimum(wanted, self.limit * wanted.min())
        self.scale.copy_(torch.where(some, self.scale.lerp(wanted, 1 / self.window), self.scale))

    def load_state_dict(self, *given, **more):
        """As a module's; errors that were seen before count no more."""
        self.seen.zero_()
        return super().load_state_dict(*given, **more)


@loss("dynamic", DynamicOptions, bands=True)
def dynamic(options, weighted):
    return DynamicError(weighted.error(), options.window, options.limit, weighted.space)
