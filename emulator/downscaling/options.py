"""How a downscaling network is trained and what it is applied to: all options and their defaults.

Only a generative network's objective needs torch, to be checked.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from emulator.options import Options, option
from emulator.training.options.phases import Phase
from emulator.training.options.sections import OptimizerOptions, PeriodOptions

OBJECTIVE = {"kind": "flow_matching"}


@dataclasses.dataclass(frozen=True)
class DownscalingOptions(Options):
    """A network from the fields of a coarse store to those of a fine one, at the same times or at several within a step."""

    fine: Path = option(about="analysis store with the fine fields")
    coarse: Path = option(about="analysis store with the coarse fields of the same weather")
    output: Path = option(about="folder of checkpoint and logs")
    period: PeriodOptions = option(PeriodOptions(), "times to train on")
    targets: tuple[str, ...] | None = option(None, "fields to make; None: those of the coarse store that both have")
    inputs: tuple[str, ...] = option((), "further fields of the coarse store that the network is given")
    kind: Literal["deterministic", "generative"] = option(
        "deterministic", "the mean of what may be below the coarse fields, or samples of it"
    )
    network: dict[str, Any] = option({"kind": "unet"}, "kind and options, as in a training of forecasts")
    objective: dict[str, Any] = option(
        OBJECTIVE, "of a generative network: kind and options (emulator/generative/objectives.py)"
    )
    mean: Path | None = option(
        None,
        "checkpoint of a deterministic network of the same fields, about whose field a generative one draws",
        new=True,
    )
    optimizer: OptimizerOptions = option(OptimizerOptions())
    updates: int = option(2000, minimum=1)
    batch_size: int = option(8, "over all processes", minimum=1)
    variable_weights: dict[str, float] = option({}, "weight in the loss, by variable; 1 of others", above=0)
    ema: float = option(0.0, "decay of the moving average of the weights; 0 keeps none", minimum=0, maximum=1)
    scale_samples: int = option(64, "pairs of which means and spreads are taken, evenly over the period", minimum=2)
    seed: int = option(0)
    precision: Literal["float32", "bfloat16"] = option("float32", "of the network's products")
    cache_gigabytes: float = option(3.0, "hold the period of each store in memory up to this", minimum=0)
    loader_threads: int = option(2, minimum=1)
    save_every: int = option(250, "updates between resumable checkpoints", minimum=1)
    save_minutes: float = option(5.0, above=0)
    keep: int = option(2, "resumable checkpoints to keep", minimum=1)
    log_every: int = option(20, minimum=1)
    overwrite: bool = option(False, "replace a finished checkpoint of another training")

    # what a training of forecasts may choose and this one does not
    start = loss_limit = None
    retries, members, checkpoint_steps = 0, 1, False

    def __post_init__(self):
        super().__post_init__()
        if self.mean is not None and self.kind != "generative":
            raise ValueError(f"Expected kind: generative beside mean, got {self.kind} and {self.mean}")
        if self.kind == "generative":
            from emulator.generative.objectives import objective  # torch, which other trainings are read without

            made = objective(dict(self.objective))
            if made.length_scale != 0 or made.spectrum != "length":
                raise ValueError(
                    "Expected an objective without length_scale and spectrum to downscale with, whose noise has the spectra "
                    f"of what is drawn, got {dict(self.objective)}"
                )
        elif dict(self.objective) != OBJECTIVE:
            raise ValueError(
                f"Expected kind: generative beside an objective, got {self.kind} and {dict(self.objective)}"
            )

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The one phase, as the trainer has it."""
        return (Phase(self.updates, batch_size=self.batch_size),)


@dataclasses.dataclass(frozen=True)
class ApplyOptions(Options):
    """What a trained network makes fine."""

    period: PeriodOptions = option(PeriodOptions(), "times of an analysis, initial times of forecasts")
    method: Literal["network", "bilinear"] = option("network", "bilinear: interpolation alone, to compare with")
    members: int = option(1, "samples of every coarse field, of a generative network", minimum=1)
    sampling_steps: int = option(16, "steps of a generative network's sampler", minimum=1)
    seed: int = option(0, "of the samples")
    at_least_zero: tuple[str, ...] = option((), "fields kept there beside those whose least value is 0", new=True)
    batch_size: int = option(8, "intervals computed at a time", minimum=1)


DOWNSCALING = "downscaling-1"  # schema of checkpoints
PLACE = "place/"  # before the names of fields that do not change, among the tensors of a checkpoint
