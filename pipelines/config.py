"""Every knob of every stage: strict, frozen models over passive YAML. Imports nothing from the library.

A YAML file may inherit with `base:` (a path beside it, at any depth), and the command line may override single values by
dotted name. An unknown key is refused with its full path and the nearest right one.
"""

import difflib
import hashlib
import json
import re
import types
import typing
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
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


class DaskConfig(Model):
    """Where Dask works: a local cluster of `workers` processes, or the scheduler at `address`."""

    workers: int = Field(0, ge=0, description="0: threads of this process")
    threads: Count = 2
    memory: str | None = None
    address: str | None = None


class SourceConfig(Model):
    """Files of one kind that together hold some variables over some times."""

    path: str | list[str] = Field(description="path, glob or fsspec URL; several are joined")
    engine: Literal["auto", "netcdf", "grib", "zarr"] = "auto"
    rename: dict[str, str] = Field(default_factory=dict, description="name in the source: canonical name")
    select: dict[str, Any] = Field(default_factory=dict, description="dimension: value or list of values to keep")
    units: dict[str, str] = Field(default_factory=dict, description="units where the source records none or wrong ones")
    negate: list[str] = Field(default_factory=list, description="variables whose sign is opposite to ECMWF's")
    interval_hours: Positive | None = Field(None, description="what accumulations cover, where the source does not say")


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
    missing: Literal["refuse", "keep"] = "refuse"
    times_per_chunk: Count = 1
    times_per_region: Count | None = Field(None, description="times in a file and a task; None: about 64 MB of a field")
    dask: DaskConfig = DaskConfig()


class StatsConfig(Model):
    """Mean, standard deviation and standard deviation of the step difference over the training period."""

    store: Path
    output: Path
    period: Period = Period()
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


NetworkConfig = SFNOConfig


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


class PhaseConfig(Model):
    """A stretch of training with one number of autoregressive steps."""

    updates: Count
    rollout_steps: Count = 1
    batch_size: Count = 4
    lr_scale: Positive = 1.0


class TrainConfig(Model):
    """One network trained on one store."""

    store: Path
    statistics: Path
    output: Path
    period: Period = Period()
    validation: Period | None = None
    prognostic: list[str] | None = Field(None, description="None: by the roles in the store")
    diagnostic: list[str] | None = None
    forcing: list[str] | None = None
    network: NetworkConfig = SFNOConfig()
    conservation: ConservationConfig = ConservationConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    phases: list[PhaseConfig] = Field(default_factory=lambda: [PhaseConfig(updates=1000)], min_length=1)
    variable_weights: dict[str, Positive] = Field(default_factory=dict, description="weight in the loss, by variable")
    diagnostic_weight: Positive = Field(0.2, description="weight of the diagnostics that variable_weights leaves out")
    damping: Fraction = Field(
        1.0, description="share of the optimal linear relaxation to the mean in the residual step"
    )
    ema: Fraction = Field(0.0, description="decay of the exponential moving average of the weights; 0 keeps none")
    margin: float = Field(0.5, ge=0, description="states stay in the training data's local range, widened by this share")
    seed: int = 0
    cache_gigabytes: float = Field(3.0, ge=0, description="hold the period in memory when it needs at most this")
    save_every: Count = Field(250, description="updates between resumable checkpoints")
    log_every: Count = 20
    threads: int | None = None


# --- rollout, verify, report ----------------------------------------------------------------------------------------


class RolloutConfig(Model):
    """Forecasts from many initial times."""

    store: Path
    checkpoint: Path
    output: Path
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


