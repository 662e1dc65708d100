"""Configuration of the stages that make and judge forecasts: rollout and verify."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from emulator.forecasting.options import (
    OCEANS,
    DiffusionOptions,
    DrivingOptions,
    EnsembleOptions,
    PressureOptions,
    RestoringOptions,
    ThinOptions,
    check_sea,
    driving_store,
    ocean_store,
    pressure_store,
)
from emulator.verify.options import ScenarioOptions, VerifyOptions
from pipelines.config.base import NEW, Count, DaskConfig, Location, Model, Period, Positive
from pipelines.config.declared import Key, OneOf, model_of
from pipelines.config.foreign import ForeignConfig

TAKEN = ("persistence", "climatology", "truth")  # names that the scores use themselves


# What a model of another package is not asked for.
OWN_ALONE = (
    "cascade", "member_checkpoints", "ensemble", "beyond_store", "uncorrected_inits", "parallel", "step_hours", "climatology",
    "ocean", "boundary", "bounds", "diffusion", "offsets", "scenarios", "restoring",
)  # fmt: skip
DrivingConfig = model_of(DrivingOptions)
DiffusionConfig = model_of(DiffusionOptions)
EnsembleConfig = model_of(EnsembleOptions)
ThinConfig = model_of(ThinOptions)
PressureConfig = model_of(PressureOptions)
RestoringConfig = model_of(RestoringOptions)
OCEAN_MODELS = {kind: model_of(options, kind) for kind, options in OCEANS.items()}
OceanConfig = Annotated[Any, OneOf(lambda: OCEAN_MODELS, "slab")]


class CascadeConfig(Model):
    """A checkpoint that takes over at a lead."""

    checkpoint: Path
    from_days: Positive


class SharedConfig(Model):
    """What several processes share out besides initial times."""

    space: Count = Field(1, description="processes that hold one forecast together, each a band of latitudes")


class ClimateConfig(Model):
    """Under what the forecasts are made again."""

    offsets: dict[str, float] = Field(
        description="added to the forcing everywhere and always, in its units, by variable"
    )


class RolloutConfig(Model):
    """Forecasts from many initial times."""

    store: Path
    checkpoint: Path | None = None
    output: Path
    model: ForeignConfig = Field(
        None, json_schema_extra=NEW, description="in place of a checkpoint: a forecast model of another package"
    )
    cascade: list[CascadeConfig] = Field(default_factory=list, description="checkpoints that take over later")
    member_checkpoints: list[Path] = Field(
        default_factory=list, description="more checkpoints: members take turns among all of them"
    )
    ensemble: EnsembleConfig | None = None
    thin: ThinConfig = ThinConfig()
    vertical: PressureConfig | None = Field(
        None, json_schema_extra=NEW, description="forecasts on other levels too, in <output>-pressure.zarr"
    )
    also: list[Literal["netcdf", "grib"]] = Field(
        default_factory=list, description="other formats: one file an initial time, in a folder beside the output"
    )
    beyond_store: bool = Field(False, description="let forecasts run past the store, with forcing of the same season")
    period: Period = Period()
    every_hours: Count = Field(36, description="between initial times")
    every: str | None = Field(
        None,
        json_schema_extra=NEW,
        description="in place of every_hours, such as 12 months; of calendar steps: each time",
    )
    maximum_inits: Count | None = None
    lead_days: Positive = 10
    lead: str | None = Field(None, json_schema_extra=NEW, description="in place of lead_days, such as 12 months")
    uncorrected_inits: int = Field(0, ge=0, description="forecasts of the same network without corrections to add")
    uncorrected: Path | None = Field(None, description="their store; by default uncorrected.zarr beside the output")
    long_run_days: int = Field(0, ge=0, description="length of one long run with daily output to add")
    long_run_lead: str | None = Field(
        None, json_schema_extra=NEW, description="in place of long_run_days, such as 50 years, for calendar steps"
    )
    long_run: Path | None = Field(None, description="its store; by default long_run.zarr beside the output")
    batch_size: Count = 8
    parallel: SharedConfig = Field(
        SharedConfig(), json_schema_extra=NEW, description="what processes share out besides initial times"
    )
    step_hours: Positive | None = Field(
        None, json_schema_extra=NEW, description="of a network that makes steps of several lengths; None: the shortest"
    )
    climatology: Path | None = Field(
        None, json_schema_extra=NEW, description="of a network that predicts anomalies; None: as it was trained"
    )
    ocean: OceanConfig | None = Field(
        None, json_schema_extra=NEW, description="kind slab or emulator: steps the sea's temperature; None: prescribed"
    )
    boundary: DrivingConfig | None = Field(
        None,
        json_schema_extra=NEW,
        description="driving data of a limited area; None: the analysis that it was trained with (perfect boundaries)",
    )
    bounds: Literal["trained", "inputs", "none"] = Field(
        "trained",
        json_schema_extra=NEW,
        description="none: states may leave the envelope of the training; inputs: they may, the network is shown its edge",
    )

    diffusion: DiffusionConfig | None = Field(
        None, json_schema_extra=NEW, description="of small scales at every step, for long runs (docs/rollout.md)"
    )
    offsets: dict[str, float] = Field(
        default_factory=dict,
        json_schema_extra=NEW,
        description="added to the forcing everywhere and always, in its units, by variable",
    )
    restoring: RestoringConfig | None = Field(
        None,
        json_schema_extra=NEW,
        description="surface fluxes of an ocean answer the surface of its forecast (docs/rollout.md); None: prescribed",
    )
    scenarios: dict[Annotated[str, Field(pattern=r"^\w[\w.+-]*$")], ClimateConfig] = Field(
        default_factory=dict,
        json_schema_extra=NEW,
        description="the forecasts again, by the name of their store beside the output, under other offsets",
    )

    @property
    def scenario_stores(self) -> dict[str, Path]:
        """Name -> store."""
        return {name: self.output.with_name(f"{name}.zarr") for name in self.scenarios}

    @property
    def pressure_stores(self) -> dict[Path, Path]:
        """Stores of forecasts on the model's levels -> those on pressure levels; none where they are not asked for."""
        long_run = [self.long_run] if self.long_run_days or self.long_run_lead else []
        stores = [self.output, *self.scenario_stores.values(), *long_run] if self.vertical is not None else []
        return {store: pressure_store(store) for store in stores}

    @pydantic.model_validator(mode="before")
    @classmethod
    def _beside_the_output(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("output"), str | Path):
            return values
        beside = Path(values["output"]).parent
        return {"uncorrected": beside / "uncorrected.zarr", "long_run": beside / "long_run.zarr"} | values

    @pydantic.model_validator(mode="after")
    def _one_model(self) -> "RolloutConfig":
        if (self.checkpoint is None) == (self.model is None):
            raise ValueError("Expected either checkpoint or model")
        fields = type(self).model_fields
        ours = [n for n in OWN_ALONE if getattr(self, n) != fields[n].get_default(call_default_factory=True)]
        if self.model is not None and ours:
            raise ValueError(f"Expected no {' and no '.join(ours)} with a model of another package")
        return self

    @pydantic.model_validator(mode="after")
    def _said_once(self) -> "RolloutConfig":
        """Of what a configuration that was written out holds, a default is not said."""
        stores = {self.store, self.output, self.uncorrected, self.long_run, ocean_store(self.output)}
        stores.add(driving_store(self.output))
        stores |= set(self.pressure_stores.values())
        if taken := [name for name, store in self.scenario_stores.items() if store in stores]:
            raise ValueError(f"Expected scenarios named otherwise than the rollout's other stores, got {taken[0]!r}")
        for offsets in (self.offsets, *(one.offsets for one in self.scenarios.values())):
            check_sea(self.ocean, offsets, self.restoring)
        for given, instead in (("lead_days", "lead"), ("every_hours", "every"), ("long_run_days", "long_run_lead")):
            value, other = getattr(self, given), getattr(self, instead)
            if other is not None and value != type(self).model_fields[given].default:
                raise ValueError(f"Expected {given} or {instead}, got both, {value:g} and {other!r}")
        return self


