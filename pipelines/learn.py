"""Learn: a network that makes analyses, trained on its own backgrounds; resumable at any moment."""

import json
from pathlib import Path

from emulator.assimilation.learned.learning import Learning
from emulator.assimilation.learned.options import LearnOptions
from pipelines.config import LearnConfig
from pipelines.progress import of_updates
from pipelines.run import provenance
from pipelines.signals import stopping_when_asked


def learn(config: LearnConfig) -> None:
    """Trains, or goes on with a training that was stopped, and writes `output/checkpoint`.

    Raises `Interrupted` after saving on SIGTERM or SIGUSR1, `Busy` where another training goes on, and `ValueError` for
    what does not go together.
    """
    learning = Learning(_options(config), json.loads(config.model_dump_json()), provenance())
    with stopping_when_asked() as asked, of_updates("learn", config.updates, _remark) as report:
        learning.run(report, asked)


def _options(config: LearnConfig) -> LearnOptions:
    return LearnOptions.of(config.model_dump())


def _remark(row: dict) -> str:
    return f"error of analyses {row['loss']:.4f}, of backgrounds {row['background']:.4f}"


def check(config: LearnConfig, made: set[Path]) -> str:
    """What would be trained, in words. Raises `ValueError`."""
    learning = Learning(_options(config))
    learning.check_finished()
    return learning.describe()
