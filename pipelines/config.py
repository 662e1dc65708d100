"""Every knob of every stage: strict, frozen models over passive YAML, which `load.py` reads. Needs nothing of the library."""

import re
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one sentence for a person."""


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def _bare_date(value: Any) -> Any:
    """Text of a date without a time stays a date: as a period's end it means the whole day."""
    return date.fromisoformat(value) if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value) else value


Moment = Annotated[datetime | date, pydantic.BeforeValidator(_bare_date)]


class Period(Model):
    """Times from `start` to `end`, both included; None is open."""

    start: Moment | None = None
    end: Moment | None = None


# --- simulate -------------------------------------------------------------------------------------------------------


class SimulateConfig(Model):
    """The embedded general circulation model (SPEEDY physics) as a source of data."""

    directory: Path
    days: Count = 420
    spin_up_days: int = Field(60, ge=0)
    chunk_days: Count = 15
    start: date = date(2001, 1, 1)
    truncation: Literal[21, 31] = 31
    time_step_minutes: Count = 30
    step_hours: Count = 6


# --- ingest and statistics ------------------------------------------------------------------------------------------


class DaskSlurmConfig(Model):
    """Dask's workers as Slurm jobs, one each; needs the extra `slurm` (dask-jobqueue)."""

    partition: str | None = None
    account: str | None = None
    walltime: str = Field("01:00:00", description="of a worker; unfinished regions go to others")
    options: list[str] = Field(default_factory=list, description="more of sbatch's options, such as --qos=low")
    setup: list[str] = Field(default_factory=list, description="shell lines before a worker starts")


class DaskConfig(Model):
    """Where Dask works: a local cluster of `workers` processes, Slurm jobs, or the scheduler at `address`."""

    workers: int = Field(0, ge=0, description="0: threads of this process")
    threads: Count = 2
    memory: str | None = None
    address: str | None = None
    slurm: DaskSlurmConfig | None = None


class SourceConfig(Model):
    """Files of one kind that together hold some variables over some times."""

    path: str | list[str] = Field(description="path, glob or fsspec URL; several are joined")
    engine: Literal["auto", "netcdf", "grib", "zarr"] = "auto"
    rename: dict[str, str] = Field(default_factory=dict, description="name in the source: canonical name")
    select: dict[str, Any] = Field(default_factory=dict, description="dimension: value or list of values to keep")
    units: dict[str, str] = Field(default_factory=dict, description="units where the source records none or wrong ones")
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
    """Mean, standard deviation and standard deviation of the step difference over the training period."""

    store: Path
    output: Path
    period: Period = Period()
    climatology: Path | None = Field(None, description="store of means by hour and day of the year to write beside")
    climatology_window: int = Field(61, ge=3, le=365, description="days of its triangular window, odd")
    memory_gigabytes: Positive = Field(2.0, description="for one field's sums; less takes its levels one after another")
    dask: DaskConfig = DaskConfig()


# --- train ----------------------------------------------------------------------------------------------------------


Precision = Literal["float32", "bfloat16"]
Skip = Literal["none", "identity", "linear"]


class SFNOConfig(Model):
    """Spherical Fourier neural operator; the fields are those of `emulator.models.sfno.SFNOOptions`."""

    kind: Literal["sfno"] = "sfno"
    embed_dim: Count = 64
    blocks: Count = 4
    scale_factor: float = Field(1, ge=1)
    truncation: Fraction | None = None
    filter: Literal["complex", "real", "diagonal", "low_rank"] = "complex"
    filter_precision: Precision = "float32"
    rank: Count = 16
    spectral_layers: Count = 1
    mlp_ratio: float = Field(2.0, ge=0)
    mlp_precision: Precision = "float32"
    encoder_layers: int = Field(1, ge=0)
    norm: Literal["instance", "area_instance", "layer", "none"] = "instance"
    pre_norm: Literal["none", "branch", "stream"] = "stream"
    activation: bool = True
    inner_skip: Skip = "linear"
    outer_skip: Skip = "identity"
    big_skip: Literal["none", "concat", "add"] = "concat"
    position: Literal["none", "harmonics", "learned"] = "none"
    checkpointing: bool = False
    drop_path: Fraction = 0.0
    zero_output: bool = False


