"""Losses on fields scaled by the size of a typical six-hour change."""

import torch
from torch import Tensor, nn

from emulator.data.channels import Layout
from emulator.losses.options import LossOptions
from emulator.losses.registry import loss
from emulator.parallel.space import Space

KINDS = ("mse", "l1", "huber")


class ScaledError(nn.Module):
    """Area-weighted mean error: changes in units of their standard deviation, diagnostics in units of their own.

    Predicting "no change" and the mean diagnostics scores about the mean channel weight, whatever the variables, for the
    squared error.

    Args:
      area: cell shares `(*space,)`, summing to 1; or those of each channel where it exists, `(channel, *space)`.
      prognostic_scale, diagnostic_scale: standard deviation of the step difference, and of the value, `(channel,)`.
      prognostic_weight, diagnostic_weight: weight of each channel `(channel,)`; normalised to a mean of 1 over all.
      exists: where the channels exist, `(channel, *space)` bool, over which cells each is averaged; None: everywhere.
      kind: of a scaled error e: "mse" e^2, "l1" |e|, "huber" e^2 up to `delta` and 2 delta |e| - delta^2 beyond.
    """

    def __init__(
        self,
        area: Tensor,
        prognostic_scale,
        diagnostic_scale,
        prognostic_weight,
        diagnostic_weight,
        kind: str = "mse",
        delta: float = 1.0,
        exists: Tensor | None = None,
    ):
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"Expected the kind of error among {KINDS}, got {kind!r}")
        weight = torch.cat([prognostic_weight, diagnostic_weight]).double()
        scale = torch.cat([prognostic_scale, diagnostic_scale]).double()
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        space = [1] * (area.dim() if exists is None else exists.dim() - 1)
        if exists is not None:
            own = exists * area
            area = own / own.flatten(1).sum(1).clamp(min=1e-12).view(-1, *space)
        power = 2 if kind == "mse" else 0  # the square takes the scale with the factor, the others before it
        factor = (weight / weight.sum() / scale**power).view(-1, *space) * area
        self.register_buffer("factor", factor.float(), persistent=False)
        self.register_buffer("unit", (1 / scale).float().view(-1, *space), persistent=False)
        self.kind, self.delta = kind, delta
        self._split = len(prognostic_scale)

    def cut(self, space: Space) -> "ScaledError":
        """This process's part, of fields on its rows."""
        self.factor = space.cut(self.factor)
        return self

    @property
    def weights(self) -> Tensor:
        """Of the squares of errors that are scaled already, `(channel, *space)`, of mean 1 over all."""
        return self.factor / self.unit.square() * self.factor.numel()

    def forward(self, state: Tensor, diagnostic: Tensor, true_state: Tensor, true_diagnostic: Tensor) -> Tensor:
        """Mean over the batch; all arguments `(batch, channel, *space)` in physical units."""
        first, second = slice(None, self._split), slice(self._split, None)
        loss = (self._error(state - true_state, first) * self.factor[first]).sum()
        if diagnostic.shape[1]:
            loss = loss + (self._error(diagnostic - true_diagnostic, second) * self.factor[second]).sum()
        return loss / state.shape[0]

    def _error(self, difference: Tensor, channels: slice) -> Tensor:
        if self.kind == "mse":
            return difference.square()
        size = (difference * self.unit[channels]).abs()
        if self.kind == "l1":
            return size
        within = size.clamp(max=self.delta)
        return within * (2 * size - within)


@loss("mse", LossOptions, bands=True)
def squared(options, weighted):
    return weighted.error("mse")


@loss("l1", LossOptions, bands=True)
def absolute(options, weighted):
    return weighted.error("l1")


@loss("huber", LossOptions, bands=True)
def huber(options, weighted):
    return weighted.error("huber", options.delta)


def channel_weights(
    layout: Layout, by_variable: dict[str, float], diagnostic: float, by_level: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Weights of the prognostic and diagnostic channels, each `(channel,)`.

    Args:
      by_variable: the mean weight of a variable's channels; else 1 of prognostic and `diagnostic` of diagnostic ones.
      by_level: `(level,)`, positive; within a variable the levels count in proportion to it. None: alike.
    Raises `ValueError` for a weight of a variable that the network does not predict, and for weights of other levels.
    """
    names = (*layout.prognostic.names, *layout.diagnostic.names)
    if unknown := sorted(set(by_variable) - set(names)):
        raise ValueError(f"Expected weights of predicted variables {list(names)}, got {unknown}")

    def of(channels, default):
        parts = [torch.zeros(0)]
        for name, levels in zip(channels.names, channels.levels, strict=True):
            weight = torch.full((max(1, levels),), by_variable.get(name, default))
            if levels and by_level is not None:
                if len(by_level) != levels:
                    raise ValueError(f"Expected weights of the {levels} levels of {name}, got {len(by_level)}")
                weight = weight * (by_level / by_level.mean()).float()
            parts.append(weight)
        return torch.cat(parts)

    return of(layout.prognostic, 1.0), of(layout.diagnostic, diagnostic)
