"""Configuration of the stage learn."""

from emulator.assimilation.learned.options import LearnOptions
from pipelines.config.base import Period
from pipelines.config.declared import model_of


class LearnConfig(model_of(LearnOptions, period=Period)):
    """A network that makes analyses, trained on a nature run or a reanalysis, and on its own cycles."""