class VerifyConfig(Model):
    """Scores of forecast stores against one truth; without forecasts, of persistence alone."""

    forecasts: dict[str, Path] = Field(
        default_factory=dict, description="name in the report: forecast store; scored on the initial times they share"
    )
    audit: dict[str, Path] = Field(
        default_factory=dict, description="more forecast stores whose budgets are audited, without being scored"
    )
    truth: Path
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
    variables: list[str] | None = None
    levels: list[float] | None = Field(None, description="of these the nearest in the stores, in their own unit")
    regions: list[str] | None = Field(
        None, description="None: the globe, the tropics and both hemispheres beyond 20 degrees"
    )
    energy: Literal["hydrostatic", "total"] = Field("hydrostatic", description="form of energy in the audit, as trained")
    heat_capacity: Literal["constant", "moist"] = "constant"
    kinetic: bool = True
    dask: DaskConfig = DaskConfig()


class ReportConfig(Model):
    """One HTML page from the scores and the stores behind them."""

    scores: Path
    output: Path = Field(description="folder; receives report.html, scores.json and scores.csv")
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


def _default_paths(raw: dict) -> dict[str, dict[str, Any]]:
    """Where the stages of an experiment put and find their files, unless the YAML says otherwise."""
    at = Path(raw["directory"])
    asked = raw.get("rollout") if isinstance(raw.get("rollout"), dict) else {}
    paths: dict[str, dict[str, Any]] = {
        "simulate": {"directory": at / "simulation"},
        "ingest": {"output": at / "analysis.zarr"},
        "stats": {"store": at / "analysis.zarr", "output": at / "statistics.nc"},
        "train": {"store": at / "analysis.zarr", "statistics": at / "statistics.nc", "output": at / "train"},
        "rollout": {
            "store": at / "analysis.zarr",
            "checkpoint": at / "train" / "checkpoint",
            "output": at / "forecast.zarr",
        },
        "verify": {"truth": at / "analysis.zarr", "output": at / "scores.nc"},
        "report": {"scores": at / "scores.nc", "output": at / "report"},
    }
    if asked:
        paths["verify"]["forecasts"] = {"emulator": at / "forecast.zarr"}
    if asked.get("uncorrected_inits"):
        paths["verify"]["audit"] = {"without corrections": at / "uncorrected.zarr"}
    if asked.get("long_run_days"):
        paths["report"]["long_run"] = at / "long_run.zarr"
    if isinstance(raw.get("train"), dict):
        paths["report"]["metrics"] = at / "train" / "metrics.jsonl"
    return paths


def load_experiment(path: Path, overrides: typing.Sequence[str] = ()) -> Experiment:
    """The experiment in a YAML file, with defaults for the paths between stages. Raises `ConfigError`."""
    raw = _apply_overrides(read_yaml(path), overrides)
    if "directory" not in raw:
        raise ConfigError(f"Expected a key 'directory' (the run directory) in {path}, got {sorted(raw)}")
    for stage, paths in _default_paths(raw).items():
        if isinstance(raw.get(stage), dict):
            raw[stage] = {**paths, **raw[stage]}
    if isinstance(raw.get("ingest"), dict) and "sources" not in raw["ingest"] and isinstance(raw.get("simulate"), dict):
        raw["ingest"]["sources"] = [{"path": str(Path(raw["simulate"]["directory"]) / "*.nc")}]
    return parse(Experiment, raw, str(path))


def load_stage(stage: str, path: Path, overrides: typing.Sequence[str] = ()) -> Model:
    """One stage's configuration, from a file of its own or from its section of an experiment. Raises `ConfigError`."""
    raw = read_yaml(path)
    if "directory" in raw and any(name in raw for name in STAGES) and stage not in STAGES[stage].model_fields:
        experiment = load_experiment(path, [f"{stage}.{override}" for override in overrides])
        section = getattr(experiment, stage)
        if section is None:
            raise ConfigError(f"Expected a section '{stage}' in {path}, got {sorted(raw)}")
        return section
    return parse(STAGES[stage], _apply_overrides(raw, overrides), str(path))