class ObservationsConfig(Model):
    """Point observations as the truth."""

    path: Path = Field(description="METAR table (.parquet), CSV, or verif's text (.txt)")
    tolerance_minutes: Positive = Field(30, description="around the full hour")
    quality: list[str] = Field(["V", "S", "C", "G"], description="flags of MADIS that are kept")
    stations: list[str] | None = None
    method: Literal["bilinear", "nearest"] = "bilinear"
    lapse_rate: float = Field(0.0065, ge=0, description="K per m, carries 2 m temperature to the station's height")


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str | Path) else value


Stores = Annotated[list[Location], pydantic.BeforeValidator(_several), Field(min_length=1)]


class _ScenarioStores(Model):
    """The stores of a verification of scenarios: of each scenario one, or several members."""

    train: dict[str, Stores] = Field(min_length=1, description="scenario: stores that pattern scaling is fitted to")
    held_out: dict[str, Stores] = Field(min_length=1, description="scenario: stores that are the truth")
    forecasts: dict[str, dict[str, Location]] = Field(
        default_factory=dict, description="name in the report: {held-out scenario: forecast store}"
    )
    control: Stores | None = Field(
        None, description="stores whose time mean is taken from all fields; None: they are departures already"
    )


class ScenariosConfig(model_of(ScenarioOptions), _ScenarioStores):
    """Emulators of scenarios, scored by years beside pattern scaling and the truth's own noise."""


