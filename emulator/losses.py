"""Losses on fields scaled by the size of a typical six-hour change."""

import torch
from torch import Tensor, nn

from emulator.channels import Layout


class ScaledError(nn.Module):
    """Area-weighted mean squared error: changes in units of their standard deviation, diagnostics in units of their own.

    Predicting "no change" and the mean diagnostics scores about the mean channel weight, whatever the variables.

    Args:
      area: cell shares `(*space,)`, summing to 1.
      prognostic_scale, diagnostic_scale: standard deviation of the step difference, and of the value, `(channel,)`.
      prognostic_weight, diagnostic_weight: weight of each channel `(channel,)`; normalised to a mean of 1 over all.
    """

    def __init__(self, area: Tensor, prognostic_scale, diagnostic_scale, prognostic_weight, diagnostic_weight):
        super().__init__()
        weight = torch.cat([prognostic_weight, diagnostic_weight]).double()
        scale = torch.cat([prognostic_scale, diagnostic_scale]).double()
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        space = [1] * area.dim()
        factor = (weight / weight.sum() / scale**2).view(-1, *space) * area
        self.register_buffer("factor", factor.float(), persistent=False)
        self._split = len(prognostic_scale)

    def forward(self, state: Tensor, diagnostic: Tensor, true_state: Tensor, true_diagnostic: Tensor) -> Tensor:
        """Mean over the batch; all arguments `(batch, channel, *space)` in physical units."""
        loss = ((state - true_state).square() * self.factor[: self._split]).sum()
        if diagnostic.shape[1]:
            loss = loss + ((diagnostic - true_diagnostic).square() * self.factor[self._split :]).sum()
        return loss / state.shape[0]


def channel_weights(layout: Layout, by_variable: dict[str, float], diagnostic: float) -> tuple[Tensor, Tensor]:
    """Weights of the prognostic and diagnostic channels: a variable's weight is shared by its levels' channels alike.

    Raises `ValueError` for a weight of a variable that the network does not predict.
    """
    names = (*layout.prognostic.names, *layout.diagnostic.names)
    if unknown := sorted(set(by_variable) - set(names)):
        raise ValueError(f"Expected weights of predicted variables {list(names)}, got {unknown}")

    def of(channels, default):
        return torch.cat(
            [
                torch.full((w,), by_variable.get(n, default))
                for n, w in zip(channels.names, channels.widths, strict=True)
            ]
            or [torch.zeros(0)]
        )

    return of(layout.prognostic, 1.0), of(layout.diagnostic, diagnostic)
