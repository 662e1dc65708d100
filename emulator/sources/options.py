"""Options of a source of data. Needs no array library."""

import dataclasses
from typing import Any, Literal

from emulator.options import Options, option


@dataclasses.dataclass(frozen=True)
class Definition(Options):
    """What a field is. Where nothing is said the field's file is asked; a name of the variable table keeps what that says."""

    units: str | int | None = option(None, "of the store, to which sources are converted; None: the source's")
    role: Literal["prognostic", "forcing", "diagnostic", "static"] | None = option(
        None, "None: static without a time, diagnostic for means over a step, else prognostic"
    )
    cell: Literal["point", "mean", "fixed"] | None = option(
        None,
        "a snapshot, a mean over the step that ends at its time, or fixed; None: as cell_methods say, else a snapshot",
    )
    levels: bool | str | None = option(
        None, "level, height, depth or soil_layer, true for any of them, false for none; None: as the source has it"
    )
    domain: str | None = option(
        None,
        "where it exists: all, land, ocean, valid (where its first time has values), or a static field of the store",
    )
    sign: str | None = option(None, "which sign means what")
    minimum: float | None = option(None, "physical bound in the store's units, beyond which values are refused")
    maximum: float | None = option(None)
    standard_name: str | None = option(None, "CF's")
    long_name: str | None = option(None)

    def __post_init__(self):
        super().__post_init__()
        if None not in (self.minimum, self.maximum) and self.minimum >= self.maximum:
            raise ValueError(f"Expected minimum below maximum, got {self.minimum:g} and {self.maximum:g}")


@dataclasses.dataclass(frozen=True)
class SourceOptions(Options):
    """Files of one kind that together hold some variables over some times, and what they do not say of themselves.

    Ingest settles the last four for all sources alike: whether lead times are kept (`forecast`), the names to read (`wanted`,
    None: all that are known), which of them do not change in time (`static`), and what those are that the variable table does
    not know (`entries`, name -> `Variable`).
    """

    path: str | tuple[str, ...] = option("", "path, glob or fsspec URL; several are joined")
    engine: str = option("auto")  # or a format of `emulator.sources.formats`
    rename: dict[str, str] = option({}, "name in the source: canonical name")
    select: dict[str, Any] = option({}, "dimension: value or list of values to keep")
    units: dict[str, str] = option({}, "units of variables, or of level, where the source records none or wrong ones")
    points: bool = option(False, "take GRIB's reduced Gaussian and HEALPix grids as lists of points")
    negate: tuple[str, ...] = option((), "variables whose sign is opposite to ECMWF's")
    interval_hours: float | None = option(
        None, "what accumulations cover, where the source does not say; of several intervals, the one to take", above=0
    )
    totals_from: Literal["midnight", "start"] | None = option(
        None,
        "accumulations are totals that run on since 00 UTC (ERA5-Land), or since the initial time of their forecast",
        new=True,
    )
    interpolate: Literal["linear"] | None = option(
        None, "series without space: values between its times, linear in time", new=True
    )
    variables: tuple[str, ...] | None = option(
        None, "of a store to join; None: all but those of the stores before it", new=True
    )
    time_stamp: Literal["start", "middle", "end"] | None = option(
        None, "where in its interval the time of a mean lies, where no bounds tell; all fields are then means", new=True
    )
    forecast: bool = option(False)
    wanted: tuple[str, ...] | None = option(None)
    static: tuple[str, ...] = option(("geopotential_at_surface", "land_sea_mask"))
    entries: dict[str, Any] = option({}, new=True)

    def __post_init__(self):
        super().__post_init__()
        if self.interval_hours is not None and self.totals_from is not None:
            raise ValueError(
                f"Expected interval_hours (every value is over it) or totals_from (values run on), got both, "
                f"{self.interval_hours:g} and {self.totals_from}"
            )
