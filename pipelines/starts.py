"""When the forecasts of a rollout start."""

from emulator.forecasting.schedule import Starts
from pipelines.config import RolloutConfig


def starts_of(config: RolloutConfig, length: int = 1, history: int = 1) -> Starts:
    """Which times the forecasts start from; `length` of their steps, in steps of the store, and the model's input times."""
    period, every_hours = config.period, config.every_hours
    if every_hours == RolloutConfig.model_fields["every_hours"].default:
        every_hours = None
    given = period.start, period.end, every_hours, config.maximum_inits, config.beyond_store, config.every
    return Starts(*given, length, history)
