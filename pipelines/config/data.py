"""Configuration of the stages that make data: simulate, ingest, stats."""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from pipelines.config.base import NEW, Count, DaskConfig, Model, Period, Positive, registered


class SimulateConfig(Model):
    """An embedded model (by default a general circulation model with SPEEDY physics) as a source of data."""

    directory: Path
    days: Count = 420
    spin_up_days: int = Field(60, ge=0)
    chunk_days: Count = 15
    start: date = date(2001, 1, 1)
    truncation: Literal[21, 31] = 31
    time_step_minutes: Count = 30
    step_hours: Count = 6
    model: Annotated[str, registered("emulator.embedded:MODELS", "speedy")] = Field("speedy", json_schema_extra=NEW)
    options: dict[str, Any] = Field(
        default_factory=dict, json_schema_extra=NEW, description="settings of another model than speedy"
    )


class SourceConfig(Model):
    """Files of one kind that together hold some variables over some times."""

    path: str | list[str] = Field(description="path, glob or fsspec URL; several are joined")
    engine: Annotated[str, registered("emulator.sources.open:FORMATS", "auto")] = "auto"
    rename: dict[str, str] = Field(default_factory=dict, description="name in the source: canonical name")
    select: dict[str, Any] = Field(default_factory=dict, description="dimension: value or list of values to keep")
    units: dict[str, str] = Field(
        default_factory=dict, description="units of variables, or of level, where the source records none or wrong ones"
    )
    points: bool = Field(False, description="take GRIB's reduced Gaussian and HEALPix grids as lists of points")
    negate: list[str] = Field(default_factory=list, description="variables whose sign is opposite to ECMWF's")
    interval_hours: Positive | None = Field(None, description="what accumulations cover, where the source does not say")


class GridConfig(Model):
    """The grid of the store, when it is to be another than the sources'."""

    kind: Literal["gaussian", "equiangular"] = "equiangular"
    rows: int = Field(ge=4)
    columns: Count | None = Field(None, description="None: twice the rows, less two with poles")
    poles: bool = Field(False, description="rows at the poles (equiangular alone)")
    method: Literal["conservative", "bilinear"] = "conservative"
    bilinear: list[str] = Field(default_factory=list, description="variables for bilinear interpolation")


class VerticalConfig(Model):
    """Other levels than the sources': one of the three."""

    pressure: list[Positive] | None = Field(None, description="hPa, from hybrid or sigma levels, by log pressure")
    layers: Count | None = Field(
        None, description="as many layers of about equal numbers of levels, mass-weighted means"
    )
    edges: list[int] | None = Field(None, description="layers between these interfaces, from 0 to the number of levels")

    @pydantic.model_validator(mode="after")
    def _one(self):
        if sum(value is not None for value in (self.pressure, self.layers, self.edges)) != 1:
            raise ValueError("Expected one of pressure, layers and edges")
        return self


class IngestConfig(Model):
    """Sources to one analysis store, or to a forecast store (`kind: forecast`)."""

    sources: list[SourceConfig] = Field(min_length=1)
    output: Path
    kind: Literal["analysis", "forecast"] = "analysis"
    step_hours: Positive | None = Field(
        None, description="step of the store; None: that of the snapshots in the sources"
    )
    variables: list[str] | None = Field(None, description="canonical names to keep; None keeps all that are known")
    roles: dict[str, Literal["prognostic", "forcing", "diagnostic", "static"]] = Field(default_factory=dict)
    constants: dict[str, float] = Field(default_factory=dict)
    period: Period = Period()
    grid: GridConfig | None = Field(None, description="None: the sources'; sources on several grids need one")
    vertical: VerticalConfig | None = None
    derive: list[str] = Field(
        default_factory=list,
        description="wind_speed, total_column_water, temperature_mean_300_850, ...; see docs/data.md",
    )
    missing: Literal["refuse", "keep", "interpolate"] = Field(
        "refuse", description="times that no source has; interpolated ones are recorded, longer gaps refused"
    )
    longest_gap: Count = Field(2, description="times in a row that may be interpolated")
    times_per_chunk: Count = 1
    times_per_region: Count | None = Field(None, description="times in a file and a task; None: about 64 MB of a field")
    dask: DaskConfig = DaskConfig()


class StatsConfig(Model):
    """Mean, spread, extremes, step differences and the envelope of every cell over the training period."""

    store: Path
    later_stores: list[Path] = Field(
        default_factory=list, description="stores like the first that go on after it, as for training"
    )
    scenarios: list[Path] = Field(
        default_factory=list,
        json_schema_extra=NEW,
        description="further stores like the first of any times, such as other scenarios or members",
    )
    output: Path
    period: Period = Period()
    climatology: Path | None = Field(None, description="store of means by hour and day of the year to write beside")
    climatology_window: int = Field(61, ge=3, le=365, description="days of its triangular window, odd")
    memory_gigabytes: Positive = Field(2.0, description="for one field's sums; less takes its levels one after another")
    dask: DaskConfig = DaskConfig()
