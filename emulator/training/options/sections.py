"""Groups of a training's options: optimizer, period, validation, start, boundary and what else has options of its own.

Needs no torch.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from emulator.options import Options, option


@dataclasses.dataclass(frozen=True)
class OptimizerOptions(Options):
    """AdamW with a linear warm-up and a cosine decay over all phases."""

    lr: float = option(2e-3, above=0)
    weight_decay: float = option(0.0, minimum=0)
    betas: tuple[float, float] = option((0.9, 0.95), minimum=0, maximum=1)
    warmup_steps: int = option(100, minimum=0)
    final_lr: float = option(0.0, minimum=0)
    clip: float = option(1.0, "largest norm of the gradient", above=0)


@dataclasses.dataclass(frozen=True)
class ForecastOptions(Options):
    """Stored forecasts from which the windows of a training start, in place of the analysis."""

    store: Path = option()
    lead_days: tuple[float, float] = option((0.0, 1e4), "days: the least and the most of their leads", minimum=0)

    def __post_init__(self):
        super().__post_init__()
        if self.lead_days[0] > self.lead_days[1]:
            raise ValueError(f"Expected forecasts.lead_days from the least to the most, got {list(self.lead_days)}")


@dataclasses.dataclass(frozen=True)
class PeriodOptions(Options):
    """Times from `start` to `end`, both included; None is open."""

    start: Any = option(None)
    end: Any = option(None)


@dataclasses.dataclass(frozen=True)
class ValidationOptions(Options):
    """Validation while training on times that it does not see: one step, and short rollouts, whose skill chooses."""

    period: PeriodOptions = option()
    every: int = option(250, "updates between validations", minimum=1)
    windows: int = option(16, "initial times, spread evenly over the period", minimum=1)
    steps: int = option(12, "length of the rollouts", minimum=1)
    batch_size: int = option(4, "of each process", minimum=1)
    patience: int = option(
        0, "end after so many validations without a better one, of those after phases.single; 0: never", minimum=0
    )
    choose: Literal["best", "last"] = option("best", "weights of the best rollouts, or the last ones")


@dataclasses.dataclass(frozen=True)
class ParallelOptions(Options):
    """How processes that train together share the work out. `ddp` or `fsdp` alone says what each holds of the network."""

    space: int = option(1, "processes that hold one state together, each a band of latitudes", minimum=1)
    weights: Literal["ddp", "fsdp"] = option("ddp", "each process holds the network, or a part of it")

    @classmethod
    def of(cls, given: Mapping[str, Any] | str) -> "ParallelOptions":
        """Options from what YAML can hold, or from the one word that they once were."""
        return super().of({"weights": given} if isinstance(given, str) else given)


@dataclasses.dataclass(frozen=True)
class LoraOptions(Options):
    """Low-rank adapters (Hu et al. 2021): a weight changes by a product of two small factors, the network else stays.

    A weight by degree, as a spherical filter, has two factors that all degrees share, and numbers of its own for each degree.
    """

    rank: int = option(8, "of the change of a weight", minimum=1)
    alpha: float = option(8.0, "the change is alpha / rank times the product of its factors", above=0)
    layers: tuple[str, ...] = option(("*",), "patterns of the weights that get an adapter", shortest=1)
    besides: tuple[str, ...] = option((), "patterns of what is trained whole beside the adapters")


@dataclasses.dataclass(frozen=True)
class BoundaryOptions(Options):
    """Driving data outside a limited area, given at both ends of every step (docs/limited_area.md)."""

    store: Path = option(about="analysis of any grid and step that covers the boundary")
    variables: tuple[str, ...] | None = option(None, "None: the prognostic ones of the training")
    width: int = option(4, "of the frame, in cells of the domain", minimum=1)
    width_degrees: float | None = option(None, "in place of width: as many cells as that needs", above=0)
    place: Literal["outside", "inside"] = option(
        "outside",
        "inside: the outermost cells of the domain are set to the driving data after every step; the loss leaves them out",
    )
    outflow: Path | None = option(
        None,
        "what leaves the domain by its sides over every step, with which conservation closes its budgets",
        new=True,
    )


@dataclasses.dataclass(frozen=True)
class StartOptions(Options):
    """Weights that a training starts from. Patterns are those of file names, for names of the network's parameters."""

    checkpoint: Path = option(about="whose weights are taken")
    statistics: Literal["new", "old"] = option(
        about="normalisation by the statistics of the new data, to which first and last layers are rescaled, or as the "
        "checkpoint has it"
    )
    freeze: tuple[str, ...] = option((), "patterns of what keeps its values")
    lora: LoraOptions | None = option(None, "adapters of low rank in place of the weights themselves")
    lr_by: dict[str, float] = option(
        {}, "factor of the learning rate by pattern; the last that matches counts", above=0
    )
    l2_start: float = option(
        0.0, "share of the rate by which every update draws weights to where they started", minimum=0
    )


@dataclasses.dataclass(frozen=True)
class PosteriorOptions(Options):
    """A distribution of weights that a training leaves beside its checkpoint, for ensembles whose members draw theirs."""

    kind: Literal["swag", "laplace"] = option(
        "swag", "of the states that are kept after multiples of save_every updates, or of one layer's weight"
    )
    rank: int = option(20, "of swag: the last states whose departures from the mean are kept", minimum=2)
    layer: str = option("", "of laplace: the last layer's weight, such as decoder.layers.0.weight")
    samples: int = option(32, "of laplace: samples that the features are estimated from", minimum=4)
    prior: float = option(1.0, "of laplace: precision of the prior", above=0)
