"""A learned analysis as a whole: the network with what its inputs are measured by, and its checkpoint."""

import dataclasses
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from emulator.assimilation.geometry import Geometry
from emulator.assimilation.learned.gridding import Gridded, Gridding, RawChannel
from emulator.assimilation.learned.network import AnalysisNetwork
from emulator.assimilation.learned.options import AnalysisNetworkOptions
from emulator.data.channels import Channels
from emulator.model import checkpoint
from emulator.model.saved_model import grid_from_json, grid_to_json
from emulator.planet.grid import Grid

SCHEMA = "learned-analysis-1"


@dataclasses.dataclass(frozen=True, eq=False)
class Measures:
    """What a network's inputs are measured by, all of a training's data.

    Attributes:
      mean, std: of the state, `(channel,)` float64. scale: of the background's errors.
      fixed: fields that do not change, normalised, `(field, *space)` float32.
      observed: which channels are observed as departures, `(channel,)` bool.
      raw: channels of raw systems. raw_mean, raw_std: of their values, `(raw,)` float64.
    """

    mean: Tensor
    std: Tensor
    scale: Tensor
    fixed: Tensor
    observed: Tensor
    raw: tuple[RawChannel, ...]
    raw_mean: Tensor
    raw_std: Tensor


class LearnedAnalysis(nn.Module):
    """Analyses of states `(batch, channel, *space)` in physical units.

    Args:
      channels, grid: of the states. measures: of its inputs. options: of the network.
    """

    def __init__(self, channels: Channels, grid: Grid, measures: Measures, options: AnalysisNetworkOptions):
        super().__init__()
        self.channels, self.grid, self.raw, self.options = channels, grid, measures.raw, options
        for field in dataclasses.fields(measures):
            if field.name != "raw":
                self.register_buffer(field.name, getattr(measures, field.name).clone())
        self.network = AnalysisNetwork(channels.count, len(measures.fixed), len(measures.raw), grid, options)

    def forward(self, background: Tensor, given: Gridded) -> Tensor:
        """The analysis, of the background's type; where nothing is observed within reach it is the background, exactly."""
        mean, std, scale = (each.view(-1, 1, 1) for each in (self.mean, self.std, self.scale))
        kind = self.network.head.weight.dtype
        x = ((background.double() - mean) / std).to(kind)
        x = torch.cat([x, self.fixed.to(kind).expand(len(x), *self.fixed.shape)], 1)
        increment = self.network(x, *given)
        return background + (increment * scale.to(kind)).to(background.dtype)

    def gridding(self, geometry: Geometry) -> Gridding:
        """How observations are given to it. Raises `ValueError` for states of other channels or another grid."""
        if geometry.channels != self.channels:
            ours, theirs = (", ".join(each.labels()) for each in (self.channels, geometry.channels))
            raise ValueError(f"Expected states of {ours}, as the learned analysis has them, got {theirs}")
        if not geometry.grid.same_as(self.grid):
            raise ValueError(
                f"Expected the grid {self.grid.describe()} of the learned analysis, got {geometry.grid.describe()}"
            )
        values = (each.cpu().numpy() for each in (self.scale, self.observed))
        raws = (each.cpu().numpy() for each in (self.raw_mean, self.raw_std))
        scale, observed = values
        return Gridding(geometry, scale, observed, self.raw, *raws)

    def whole(self, name: str, tensor: Tensor) -> Tensor:
        """An entry of the state dict as a checkpoint has it: one process holds all of it."""
        return tensor

    def own(self, name: str, tensor: Tensor) -> Tensor:
        """What this process has of an entry of a checkpoint."""
        return tensor

    def described(self) -> dict:
        """What a checkpoint says of it besides its tensors."""
        raw = [[c.system, c.variable, None if np.isnan(c.level) else c.level] for c in self.raw]
        return {
            "schema": SCHEMA,
            "channels": {"names": list(self.channels.names), "levels": list(self.channels.levels)},
            "grid": grid_to_json(self.grid),
            "network": dataclasses.asdict(self.options),
            "raw": raw,
        }

    @classmethod
    def load(cls, path: Path) -> Self:
        """That of a checkpoint, in evaluation mode; its `digest` tells its weights from others'.

        Raises `CheckpointError` for what is no whole checkpoint, and `ValueError` for one of another kind.
        """
        tensors, saved = checkpoint.load(Path(path))
        expect_learned(saved, path)
        channels = Channels(tuple(saved["channels"]["names"]), tuple(saved["channels"]["levels"]))
        raw = tuple(RawChannel(s, v, np.nan if level is None else level) for s, v, level in saved["raw"])
        names = [field.name for field in dataclasses.fields(Measures) if field.name != "raw"]
        measures = Measures(raw=raw, **{name: tensors[name] for name in names})
        made = cls(channels, grid_from_json(saved["grid"]), measures, AnalysisNetworkOptions.of(saved["network"]))
        made.load_state_dict(tensors)
        made.digest = saved["sha256"]
        return made.eval().requires_grad_(False)


def expect_learned(saved: dict, path: Path) -> None:
    """Raises `ValueError` for the description of a checkpoint of another kind."""
    if saved.get("schema") != SCHEMA:
        raise ValueError(
            f"Expected the checkpoint of a learned analysis in {path}, as `emulator learn` writes it, got one of the schema "
            f"{saved.get('schema')}"
        )