class _Judged(Model):
    """The stores of a verification."""

    forecasts: dict[str, Location] = Field(
        default_factory=dict,
        description="name in the report: forecasts in Zarr or NetCDF; scored on the initial times they share",
    )
    driving: dict[str, Location] = Field(
        default_factory=dict,
        json_schema_extra=NEW,
        description="name in the report: forecasts of a driving model on any grid, put on the truth's and scored too",
    )
    held: dict[str, Location] = Field(
        default_factory=dict,
        json_schema_extra=NEW,
        description="name in the report: analyses held as forecasts: persistence of a cycle's own, which is not the truth's",
    )
    audit: dict[str, Location] = Field(
        default_factory=dict, description="more forecast stores whose budgets are audited, without being scored"
    )
    long_runs: dict[str, Location] = Field(
        default_factory=dict, description="forecast stores of long runs, whose climate is compared with the truth's"
    )
    references: dict[str, Location] = Field(
        default_factory=dict,
        json_schema_extra=NEW,
        description="by the names of long runs: analysis stores that take the truth's place for them, such as of warmer seas",
    )
    oceans: dict[str, Location] = Field(
        default_factory=dict,
        json_schema_extra=NEW,
        description="by the names of forecasts: those of the ocean's network beside them, to audit what is exchanged",
    )
    truth: Location | None = Field(
        None, description="analysis store, or another tool's Zarr or NetCDF (a path, a pattern or a URL)"
    )
    observations: ObservationsConfig | None = Field(None, description="in place of a truth store")
    output: Path

    @pydantic.model_validator(mode="after")
    def _one_truth(self) -> "_Judged":
        if (self.truth is None) == (self.observations is None):
            raise ValueError("Expected either truth or observations")
        return self

    @pydantic.model_validator(mode="after")
    def _names_of_their_own(self) -> "_Judged":
        for name in (*self.forecasts, *self.driving, *self.held, *self.audit, *self.long_runs):
            if name in TAKEN or not name.strip():
                raise ValueError(f"Expected names of forecasts other than {', '.join(TAKEN)}, got {name!r}")
        if self.driving and self.observations is not None:
            raise ValueError("Expected verify.driving with a truth store, got it with observations")
        if both := sorted(set(self.forecasts) & set(self.driving)):
            raise ValueError(f"Expected names in driving that forecasts does not have, got {both[0]!r} in both")
        if self.held and (self.observations is not None or not self.forecasts):
            raise ValueError("Expected verify.held with a truth store and beside forecasts, got it without")
        if both := sorted(set(self.held) & {*self.forecasts, *self.driving}):
            raise ValueError(f"Expected names in held that forecasts does not have, got {both[0]!r} in both")
        if both := sorted(set(self.forecasts) & set(self.audit)):
            raise ValueError(f"Expected names in audit that forecasts does not have, got {both[0]!r} in both")
        return self


class VerifyConfig(
    model_of(VerifyOptions, period=Key(Period, Period()), climatology=Key(Period, Period())), _Judged
):  # pydantic takes the last base's fields first
    """Scores of forecast stores against one truth; without forecasts, of persistence alone."""

    scenarios: ScenariosConfig | None = Field(
        None, json_schema_extra=NEW, description="emulators of scenarios to score too"
    )
    feedback: Path | None = Field(
        None,
        json_schema_extra=NEW,
        description="folder of a cycle's feedback: observations against background and analysis",
    )
    coarse: Path | None = Field(None, json_schema_extra=NEW, description="store that downscaled forecasts were made of")

    dask: DaskConfig = DaskConfig()
