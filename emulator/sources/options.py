"""Options of a source of data. Needs no array library."""

import dataclasses
from typing import Any, Literal

from emulator.options import Options, option
from emulator.planet.variables import VARIABLES


@dataclasses.dataclass(frozen=True)
class SourceOptions(Options):
    """Files of one kind that together hold some variables over some times, and what they do not say of themselves.

    Ingest settles the last three for all sources alike: whether lead times are kept (`forecast`), the canonical names to read
    (`wanted`, None: all), and which of them do not change in time (`static`).
    """

    path: str | tuple[str, ...] = option("", "path, glob or fsspec URL; several are joined")
    engine: str = option("auto")  # or a format of `emulator.sources.formats`
    rename: dict[str, str] = option({}, "name in the source: canonical name")
    select: dict[str, Any] = option({}, "dimension: value or list of values to keep")
    units: dict[str, str] = option({}, "units of variables, or of level, where the source records none or wrong ones")
    points: bool = option(False, "take GRIB's reduced Gaussian and HEALPix grids as lists of points")
    negate: tuple[str, ...] = option((), "variables whose sign is opposite to ECMWF's")
    interval_hours: float | None = option(None, "what accumulations cover, where the source does not say", above=0)
    interpolate: Literal["linear"] | None = option(
        None, "series without space: values between its times, linear in time", new=True
    )
    time_stamp: Literal["start", "middle", "end"] | None = option(
        None, "where in its interval the time of a mean lies, where no bounds tell; all fields are then means", new=True
    )
    forecast: bool = option(False)
    wanted: tuple[str, ...] | None = option(None)
    static: tuple[str, ...] = option(tuple(name for name, entry in VARIABLES.items() if entry.role == "static"))
