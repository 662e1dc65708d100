"""What is observed and with which errors, which observations are used, and how tables are read: options of `observe`."""

import dataclasses
from pathlib import Path
from typing import Literal

from emulator.options import Options, option


@dataclasses.dataclass(frozen=True)
class NetworkOptions(Options):
    """A simulated observing system: stations and profiles at places that stay, or the swath of a polar orbiter."""

    name: str = option(about="the observing system, by which statistics and data denial tell it from others")
    kind: Literal["stations", "profiles", "swath"] = option(
        about="places with variables at the ground (or at `levels`) or with whole columns, or what passes below an orbiter"
    )
    errors: dict[str, float] = option(
        about="variables that are observed, each with the standard deviation of its error, SI", above=0
    )
    biases: dict[str, float] = option({}, "of some of them, SI")
    share: float = option(
        0.05, "places, as a share of the grid's cells, or the share kept of a swath's", above=0, maximum=1
    )
    operator: str = option("", "what is observed of the state; none: radiance for a swath, else point")
    levels: tuple[float, ...] = option(
        (), "values of the vertical axis, or centres of weighting functions; none: the lowest of stations, else all"
    )
    width: float | None = option(None, "of weighting functions, in scale heights; none: the operator's", above=0)
    every_hours: float = option(6.0, "it reports at times that are multiples of this", above=0)
    missing: float = option(0.0, "share of reports that are never made", minimum=0, below=1)
    gross: float = option(0.0, "share of values with an error ten times too large", minimum=0, below=1)
    delay_hours: float = option(0.0, "mean of the delay of a report, which is distributed exponentially", minimum=0)

    def __post_init__(self):
        super().__post_init__()
        if not self.errors:
            raise ValueError(f"Expected errors of the variables that {self.name} observes, got none")
        if unknown := sorted(set(self.biases) - set(self.errors)):
            raise ValueError(f"Expected biases among the variables of {self.name}, got {', '.join(unknown)}")


@dataclasses.dataclass(frozen=True)
class TableOptions(Options):
    """A table of real reports: METAR (`.parquet`), CSV, verif's text, or BUFR (`.bufr`, `.bfr`)."""

    path: Path = option(about="file of reports")
    errors: dict[str, float] = option(
        about="variables that are taken, each with the standard deviation of its error, SI", above=0
    )
    system: str = option("", "observing system; none: the file's name")
    vertical: Literal["pressure", "sigma"] = option(
        "pressure", "levels of soundings in hPa, or as shares of the pressure at the sounding's lowest level"
    )


@dataclasses.dataclass(frozen=True)
class ObserveOptions(Options):
    """Observations of a nature run, real ones from tables, or both."""

    networks: tuple[NetworkOptions, ...] = option(
        (), "observing systems of the nature run, each with a name of its own"
    )
    tables: tuple[TableOptions, ...] = option((), "files of real reports")
    seed: int = option(0, "of places and errors: the same seed gives the same observations of a time", minimum=0)
    cut_off_hours: float | None = option(
        None, "simulated reports with a longer delay are left out; none: no report is", above=0
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.networks and not self.tables:
            raise ValueError("Expected networks or tables to observe with, got neither")
        names = [network.name for network in self.networks]
        if len(set(names)) < len(names):
            raise ValueError(f"Expected networks with names of their own, got {', '.join(names)}")


@dataclasses.dataclass(frozen=True)
class QualityOptions(Options):
    """Which observations are used."""

    gross: float = option(
        5.0, "largest departure from the background, in standard deviations that are expected of it", above=0
    )
    below_ground: float = option(300.0, "m that a station may lie below the model's ground", minimum=0)