class GraphConfig(Model):
    """Message passing on an icosahedral mesh; see `emulator.mesh.MeshOptions` and `emulator.models.graph.GraphOptions`."""

    kind: Literal["graph"] = "graph"
    refinement: int = Field(4, ge=0, le=8, description="halvings of the icosahedron: 10 * 4^n + 2 nodes")
    multi: bool = Field(True, description="edges of all refinements (GraphCast), or of the finest alone (Keisler)")
    radius: float = Field(0.6, ge=0.58, le=4, description="reach of a cell, as a share of the longest finest edge")
    file: Path | None = Field(None, description="where the graph is kept; made there if absent; None: in memory")
    width: Count = 128
    rounds: Count = 8
    precision: Precision = "float32"
    checkpointing: bool = False
    zero_output: bool = False


class UNetConfig(Model):
    """U-Net with convolutions around the sphere; the fields are those of `emulator.models.unet.UNetOptions`."""

    kind: Literal["unet"] = "unet"
    width: Count = 48
    depth: Count = 3
    blocks: Count = 1
    checkpointing: bool = False
    zero_output: bool = False


class TorchHarmonicsConfig(Model):
    """torch-harmonics' own SFNO, a baseline; options by its names."""

    kind: Literal["torch_harmonics"] = "torch_harmonics"
    embed_dim: Count = 64
    num_layers: Count = 4
    scale_factor: Count = 1
    mlp_ratio: Positive = 2.0
    normalization_layer: Literal["instance_norm", "layer_norm", "none"] = "instance_norm"
    residual_prediction: bool = False


def _kind_given(value: Any) -> Any:
    """A network without a kind is an SFNO."""
    return {"kind": "sfno"} | value if isinstance(value, dict) else value


NetworkConfig = Annotated[
    SFNOConfig | GraphConfig | UNetConfig | TorchHarmonicsConfig,
    Field(discriminator="kind"),
    pydantic.BeforeValidator(_kind_given),
]


class ConservationConfig(Model):
    """Which budgets are closed inside the step, and how; see docs/conservation.md."""

    kind: Literal["none", "sequential", "projection"] = "sequential"
    budgets: list[Literal["dry_air", "water", "energy", "column_water"]] = ["dry_air", "water", "energy"]
    energy: Literal["hydrostatic", "total"] = "hydrostatic"
    heat_capacity: Literal["constant", "moist"] = "constant"
    kinetic: bool = True
    anchor: Literal["initial", "previous", "given"] = "initial"
    dry_mass: Positive | None = Field(None, description="kg m-2, with the anchor 'given'")
    dry_air: Literal["ratio", "offset", "humidity"] | None = None
    water: Literal["precipitation", "evaporation"] = "precipitation"
    temperature: Literal["uniform", "ratio"] = "uniform"
    controls: list[str] | None = Field(None, description="fields that the projection may change")
    unaccounted: list[Literal["heating", "moistening", "dry_mass"]] = Field(
        ["heating", "moistening"], description="mean residuals of the training data that are let stand, not forced to 0"
    )
    penalty: float = Field(
        0.0, ge=0, description="weight of the squared residuals in the loss; works with kind none too"
    )


class OptimizerConfig(Model):
    lr: Positive = 2e-3
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    warmup_steps: int = Field(100, ge=0)
    final_lr: float = Field(0.0, ge=0)
    clip: Positive = 1.0


class LossConfig(Model):
    """Error of a step, in units of a typical change; `spectral` weights its square by (1 + l (l + 1))^power."""

    kind: Literal["mse", "l1", "huber", "spectral"] = "mse"
    delta: Positive = Field(1.0, description="of huber: where the square ends")
    power: float = Field(0.5, description="of spectral: above 0 small scales count more")


class PhaseConfig(Model):
    """A stretch of training with one number of autoregressive steps."""

    updates: Count
    rollout_steps: Count = 1
    batch_size: Count = Field(4, description="over all processes")
    lr_scale: Positive = 1.0
    random_steps: bool = Field(False, description="every update draws its number of steps from 1 to rollout_steps")
    gradient_steps: int = Field(0, ge=0, description="gradients reach no more steps back; 0: through the whole window")
    teacher: Fraction = Field(0.0, description="probability that a step starts from the truth, not the network's state")
    replay: float = Field(0.0, ge=0, lt=1, description="share of samples that go on from the network's own last states")
    replay_most: Count = Field(16, description="windows in a row that a sample may go on")
    accumulate: Count = Field(1, description="parts that a batch is computed in, for less memory")


class ValidationConfig(Model):
    """Validation while training on times that it does not see: one step, and short rollouts, whose skill chooses."""

    period: Period
    every: Count = Field(250, description="updates between validations")
    windows: Count = Field(16, description="initial times, spread evenly over the period")
    steps: Count = Field(12, description="length of the rollouts")
    batch_size: Count = Field(4, description="of each process")
    patience: int = Field(0, ge=0, description="end after so many validations without a better one; 0: never")
    choose: Literal["best", "last"] = Field("best", description="weights of the best rollouts, or the last ones")


