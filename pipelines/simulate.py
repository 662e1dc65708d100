"""An embedded model as a source of data: CF NetCDF chunks, restartable at any moment."""

import dataclasses
from pathlib import Path

from emulator.embedded import simulation
from emulator.embedded.options import Scenario
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
    scenario = config.model_dump(include={field.name for field in dataclasses.fields(Scenario)})  # what is not as ever
    settings = {**own, **scenario, **config.options}
    return SimulationOptions(**{name: getattr(config, name) for name in names}, settings=settings)


def check(config: SimulateConfig, made: set[Path]) -> str:
    """What it would do, in words. Raises `ConfigError` without the model's package, and for files that do not serve."""
    try:
        import jcm  # noqa: F401
    except ImportError:
        raise ConfigError("Expected JAX-GCM for the stage simulate; install the extra emulator[gcm]") from None
    try:
        _, settings = simulation.checked(options(config))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    under = f" under {words}" if config.model == DEFAULT_MODEL and (words := settings.describe()) else ""
    return f"{config.spin_up_days} + {config.days} days at T{config.truncation}{under} into {config.directory}"
