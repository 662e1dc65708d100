"""An embedded model as a source of data: CF NetCDF chunks, restartable at any moment."""

import importlib.util
from pathlib import Path

from emulator.embedded import MODELS, simulation
from emulator.embedded.simulation import DEFAULT_MODEL, SimulationOptions
from pipelines.config import ConfigError, SimulateConfig
from pipelines.on_demand import reporting

OF_SPEEDY = ("truncation", "time_step_minutes")  # keys of the stage that other models do not have


def simulate(config: SimulateConfig) -> None:
    """Simulates what is missing of the chunks; see `emulator.embedded.simulation.simulate`.

    Raises `ValueError` when the folder holds another simulation, or a longer one.
    """
    with reporting("simulate") as report:
        simulation.simulate(options(config), report)


def files(config: SimulateConfig) -> list[Path]:
    """All that a complete simulation leaves."""
    return options(config).files()


def options(config: SimulateConfig) -> SimulationOptions:
    """The library's options."""
    names = ("directory", "days", "spin_up_days", "chunk_days", "start", "step_hours", "model")
    own = {name: getattr(config, name) for name in OF_SPEEDY} if config.model == DEFAULT_MODEL else {}
    return SimulationOptions(**{name: getattr(config, name) for name in names}, settings={**own, **config.options})


def check(config: SimulateConfig, made: set[Path]) -> str:
    """What it would do, in words. Raises `ConfigError` without the model's package, and for settings that cannot be."""
    entry = MODELS[config.model]
    if entry.needs and importlib.util.find_spec(entry.needs) is None:
        raise ConfigError(
            f"Expected the package {entry.needs} for the stage simulate; install the extra emulator[{entry.extra}]"
        )
    try:
        simulation.settings_of(options(config))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    of = f"T{config.truncation}" if config.model == DEFAULT_MODEL else config.model
    return f"{config.spin_up_days} + {config.days} days of {of} into {config.directory}"
