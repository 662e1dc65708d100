"""What a store is made of, and how: every option of an ingest with its default, its meaning and its limits.

Needs no array library, so that a configuration derives its section from it in no time.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from emulator.options import Options, option
from emulator.sources.options import Definition, SourceOptions


@dataclasses.dataclass(frozen=True)
class GridOptions(Options):
    """The grid of the store, when it is to be another than the sources'."""

    kind: Literal["gaussian", "equiangular", "box"] = option("equiangular", keyword=True)
    rows: int = option(minimum=4)
    columns: int | None = option(None, "None: twice the rows, less two with poles", minimum=1)
    poles: bool = option(False, "rows at the poles (equiangular alone)", keyword=True)
    method: Literal["conservative", "bilinear"] = option("conservative", keyword=True)
    bilinear: tuple[str, ...] = option((), "variables for bilinear interpolation", keyword=True)
    south: float | None = option(None, "edge of a box in degrees, as the next three", new=True, keyword=True)
    north: float | None = option(None, new=True, keyword=True)
    west: float | None = option(None, "may exceed east, across Greenwich", new=True, keyword=True)
    east: float | None = option(None, new=True, keyword=True)

    def __post_init__(self):
        super().__post_init__()
        edges = self.south, self.north, self.west, self.east
        if self.kind == "box" and (self.columns is None or None in edges):
            raise ValueError("Expected columns, south, north, west and east with a grid of the kind box")
        if self.kind != "box" and any(edge is not None for edge in edges):
            raise ValueError(f"Expected edges with a grid of the kind box, got them with {self.kind}")


@dataclasses.dataclass(frozen=True)
class VerticalOptions(Options):
    """Other levels than the sources': one of the three."""

    pressure: tuple[float, ...] | None = option(None, "hPa, from hybrid or sigma levels, by log pressure", above=0)
    layers: int | None = option(None, "as many layers of about equal numbers of levels, mass-weighted means", minimum=1)
    edges: tuple[int, ...] | None = option(None, "layers between these interfaces, from 0 to the number of levels")

    def __post_init__(self):
        super().__post_init__()
        if sum(value is not None for value in (self.pressure, self.layers, self.edges)) != 1:
            raise ValueError("Expected one of pressure, layers and edges")


@dataclasses.dataclass(frozen=True)
class IngestOptions(Options):
    """Sources to one analysis store, to a forecast store (`kind: forecast`), or analysis stores as one (`kind: joined`, and
    `cutout` for a stretched grid).

    `sources`: paths and patterns alone become `SourceOptions`, and one stands for a sequence of one. `start` and `end`: of
    the period, both included (see `emulator.planet.calendar.within`); None is open. `settings`: text of all that the values
    depend on besides the sources, for the fingerprint; None: of these options.
    """

    sources: tuple[SourceOptions, ...] = option(shortest=1)  # or paths
    kind: Literal["analysis", "forecast", "joined", "cutout"] = option(
        "analysis",
        "joined: stores that ingest has written, put together when they are read; cutout: a region's and a globe's as points",
    )
    step_hours: float | None = option(None, "step of the store; None: that of the snapshots in the sources", above=0)
    step: str | None = option(None, "in place of step_hours: 1 day, 1 month, 1 season, 1 year", new=True, keyword=True)
    variables: tuple[str, ...] | None = option(
        None, "names to keep; None keeps all that the variable table or `define` knows"
    )
    roles: dict[str, Literal["prognostic", "forcing", "diagnostic", "static"]] = option({})
    constants: dict[str, float] = option({})
    start: Any = option(None)
    end: Any = option(None)
    grid: GridOptions | None = option(None, "None: the sources'; sources on several grids need one")
    vertical: VerticalOptions | None = option(None)
    derive: tuple[str, ...] = option(
        (), "wind_speed, total_column_water, temperature_mean_300_850, ...; see docs/data.md"
    )
    missing: Literal["refuse", "keep", "interpolate"] = option(
        "refuse", "times that no source has; interpolated ones are recorded, longer gaps refused"
    )
    longest_gap: int = option(2, "times in a row that may be interpolated", minimum=1)
    times_per_chunk: int = option(1, minimum=1)
    rows_per_chunk: int | None = option(
        None, "rows of latitude in a file, for processes that each read a band of them; None: all", minimum=1, new=True
    )
    times_per_region: int | None = option(None, "times in a file and a task; None: about 64 MB of a field", minimum=1)
    settings: str | None = option(None)
    define: dict[str, Definition] = option(
        {}, "name: what a field is that the variable table does not know, or where a known one exists", new=True
    )

    def __post_init__(self):
        given = [self.sources] if isinstance(self.sources, SourceOptions | str | Path) else self.sources
        sources = tuple(s if isinstance(s, SourceOptions) else SourceOptions(str(s)) for s in given)
        if not sources:
            raise ValueError("Expected at least one source, got none")
        if self.kind != "joined" and any(source.variables is not None for source in sources):
            raise ValueError(
                f"Expected sources with variables of their own with kind joined alone, got kind {self.kind}"
            )
        object.__setattr__(self, "sources", sources)
        define = {n: each if isinstance(each, Definition) else Definition.of(each) for n, each in self.define.items()}
        object.__setattr__(self, "define", define)
        super().__post_init__()
        if self.step_hours and self.step:
            raise ValueError(f"Expected step_hours or step, got both, {self.step_hours:g} and {self.step!r}")
