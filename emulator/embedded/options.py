"""What drives SPEEDY besides its own annual cycle: carbon dioxide, warmer or other seas, its start, and its physics.

What is left out stays as it was: a simulation without any of these is the one of versions that did not have them.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from emulator.options import Options, option

CO2_LIMITS = 1.0, 10_000.0  # ppmv
OFFSET_LIMIT = 10.0  # K


@dataclasses.dataclass(frozen=True)
class Growth(Options):
    """Carbon dioxide that grows at a steady rate: `start (1 + yearly_rate)^t`, t in years of 365.25 days."""

    start: float = option(about="ppmv on the first day, spin-up included", minimum=CO2_LIMITS[0], maximum=CO2_LIMITS[1])
    yearly_rate: float = option(0.01, "0.01 is one per cent a year", minimum=-0.5, maximum=0.5)


@dataclasses.dataclass(frozen=True)
class Physics(Options):
    """Parameters of SPEEDY's physics: other values make another model of the same kind. The defaults are its own."""

    convection_hours: float = option(
        6.0, "time in which deep convection relaxes a column (its trcnv)", minimum=2, maximum=24
    )
    cloud_albedo: float = option(0.43, "of a sky wholly covered by cloud (its albcl)", minimum=0.2, maximum=0.7)
    sea_exchange: float = option(
        9e-4, "coefficient of sensible heat flux and evaporation over sea (its chs)", minimum=4e-4, maximum=1.6e-3
    )


@dataclasses.dataclass(frozen=True)
class Slab(Options):
    """A mixed layer in place of prescribed sea temperatures, warmed by the model's own fluxes and by what currents bring."""

    depth: float = option(about="m, of the layer", minimum=1, maximum=1000)
    control: Path = option(
        about="folder of a finished simulation of the same model over prescribed seas, whose climate it keeps"
    )
    prescribed_days: int | None = option(
        None, "after the start, in which the sea is still prescribed; None: the spin-up", minimum=0
    )
    under_ice: bool = option(False, "the layer is stepped where sea ice covers half of a cell or more, too")
    kind: Literal["slab"] = option("slab")

    def __post_init__(self):
        if isinstance(self.control, str):
            object.__setattr__(self, "control", Path(self.control))
        super().__post_init__()


@dataclasses.dataclass(frozen=True)
class Swings(Options):
    """Offsets of the sea temperature that change every so many days, so that the air is often out of balance with the sea.

    Air that has always been as warm as its sea asks for does not tell which of the two a step's change comes from.
    """

    values: tuple[float, ...] = option(
        about="K, everywhere, one turn after another", shortest=1, minimum=-OFFSET_LIMIT, maximum=OFFSET_LIMIT
    )
    days: int = option(20, "of a turn, in the last of which the sea passes to the next one's value", minimum=1)
    maps: float = option(0.0, "K, standard deviation of a smooth random map of each turn's own", minimum=0, maximum=3)
    length_km: float = option(
        2000.0, "over which the correlation of a map falls to about exp(-1/2)", minimum=500, maximum=3000
    )
    seed: int = option(0, "of the maps", minimum=0)

    def __post_init__(self):
        if not isinstance(self.values, list | tuple):
            raise ValueError(f"Expected a sequence of values in turn as sst_offset.values, got {self.values!r}")
        object.__setattr__(self, "values", tuple(self.values))
        super().__post_init__()
        if self.days != int(self.days):
            raise ValueError(f"Expected whole days of a turn as sst_offset.days, got {self.days!r}")


@dataclasses.dataclass(frozen=True)
class Scenario(Options):
    """What a simulation is forced by.

    Raises `ValueError` for values outside their limits.
    """

    co2: float | Growth | Path | None = option(
        None,
        "ppmv; or a start and a yearly rate; or a file of values in time; None: 420 ppmv, and not written",
        new=True,
    )
    sst_offset: float | Swings = option(
        0.0, "K, added to the sea temperature everywhere; or values that change every so many days", new=True
    )
    sst_file: Path | None = option(
        None, "sea temperatures at times, in place of the model's annual cycle of them", new=True
    )
    ocean: Literal["prescribed"] | Slab = option(
        "prescribed", "prescribed sea temperatures, or a slab that the model's fluxes warm", new=True
    )
    member: int = option(0, "seed of the small perturbation that a simulation starts from", new=True, minimum=0)
    physics: Physics | None = option(None, "parameters of the model's physics; None: its own", new=True)

    def __post_init__(self):
        if isinstance(self.sst_offset, Mapping):
            object.__setattr__(self, "sst_offset", Swings.of(self.sst_offset))
        if isinstance(self.co2, Mapping):
            object.__setattr__(self, "co2", Growth.of(self.co2))
        if isinstance(self.physics, Mapping):
            object.__setattr__(self, "physics", Physics.of(self.physics))
        if isinstance(self.ocean, Mapping):
            object.__setattr__(self, "ocean", Slab.of(self.ocean))
        for name in ("co2", "sst_file"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, Path(getattr(self, name)))
        super().__post_init__()
        low, high = CO2_LIMITS
        if isinstance(self.co2, int | float) and not low <= self.co2 <= high:
            raise ValueError(f"Expected co2 of at least {low:g} and at most {high:g} ppmv, got {self.co2!r}")
        if not isinstance(self.sst_offset, Swings) and not abs(float(self.sst_offset)) <= OFFSET_LIMIT:
            raise ValueError(
                f"Expected sst_offset of at least {-OFFSET_LIMIT:g} and at most {OFFSET_LIMIT:g} K, got {self.sst_offset!r}"
            )
        if isinstance(self.sst_offset, Swings) and isinstance(self.ocean, Slab):
            raise ValueError(
                "Expected one sst_offset for a slab ocean, which makes its own changes, got values in turn"
            )

    def describe(self) -> str:
        """In words, what differs from the model's own; "" where nothing does."""
        words = [] if self.co2 is None else [f"CO2 {_of_co2(self.co2)}"]
        words += [f"sea temperature of {self.sst_file}"] if self.sst_file else []
        words += [f"sea temperature {_of_offset(self.sst_offset)}"] if self.sst_offset else []
        if isinstance(self.ocean, Slab):
            words.append(f"slab ocean of {self.ocean.depth:g} m{' and under ice' if self.ocean.under_ice else ''}")
        words += [f"member {self.member}"] if self.member else []
        if self.physics is not None:
            words += [f"{name} {value:g}" for name, value in dataclasses.asdict(self.physics).items()]
        return ", ".join(words)


def _of_offset(offset: float | Swings) -> str:
    if not isinstance(offset, Swings):
        return f"{offset:+g} K"
    words = f"{', '.join(f'{value:+g}' if value else '0' for value in offset.values)} K in turns of {offset.days} days"
    return (
        f"{words} with maps of {offset.maps:g} K and {offset.length_km:g} km (seed {offset.seed})"
        if offset.maps
        else words
    )


def _of_co2(co2: Any) -> str:
    if isinstance(co2, Growth):
        return f"from {co2.start:g} ppmv by {100 * co2.yearly_rate:+g} % a year"
    return f"of {co2}" if isinstance(co2, Path) else f"{co2:g} ppmv"
