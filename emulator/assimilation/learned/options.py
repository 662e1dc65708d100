"""How an analysis is learned: options of the stage `learn`, with their meaning and limits. Needs no torch."""

import dataclasses
from pathlib import Path

from emulator.assimilation.options import NetworkOptions, QualityOptions
from emulator.options import Options, option
from emulator.training.options.sections import OptimizerOptions, PeriodOptions


@dataclasses.dataclass(frozen=True)
class AnalysisNetworkOptions(Options):
    """Gated convolutions over what is observed, and attention of the background to it, on grids halved several times."""

    width: int = option(48, "channels on the finest grid; twice as many on the next", minimum=1)
    depth: int = option(2, "halvings of the grid", minimum=1)
    heads: int = option(4, "of attention, which divide the width", minimum=1)
    reach: int = option(2, "cells of a halved grid each way that a cell attends to", minimum=1)

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.heads:
            raise ValueError(f"Expected heads that divide a width of {self.width}, got {self.heads}")


@dataclasses.dataclass(frozen=True)
class BackgroundOptions(Options):
    """Cycles side by side whose backgrounds a training learns from: those of its own analyses, of growing age."""

    cycles: int = option(32, "states that are carried, each a cycle of its own", minimum=1)
    analyses: int = option(40, "analyses after which a cycle starts anew", minimum=1)
    wrong_days: float = option(
        30.0, "a cycle starts from the state of another time, up to so many days before or after", minimum=0
    )


@dataclasses.dataclass(frozen=True)
class LearnOptions(Options):
    """A network that makes analyses, trained on a nature run or a reanalysis, and on its own cycles."""

    store: Path = option(about="analysis store that is the truth")
    checkpoint: Path = option(about="of the model that forecasts between analyses")
    output: Path = option(about="folder that receives `checkpoint/`, states to go on from and logs")
    networks: tuple[NetworkOptions, ...] = option(
        about="observing systems, simulated anew for every analysis at other places", shortest=1
    )
    raw: tuple[str, ...] = option(
        (), "those of them whose values are taken as they are, without their operator (FuXi-DA)"
    )
    density: tuple[float, ...] = option(
        (1.0,), "factor of the networks' shares, or two between which every analysis draws one", above=0, shortest=1
    )
    period: PeriodOptions = option(PeriodOptions(), "of the store, for training")
    network: AnalysisNetworkOptions = option(AnalysisNetworkOptions(), "size of the network")
    backgrounds: BackgroundOptions = option(BackgroundOptions(), "cycles that the backgrounds come from")
    optimizer: OptimizerOptions = option(OptimizerOptions(), "AdamW with a warm-up and a cosine decay")
    quality: QualityOptions = option(QualityOptions(), "which observations are used")
    updates: int = option(2000, "of the weights", minimum=1)
    batch_size: int = option(4, "cycles that an update takes a step further", minimum=1)
    ema: float = option(0.99, "decay of the average of the weights, which is what is kept; 0: none", minimum=0, below=1)
    seed: int = option(0, "of weights, places, errors and times", minimum=0)
    save_every: int = option(100, "updates after which a state to go on from is saved", minimum=1)
    log_every: int = option(20, "updates in a row of metrics.jsonl", minimum=1)
    overwrite: bool = option(False, "replace a finished training of other settings or data in `output`")

    def __post_init__(self):
        super().__post_init__()
        names = [network.name for network in self.networks]
        if len(set(names)) < len(names):
            raise ValueError(f"Expected networks with names of their own, got {', '.join(names)}")
        if unknown := sorted(set(self.raw) - set(names)):
            raise ValueError(f"Expected raw systems among the networks {', '.join(names)}, got {', '.join(unknown)}")
        if len(self.density) > 2 or self.density[0] > self.density[-1]:
            raise ValueError(f"Expected a density, or the least and the most of it, got {list(self.density)}")
        largest = max(self.density) * max(network.share for network in self.networks)
        if largest > 1:
            raise ValueError(f"Expected shares of at most 1 at the largest density, got {largest:g}")
        if self.backgrounds.cycles < self.batch_size:
            raise ValueError(
                f"Expected at least as many backgrounds.cycles as an update takes, {self.batch_size}, got "
                f"{self.backgrounds.cycles}"
            )
