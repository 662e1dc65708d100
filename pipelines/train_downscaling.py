"""Train downscaling: a network from coarse fields to fine ones; resumable at any moment."""

import json
from pathlib import Path

from emulator.downscaling.options import DownscalingOptions
from emulator.downscaling.training import DownscalingTraining
from emulator.training.run import StageHooks
from pipelines.config import TrainDownscalingConfig
from pipelines.progress import of_updates
from pipelines.run import provenance
from pipelines.signals import stopping_when_asked


def train_downscaling(config: TrainDownscalingConfig) -> None:
    """Trains, or goes on with a training that was stopped, and writes `output/checkpoint`.

    Several processes that were started together train one network; the first writes. Raises `Interrupted` after saving on
    SIGTERM or SIGUSR1, `Diverged`, `Busy` where another training goes on, and `ValueError` for what does not go together.
    """
    hooks = StageHooks(
        config=json.loads(config.model_dump_json()),
        provenance=provenance(),
        stopping=stopping_when_asked,
        reporting=lambda identity, updates: of_updates("train_downscaling", updates, _remark),
    )
    DownscalingTraining(_options(config), hooks).run()


def _options(config: TrainDownscalingConfig) -> DownscalingOptions:
    return DownscalingOptions.of(config.model_dump())


def _remark(row: dict) -> str:
    return f"loss {row['loss']:.4f}, {row['samples_per_second']:.1f} samples/s"


def check(config: TrainDownscalingConfig, made: set[Path]) -> str:
    """What would be trained, in words. Raises `ValueError`."""
    return DownscalingTraining(_options(config)).describe()
