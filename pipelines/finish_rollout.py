"""What is made of finished forecast stores at the end of a rollout: pressure levels, and files of other formats."""

import functools
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from emulator.exports.export import export_beside
from emulator.files.one_writer import Busy, one_writer
from emulator.forecasting.pressure import write_on_pressure
from pipelines.config import RolloutConfig

log = logging.getLogger(__name__)
PATIENCE_SECONDS = 60.0  # for a process that was stopped and is still on its way out


def finish_rollout(config: RolloutConfig) -> None:
    """Makes it of the stores that are whole by now: of several processes, whichever comes last finds them all."""
    for store, beside in config.pressure_stores.items():
        if Path(store).exists():
            _alone(Path(beside), functools.partial(write_on_pressure, Path(store), config.vertical.pressure))
    for kind in config.also:
        if Path(config.output).exists():
            made = functools.partial(export_beside, config.output, kind)
            _alone(Path(config.output).with_name(f"{Path(config.output).stem}_{kind}"), made)


def _alone(path: Path, make: Callable) -> None:
    """Makes what lies at `path`, or leaves it to the process that does so already.

    The parts of a rollout may come here together, and a part that was stopped has to go on: a lock ends with its holder,
    however that ends, while a mark on the disk would not. The lock's folder goes once there is nothing left to make.
    """
    folder = path.with_name(f"{path.name}.finishing")
    try:
        with one_writer(folder, PATIENCE_SECONDS):
            make()
    except Busy as busy:
        log.info("%s is left to another process: %s", path, busy)
    except FileNotFoundError:
        if folder.exists():
            raise  # not the lock, which another process took away as this one came
    else:
        shutil.rmtree(folder, ignore_errors=True)
