"""What is made of finished forecast stores at the end of a rollout: pressure levels, and files of other formats."""

from pathlib import Path

from emulator.exports.export import export_beside
from emulator.forecasting.pressure import write_on_pressure
from pipelines.config import RolloutConfig


def finish_rollout(config: RolloutConfig) -> None:
    """Makes it of the stores that are whole by now: of several processes, whichever comes last finds them all."""
    for store in map(Path, config.pressure_stores):
        if store.exists():
            write_on_pressure(store, config.vertical.pressure)
    for kind in config.also:
        if Path(config.output).exists():
            export_beside(config.output, kind)