class TrainConfig(Model):
    """One network trained on one store."""

    store: Path
    statistics: Path
    output: Path
    period: Period = Period()
    validation: ValidationConfig | None = None
    prognostic: list[str] | None = Field(None, description="None: by the roles in the store")
    diagnostic: list[str] | None = None
    forcing: list[str] | None = None
    network: NetworkConfig = SFNOConfig()
    conservation: ConservationConfig = ConservationConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    phases: list[PhaseConfig] = Field(default_factory=lambda: [PhaseConfig(updates=1000)], min_length=1)
    loss: LossConfig = LossConfig()
    variable_weights: dict[str, Positive] = Field(default_factory=dict, description="weight in the loss, by variable")
    diagnostic_weight: Positive = Field(0.2, description="weight of the diagnostics that variable_weights leaves out")
    damping: Fraction = Field(
        1.0, description="share of the optimal linear relaxation to the mean in the residual step"
    )
    ema: Fraction = Field(0.0, description="decay of the exponential moving average of the weights; 0 keeps none")
    margin: float = Field(
        0.5, ge=0, description="states stay in the training data's local range, widened by this share"
    )
    seed: int = 0
    later_stores: list[Path] = Field(
        default_factory=list,
        description="stores like the first that go on after it; windows cross the seam where they meet",
    )
    cache_gigabytes: float = Field(3.0, ge=0, description="hold the period in memory when it needs at most this")
    loader_threads: Count = Field(2, description="that read and decompress, when the period is not held in memory")
    precision: Precision = Field(
        "float32", description="of the network's products; budgets and losses are never halved"
    )
    compile: bool = Field(False, description="torch.compile the network")
    checkpoint_steps: bool = Field(
        False, description="compute steps again in the backward pass: less memory, a third slower"
    )
    parallel: Literal["ddp", "fsdp"] = Field("ddp", description="each process holds the network, or a part of it")
    save_every: Count = Field(250, description="updates between resumable checkpoints")
    keep: Count = Field(2, description="resumable checkpoints to keep; the one before serves where the last is damaged")
    retries: int = Field(0, ge=0, description="after divergence go back to the last good checkpoint with half the rate")
    log_every: Count = 20
    tensorboard: bool = Field(False, description="write the log for TensorBoard too; needs the package tensorboard")
    threads: int | None = None


# --- rollout, verify, report ----------------------------------------------------------------------------------------


class EnsembleConfig(Model):
    """How the members of an ensemble differ. Amplitudes are in units of the standard deviation of a step's change."""

    members: int = Field(ge=2)
    kind: Literal["none", "noise", "bred", "lagged"] = Field(
        "noise", description="none: members differ by checkpoint or by the network's own noise alone"
    )
    control: bool = Field(False, description="the first member starts from the analysis itself (noise, bred)")
    amplitude: Positive = 0.3
    slope: float = Field(3.0, description="power of the noise falls as wavenumber to this power")
    lowest_wavenumber: int = Field(1, ge=0)
    spectrum: list[float] | None = Field(None, description="power per total wavenumber from 0, in place of the slope")
    vertical_correlation: Fraction = Field(0.8, description="of the noise on neighbouring levels")
    seed: int = Field(0, ge=0)
    lag_hours: Positive = Field(6, description="between the starts of lagged members")
    cycles: Count = Field(6, description="of breeding")
    cycle_hours: Positive = 12


class CascadeConfig(Model):
    """A checkpoint that takes over at a lead."""

    checkpoint: Path
    from_days: Positive


class ThinConfig(Model):
    """What of the forecasts is written."""

    variables: list[str] | None = None
    levels: list[float] | None = Field(None, description="the nearest, in the store's own unit")
    region: str | None = Field(None, description="a region of the verification, as its smallest box")
    every_hours: Positive | None = Field(None, description="None: every step")
    mean: Literal["none", "every", "monthly"] = Field(
        "none", description="means over every_hours or calendar months in place of snapshots"
    )


