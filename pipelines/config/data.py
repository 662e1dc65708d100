"""Configuration of the stages that make data: simulate, ingest, stats."""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from emulator.embedded.options import Scenario
from emulator.ingestion.options import GridOptions, IngestOptions, VerticalOptions
from emulator.sources.options import SourceOptions
from emulator.verify.options import OutflowOptions
from pipelines.config.base import NEW, Count, DaskConfig, Model, Period, Positive, registered
from pipelines.config.declared import Key, model_of

ScenarioConfig = model_of(Scenario)
ScenarioName = Annotated[str, Field(pattern=r"^\w[\w.+-]*$")]
SCENARIO = "{scenario}"  # in the paths of sources


class SimulateConfig(ScenarioConfig):
    """An embedded model (by default a general circulation model with SPEEDY physics) as a source of data."""

    directory: Path
    days: Count = 420
    spin_up_days: int = Field(60, ge=0)
    chunk_days: Count = 15
    start: date = date(2001, 1, 1)
    truncation: Literal[21, 31, 63] = 31
    time_step_minutes: Count = 30
    step_hours: Count = 6
    model: Annotated[str, registered("emulator.embedded:MODELS", "speedy")] = Field("speedy", json_schema_extra=NEW)
    options: dict[str, Any] = Field(
        default_factory=dict, json_schema_extra=NEW, description="settings of another model than speedy"
    )
    scenarios: dict[ScenarioName, ScenarioConfig] = Field(
        default_factory=dict,
        json_schema_extra=NEW,
        description="name: what differs from this section; each a simulation in a folder of its own under the directory",
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _find_controls(cls, values: Any) -> Any:
        """In place of a scenario's name as the control of a slab its folder, which moves with the run."""
        if not isinstance(values, dict) or not isinstance(scenarios := values.get("scenarios"), dict):
            return values

        def found(section: Any) -> Any:
            ocean = section.get("ocean") if isinstance(section, dict) else None
            if not isinstance(ocean, dict) or str(ocean.get("control")) not in scenarios:
                return section
            return section | {"ocean": ocean | {"control": Path(values["directory"]) / str(ocean["control"])}}

        return found(values) | {"scenarios": {name: found(section) for name, section in scenarios.items()}}


SourceConfig = model_of(
    SourceOptions,
    path=Key(str | list[str]),
    engine=Annotated[str, registered("emulator.sources.open:FORMATS", "auto")],
    select=dict[str, Any],
    forecast=None,
    wanted=None,
    static=None,
    entries=None,
)
GridConfig = model_of(GridOptions)
VerticalConfig = model_of(VerticalOptions)


class IngestConfig(
    model_of(
        IngestOptions,
        sources=list[SourceConfig],
        output=Key(Path, after="sources"),
        period=Key(Period, Period(), after="constants"),
        start=None,
        end=None,
        settings=None,
    )
):
    """Sources to one analysis store, or to a forecast store (`kind: forecast`)."""

    dask: DaskConfig = DaskConfig()
    scenarios: list[ScenarioName] = Field(
        default_factory=list,
        json_schema_extra=NEW,
        description="names that {scenario} in the sources' paths stands for; each a store NAME.zarr beside the output",
    )

    @pydantic.model_validator(mode="after")
    def _one_store_each(self) -> "IngestConfig":
        named = [path for s in self.sources for path in ([s.path] if isinstance(s.path, str) else s.path)]
        if bool(self.scenarios) != any(SCENARIO in path for path in named):
            raise ValueError(f"Expected {SCENARIO} in the path of a source with scenarios, and nowhere without")
        return self

    def stores(self) -> list["IngestConfig"]:
        """That of each scenario's store, in order; of a section without any itself."""
        return [self._of(name) for name in self.scenarios] or [self]

    def _of(self, name: str) -> "IngestConfig":
        def named(path: str | list[str]) -> str | list[str]:
            return path.replace(SCENARIO, name) if isinstance(path, str) else [p.replace(SCENARIO, name) for p in path]

        sources = [source.model_copy(update={"path": named(source.path)}) for source in self.sources]
        own = {"sources": sources, "output": self.store_of(name), "scenarios": []}
        return self.model_copy(update=own)

    def store_of(self, scenario: str) -> Path:
        """The store of a scenario."""
        return self.output.parent / f"{scenario}.zarr"


class OutflowConfig(model_of(OutflowOptions)):
    """What leaves a limited area by its sides over every step, from driving data."""

    store: Path = Field(description="driving data: an analysis, or forecasts with all leads")
    domain: Path = Field(description="analysis of the limited area")
    output: Path
    static: Path | None = Field(None, description="analysis with the orography of driving forecasts that lack it")
    period: Period = Field(Period(), description="of an analysis; None: all of it")


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