def read_yaml(path: Path, seen: tuple[Path, ...] = ()) -> dict:
    """A YAML mapping with every `base:` merged in. Raises `ConfigError` naming the file."""
    path = Path(path)
    if path.resolve() in seen:
        raise ConfigError(f"Expected `base:` files without a cycle, got {path} again")
    try:
        raw = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"Expected a readable configuration file, got {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"Expected valid YAML in {path}, got: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"Expected a mapping at the top of {path}, got {type(raw).__name__}")
    return _merge_bases(raw, path, (*seen, path.resolve()))


def _merge_bases(node: Any, path: Path, seen: tuple[Path, ...]) -> Any:
    if isinstance(node, list):
        return [_merge_bases(item, path, seen) for item in node]
    if not isinstance(node, dict):
        return node
    own = {key: _merge_bases(value, path, seen) for key, value in node.items() if key != "base"}
    return _merge(read_yaml(path.parent / node["base"], seen), own) if "base" in node else own


def _merge(base: dict, own: dict) -> dict:
    merged = dict(base)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _apply_overrides(raw: dict, overrides: typing.Sequence[str]) -> dict:
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise ConfigError(f"Expected overrides of the form dotted.name=value, got {override!r}")
        value = yaml.safe_load(text) if text else None
        if isinstance(value, str):  # YAML 1.1 reads 2e-4 as text
            try:
                value = float(value)
            except ValueError:
                pass
        node: Any = raw
        *parents, last = name.split(".")
        for depth, parent in enumerate(parents):
            if isinstance(node, list):
                node = node[_index(parent, node, override)]
                continue
            if node.get(parent) is None:
                node[parent] = {}
            node = node[parent]
            if not isinstance(node, dict | list):
                raise ConfigError(
                    f"Expected a section at {'.'.join(parents[: depth + 1])} for {override!r}, got {node!r}"
                )
        node[_index(last, node, override) if isinstance(node, list) else last] = value
    return raw


def _index(text: str, items: list, override: str) -> int:
    if not text.isdigit() or int(text) >= len(items):
        raise ConfigError(f"Expected an index below {len(items)} in {override!r}, got {text!r}")
    return int(text)


def parse(model: type[Model], raw: dict, where: str) -> Any:
    """A validated model. Raises `ConfigError` with one sentence on the first faults."""
    try:
        return model.model_validate(raw)
    except pydantic.ValidationError as error:
        raise ConfigError("; ".join(_sentence(model, fault, where) for fault in error.errors()[:3])) from None


def _sentence(model, fault, where) -> str:
    path = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = sorted(_fields_at(model, fault["loc"][:-1]))
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1, cutoff=0.4)
        prefix = "".join(f"{part}." for part in fault["loc"][:-1])
        hint = f"; nearest: {prefix}{near[0]}" if near else f"; known: {', '.join(known)}"
        return f"Unknown key {path} in {where}{hint}"
    if fault["type"] == "missing":
        return f"Missing key {path} in {where}"
    return f"{fault['msg']} at {path} in {where}, got {fault['input']!r}"


def _fields_at(model, location) -> list[str]:
    """Names of the fields of the model that a location of pydantic's points into."""
    models = [model]
    for part in location:
        found = []
        for candidate in models:
            field = candidate.model_fields.get(str(part))
            found += _models_in(field.annotation) if field else [candidate] if isinstance(part, int) else []
        models = found or models
    return [name for candidate in models for name in candidate.model_fields]


def _models_in(annotation) -> list[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return [annotation]
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]
    return []


def to_yaml(config: Model) -> str:
    """The resolved configuration as YAML that loads to the same model."""
    return yaml.safe_dump(json.loads(config.model_dump_json()), sort_keys=False)


def fingerprint(config: Model, *more: str) -> str:
    """Hash of a configuration and of whatever else determines a stage's result."""
    text = json.dumps(json.loads(config.model_dump_json()), sort_keys=True)
    return hashlib.sha256("\n".join([text, *more]).encode()).hexdigest()[:16]
