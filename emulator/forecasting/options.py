"""How members of an ensemble differ, and what of forecasts is written: options with their limits. Needs no torch."""

import dataclasses
from typing import Literal

from emulator.options import Options, option


@dataclasses.dataclass(frozen=True)
class EnsembleOptions(Options):
    """How the members of an ensemble differ. Amplitudes are in units of the standard deviation of a step's change."""

    members: int = option(minimum=2)
    kind: Literal["none", "noise", "bred", "lagged"] = option(
        "noise", "none: members differ by checkpoint or by the network's own noise alone"
    )
    control: bool = option(False, "the first member starts from the analysis itself (noise, bred)")
    amplitude: float = option(0.3, above=0)
    slope: float = option(3.0, "power of the noise falls as wavenumber to this power")
    lowest_wavenumber: int = option(1, minimum=0)
    spectrum: tuple[float, ...] | None = option(None, "power per total wavenumber from 0, in place of the slope")
    vertical_correlation: float = option(0.8, "of the noise on neighbouring levels", minimum=0, maximum=1)
    seed: int = option(0, minimum=0)
    lag_hours: float = option(6.0, "between the starts of lagged members", above=0)
    cycles: int = option(6, "of breeding", minimum=1)
    cycle_hours: float = option(12.0, above=0)


@dataclasses.dataclass(frozen=True)
class ThinOptions(Options):
    """What of the forecasts is written."""

    variables: tuple[str, ...] | None = option(None)
    levels: tuple[float, ...] | None = option(None, "the nearest, in the store's own unit")
    region: str | None = option(None, "a region of the verification, as its smallest box")
    every_hours: float | None = option(None, "None: every step", above=0)
    mean: Literal["none", "every", "monthly"] = option(
        "none", "means over every_hours or calendar months in place of snapshots"
    )
