"""The error of a step for a training, from its options, a store and the statistics of its variables."""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from torch import nn

from emulator.data.channels import outside_of
from emulator.data.normalisation import channel_statistics
from emulator.data.samples import Samples
from emulator.losses.options import RegionWeight
from emulator.losses.region import with_share, with_share_of_each
from emulator.losses.registry import LOSSES
from emulator.losses.scaled import ScaledError, channel_weights
from emulator.model.lengths import growth
from emulator.model.step import Step
from emulator.options import Options
from emulator.store.schema import levels_of


class Weighted:
    """Errors weighted by area, variable and level, of the steps of some samples. Cells where a field is not, or where a
    boundary prescribes it, do not count.

    Of several processes that hold a state together each has its part of an error: the sum over them is the error.

    Args:
      samples: gives channels and grid. statistics: gives the scales of the channels.
      by_variable, diagnostic: as in `channel_weights`.
      by_level: "alike", "mass" (a layer's share of the air) or a number for each level from the top down.
      region: a region and its share of the error; None: cells count by area.
    Raises `ValueError` where the store does not have what the weights need.
    """

    def __init__(
        self,
        samples: Samples,
        statistics: xr.Dataset,
        by_variable: Mapping[str, float],
        by_level: str | Sequence[float] = "alike",
        diagnostic: float = 0.2,
        region: RegionWeight | None = None,
    ):
        channels = samples.layout
        self.grid, self.space = samples.grid, samples.space
        self.area = self.grid.area
        outside = [outside_of(samples.dataset, group) for group in (channels.prognostic, channels.diagnostic)]
        self.exists = None
        if any(mask is not None for mask in outside):
            pairs = zip(outside, (channels.prognostic, channels.diagnostic), strict=True)
            empty = (
                np.zeros((group.count, *samples.grid.shape), bool) if mask is None else mask for mask, group in pairs
            )
            self.exists = torch.from_numpy(~np.concatenate(list(empty)))
        if samples.boundary is not None and samples.boundary.frame.is_inside:
            self.exists = self._interior(samples) if self.exists is None else self.exists & self._interior(samples)
        if region is not None and self.exists is None:
            self.area = with_share(self.grid, region)
        elif region is not None:  # a field has its share of the cells where it is
            names = [*channels.prognostic.labels(), *channels.diagnostic.labels()]
            self.area = with_share_of_each(self.grid, region, self.exists.numpy(), names)
        self.weights = channel_weights(channels, by_variable, diagnostic, level_weights(samples.dataset, by_level))
        self.scales = (
            channel_statistics(statistics, channels.prognostic, "difference_std"),
            channel_statistics(statistics, channels.diagnostic, "std"),
        )

    def _interior(self, samples: Samples) -> torch.Tensor:
        """Cells that no boundary prescribes, for every channel."""
        count = samples.layout.prognostic.count + samples.layout.diagnostic.count
        return torch.from_numpy(samples.boundary.frame.interior).expand(count, *samples.grid.shape)

    def error(self, kind: str = "mse", delta: float = 1.0) -> ScaledError:
        """A mean of single values' errors: "mse", "l1" or "huber"."""
        whole = ScaledError(torch.as_tensor(self.area), *self.scales, *self.weights, kind, delta, self.exists)
        return whole.cut(self.space)

    def over_length(self, step: Step, length: int) -> "Weighted":
        """The same for steps of another length, whose typical change is larger."""
        longer, (change, diagnostic) = copy.copy(self), self.scales
        larger = growth(step.change_std.double(), step.spread.double(), length).flatten().cpu()
        longer.scales = change * larger, diagnostic
        return longer

    def loss(self, options: Options) -> nn.Module:
        """The error that a training minimises; see `emulator.losses.registry`. Raises `ValueError` for an unknown kind."""
        chosen = LOSSES[options.kind]
        if self.space.size > 1 and not chosen.bands:
            raise ValueError(
                f"Expected a loss that processes can share out (parallel.space), got {options.kind!r}; losses that can: "
                f"{', '.join(name for name, known in LOSSES.all().items() if known.bands)}"
            )
        return chosen.build(options, self)


def level_weights(dataset: xr.Dataset, asked: str | Sequence[float]) -> torch.Tensor | None:
    """Weights of levels `(level,)`; None for levels that count alike. Raises `ValueError` for mass without columns."""
    if asked == "alike":
        return None
    if asked != "mass":
        return torch.tensor(asked, dtype=torch.float64)
    if (levels := levels_of(dataset)) is None:
        raise ValueError("Expected levels that make up columns in the store for level_weights mass, got none")
    return torch.as_tensor(np.diff(levels.half_a + levels.half_b * 1e5))  # of the air over a ground at 1000 hPa