class RolloutConfig(Model):
    """Forecasts from many initial times."""

    store: Path
    checkpoint: Path
    output: Path
    cascade: list[CascadeConfig] = Field(default_factory=list, description="checkpoints that take over later")
    member_checkpoints: list[Path] = Field(
        default_factory=list, description="more checkpoints: members take turns among all of them"
    )
    ensemble: EnsembleConfig | None = None
    thin: ThinConfig = ThinConfig()
    also: list[Literal["netcdf", "grib"]] = Field(
        default_factory=list, description="other formats: one file an initial time, in a folder beside the output"
    )
    beyond_store: bool = Field(False, description="let forecasts run past the store, with forcing of the same season")
    period: Period = Period()
    every_hours: Count = 36
    maximum_inits: Count | None = None
    lead_days: Positive = 10
    uncorrected_inits: int = Field(0, ge=0, description="forecasts of the same network without corrections to add")
    uncorrected: Path | None = Field(None, description="their store; by default uncorrected.zarr beside the output")
    long_run_days: int = Field(0, ge=0, description="length of one long run with daily output to add")
    long_run: Path | None = Field(None, description="its store; by default long_run.zarr beside the output")
    batch_size: Count = 8

    @pydantic.model_validator(mode="before")
    @classmethod
    def _beside_the_output(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "output" not in values:
            return values
        beside = Path(values["output"]).parent
        return {"uncorrected": beside / "uncorrected.zarr", "long_run": beside / "long_run.zarr"} | values


class ObservationsConfig(Model):
    """Point observations as the truth."""

    path: Path = Field(description="METAR table (.parquet), CSV, or verif's text (.txt)")
    tolerance_minutes: Positive = Field(30, description="around the full hour")
    quality: list[str] = Field(["V", "S", "C", "G"], description="flags of MADIS that are kept")
    stations: list[str] | None = None
    method: Literal["bilinear", "nearest"] = "bilinear"
    lapse_rate: float = Field(0.0065, ge=0, description="K per m, carries 2 m temperature to the station's height")


class VerifyConfig(Model):
    """Scores of forecast stores against one truth; without forecasts, of persistence alone."""

    forecasts: dict[str, Path] = Field(
        default_factory=dict, description="name in the report: forecast store; scored on the initial times they share"
    )
    audit: dict[str, Path] = Field(
        default_factory=dict, description="more forecast stores whose budgets are audited, without being scored"
    )
    long_runs: dict[str, Path] = Field(
        default_factory=dict, description="forecast stores of long runs, whose climate is compared with the truth's"
    )
    truth: Path | None = None
    observations: ObservationsConfig | None = Field(None, description="in place of a truth store")
    output: Path
    period: Period = Field(Period(), description="initial times to score")
    climatology: Period = Field(
        Period(),
        description="period of the truth that the climatology is made from; open: before the first initial time",
    )
    persistence_lead_hours: list[Positive] = Field(
        default_factory=list,
        description="leads to score persistence at when there are no forecasts; empty: up to 10 days",
    )
    events: list[Fraction] = Field(
        [0.05, 0.95], description="quantiles of the climatology that events lie below (up to 0.5) or above; empty: none"
    )
    variables: list[str] | None = None
    levels: list[float] | None = Field(None, description="of these the nearest in the stores, in their own unit")
    regions: list[str] | None = Field(
        None, description="None: the globe, the tropics and both hemispheres beyond 20 degrees"
    )
    energy: Literal["hydrostatic", "total"] = Field(
        "hydrostatic", description="form of energy in the audit, as trained"
    )
    heat_capacity: Literal["constant", "moist"] = "constant"
    kinetic: bool = True
    dask: DaskConfig = DaskConfig()

    @pydantic.model_validator(mode="after")
    def _one_truth(self) -> "VerifyConfig":
        if (self.truth is None) == (self.observations is None):
            raise ValueError("Expected either truth or observations")
        return self


class ReportConfig(Model):
    """One HTML page from the scores and the stores behind them."""

    scores: Path
    output: Path = Field(description="folder; receives report.html, scores.json, scores.csv and scores.nc")
    title: str = "Forecast verification"
    long_run: Path | None = Field(None, description="forecast store of one long run")
    metrics: Path | None = Field(None, description="metrics.jsonl of the training")
    map_lead_days: Positive = 3


# --- experiment -----------------------------------------------------------------------------------------------------


class Experiment(Model):
    """A chain of stages over one run directory; absent stages are skipped."""

    directory: Path
    simulate: SimulateConfig | None = None
    ingest: IngestConfig | None = None
    stats: StatsConfig | None = None
    train: TrainConfig | None = None
    rollout: RolloutConfig | None = None
    verify: VerifyConfig | None = None
    report: ReportConfig | None = None


STAGES: dict[str, type[Model]] = {
    "simulate": SimulateConfig,
    "ingest": IngestConfig,
    "stats": StatsConfig,
    "train": TrainConfig,
    "rollout": RolloutConfig,
    "verify": VerifyConfig,
    "report": ReportConfig,
}
