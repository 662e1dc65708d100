"""An analysis by a network that was trained on its own backgrounds (`emulator.assimilation.learned`)."""

import dataclasses
import functools
from pathlib import Path
from typing import Literal

import torch

from emulator.assimilation.geometry import Geometry
from emulator.assimilation.kinds.registry import assimilation
from emulator.assimilation.learned.gridding import Gridding
from emulator.assimilation.learned.model import LearnedAnalysis
from emulator.assimilation.window import Analysis, Window
from emulator.options import Options, option


@dataclasses.dataclass(frozen=True)
class LearnedOptions(Options):
    """A network that was trained to analyse, by the stage `learn`."""

    kind: Literal["learned"] = option("learned")
    checkpoint: Path | None = option(None, "that the stage `learn` has written; None: that of the experiment")


@assimilation("learned", LearnedOptions)
class Learned:
    """See the file's docstring; needs observations with their rows, and a window of one time."""

    ensemble, static, several_times = False, False, False

    def __init__(self, options: LearnedOptions):
        self.path = options.checkpoint
        self._gridding: Gridding | None = None

    @functools.cached_property
    def model(self) -> LearnedAnalysis:
        """Raises `ValueError` where there is none, or another kind of checkpoint."""
        if self.path is None:
            raise ValueError(
                "Expected analysis.checkpoint, where the stage learn has put a network, for an analysis of kind learned, "
                "got none"
            )
        return LearnedAnalysis.load(self.path)

    @property
    def digest(self) -> str:
        """What tells its weights from others'."""
        return self.model.digest

    def expect(self, geometry: Geometry) -> Gridding:
        """How states of that geometry are observed. Raises `ValueError` for what the network was not trained for."""
        return self.model.gridding(geometry)

    def analyse(self, window: Window) -> Analysis:
        (observed,) = window.observed
        if observed.rows is None or window.geometry is None:
            raise ValueError("Expected observations with their rows and a geometry for an analysis of kind learned")
        if self._gridding is None or self._gridding.geometry is not window.geometry:
            self._gridding = self.expect(window.geometry)
        states = []
        with torch.no_grad():
            before = window.equivalents(window.background)
            for one, equivalent in zip(window.background, before, strict=True):
                given = self._gridding(observed.rows, (observed.value - equivalent).cpu().numpy())
                states.append(self.model(one[None], given))
        return Analysis(torch.cat(states))
