"""An embedded model as a source of data: CF NetCDF chunks, restartable at any moment."""

import dataclasses
import importlib.util
import logging
from pathlib import Path

from emulator.embedded import MODELS, simulation
from emulator.embedded.options import Scenario
from emulator.embedded.simulation import DEFAULT_MODEL, SimulationOptions
from pipelines.config import ConfigError, SimulateConfig
from pipelines.on_demand import reporting

log = logging.getLogger(__name__)
OF_SPEEDY = ("truncation", "time_step_minutes")  # keys of the stage that other models do not have


def simulate(config: SimulateConfig, part: tuple[int, int] | None = None) -> None:
    """Simulates what is missing of the chunks, scenario by scenario; see `emulator.embedded.simulation.simulate`.

    With `part` `(i, N)` only every N-th of the scenarios, beginning with the i-th: parts run side by side. A slab comes after
    the scenario that is its control; one whose control another part has not finished is left to a later start.

    Raises `ValueError` when a folder holds another simulation, or a longer one.
    """
    number, count = part or (1, 1)
    for one in sorted(simulations(config)[number - 1 :: count], key=_is_slab):
        if part is not None and _awaits(one, config):
            log.warning("%s is left until %s is complete", one.directory, one.ocean.control)
            continue
        with reporting("simulate") as report:
            simulation.simulate(options(one), report)


def simulations(config: SimulateConfig) -> list[SimulateConfig]:
    """That of each scenario, each in its own folder; of a section without any itself.

    Raises `ConfigError` for a slab whose control is a scenario over a slab.
    """
    if not config.scenarios:
        return [config]
    plain = config.model_copy(update={"scenarios": {}})
    found = [
        plain.model_copy(
            update={"directory": config.directory / name} | {key: getattr(one, key) for key in one.model_fields_set}
        )
        for name, one in config.scenarios.items()
    ]
    slabs = [one for one in found if _is_slab(one)]
    for one in slabs:
        if one.ocean.control in [other.directory for other in slabs]:
            raise ConfigError(
                f"Expected a scenario over prescribed seas as the control of {one.directory.name}, got "
                f"{one.ocean.control.name}, which is over a slab"
            )
    return found


def _is_slab(config: SimulateConfig) -> bool:
    return not isinstance(config.ocean, str)


def _awaits(one: SimulateConfig, config: SimulateConfig) -> bool:
    """Whether it is a slab whose control is a scenario of the section that is not complete."""
    if not _is_slab(one):
        return False
    controls = [each for each in simulations(config) if each.directory == one.ocean.control]
    return not all(path.exists() for each in controls for path in files(each))


def files(config: SimulateConfig) -> list[Path]:
    """All that a complete simulation leaves, of every scenario."""
    return [path for one in simulations(config) for path in options(one).files()]


def options(config: SimulateConfig) -> SimulationOptions:
    """The library's options."""
    names = ("directory", "days", "spin_up_days", "chunk_days", "start", "step_hours", "model")
    own = {name: getattr(config, name) for name in OF_SPEEDY} if config.model == DEFAULT_MODEL else {}
    scenario = config.model_dump(include={field.name for field in dataclasses.fields(Scenario)})  # what is not as ever
    if _is_slab(config) and config.ocean.prescribed_days is None:
        scenario["ocean"]["prescribed_days"] = config.spin_up_days
    settings = {**own, **scenario, **config.options}
    return SimulationOptions(**{name: getattr(config, name) for name in names}, settings=settings)


def check(config: SimulateConfig, made: set[Path]) -> str:
    """What it would do, in words. Raises `ConfigError` without the model's package, and for settings that cannot be."""
    entry = MODELS[config.model]
    if entry.needs and importlib.util.find_spec(entry.needs) is None:
        raise ConfigError(
            f"Expected the package {entry.needs} for the stage simulate; install the extra emulator[{entry.extra}]"
        )
    words = []
    for one in simulations(config):
        try:
            asked = options(one)  # what a scenario is to be the control of waits for it
            settings = simulation.settings_of(asked) if _awaits(one, config) else simulation.checked(asked)[1]
        except ValueError as error:
            raise ConfigError(str(error)) from error
        of = f"at T{one.truncation}" if one.model == DEFAULT_MODEL else f"of {one.model}"
        under = f" under {said}" if one.model == DEFAULT_MODEL and (said := settings.describe()) else ""
        words.append(f"{one.spin_up_days} + {one.days} days {of}{under} into {one.directory}")
    return "; ".join(words)
