"""Experiments and stages from YAML files and overrides (`yaml_files`, `parse`), and back."""

import hashlib
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml

from emulator.forecasting.options import ocean_store
from pipelines.config import STAGES, ConfigError, Experiment, Model
from pipelines.config.declared import AS_WRITTEN
from pipelines.parse import parse
from pipelines.started import settled, start_of
from pipelines.yaml_files import apply_overrides, read_yaml

# Keys that take a store of a scenario by its name, and whose store is meant where none is said.
TAKES_STORES = {
    "train": (("store", "later_stores", "scenarios"), ("", "")),
    "rollout": (("store",), ("", "")),
    "stats": (("store", "later_stores", "scenarios"), ("train", "store")),
    "verify": (("truth", "references"), ("rollout", "store")),
}


def _section(raw: dict, name: str) -> dict:
    """A section as it is written; an empty one for what is none, which is refused where it is parsed."""
    return raw[name] if isinstance(raw.get(name), dict) else {}


def _default_paths(raw: dict) -> dict[str, dict[str, Any]]:
    """Where the stages of an experiment put and find their files, unless the YAML says otherwise."""
    at = Path(raw["directory"])
    rollout = _section(raw, "rollout")
    made_from = {
        "store": at / "analysis.zarr",
        "checkpoint": at / "train" / "checkpoint",
        "observations": at / "observations.parquet",
    }
    paths: dict[str, dict[str, Any]] = {
        "simulate": {"directory": at / "simulation"},
        "ingest": {"output": at / "analysis.zarr"},
        "stats": {"store": at / "analysis.zarr", "output": at / "statistics.nc"},
        "outflow": {"domain": at / "analysis.zarr", "output": at / "outflow.nc"},
        "train": {"store": at / "analysis.zarr", "statistics": at / "statistics.nc", "output": at / "train"},
        "observe": {"store": at / "analysis.zarr", "output": at / "observations.parquet"},
        "learn": {"store": at / "analysis.zarr", "checkpoint": at / "train" / "checkpoint", "output": at / "learn"},
        "assimilate": made_from | {"output": at / "assimilation"},
        "cycle": made_from | {"output": at / "cycle"},
        "rollout": {
            "store": at / "analysis.zarr",
            "checkpoint": at / "train" / "checkpoint",
            "output": at / "forecast.zarr",
        },
        "train_downscaling": {"coarse": at / "analysis.zarr", "output": at / "downscaling"},
        "downscale": {
            "checkpoint": at / "downscaling" / "checkpoint",
            "store": at / ("forecast.zarr" if rollout else "analysis.zarr"),
            "output": at / "downscaled.zarr",
            "bilinear": at / "bilinear.zarr",
        },
        "verify": {"truth": at / "analysis.zarr", "output": at / "scores.nc"},
        "report": {"scores": at / "scores.nc", "output": at / "report"},
    }
    if isinstance(raw.get("observe"), dict) and not raw["observe"].get("networks"):
        del paths["observe"]["store"]  # tables need no nature run
    if rollout.get("model"):
        del paths["rollout"]["checkpoint"]
    downscaled, judged = isinstance(raw.get("downscale"), dict), _section(raw, "verify")
    if downscaled:
        paths["verify"] = {"output": at / "scores.nc"} | _beside_downscale(raw, paths["downscale"])
    elif rollout:
        paths["verify"] |= _beside_rollout(rollout, judged, at)
    if rollout.get("long_run_days") or rollout.get("long_run_lead"):
        paths["report"]["long_run"] = at / "long_run.zarr"
    if raw.get("cycle"):
        paths["rollout"]["store"] = at / "cycle" / "analysis.zarr"
        paths["verify"]["feedback"] = at / "cycle" / "feedback"
        if rollout and "store" not in rollout and not judged.get("observations") and not downscaled:
            paths["verify"]["held"] = {"persistence of the analyses": at / "cycle" / "analysis.zarr"}
    if isinstance(raw.get("train"), dict):
        for name in ("later_stores", "scenarios"):
            paths["stats"][name] = raw["train"].get(name) or []
        paths["report"]["metrics"] = at / "train" / "metrics.jsonl"
        stats = _section(raw, "stats")
        if raw["train"].get("predict", "change") != "change" and stats.get("climatology"):
            paths["train"]["climatology"] = paths["rollout"]["climatology"] = stats["climatology"]
    return paths


def _beside_rollout(rollout: dict, judged: dict, at: Path) -> dict[str, Any]:
    """What is verified of a rollout: all that it writes."""
    found: dict[str, Any] = {"forecasts": {"emulator": at / "forecast.zarr"}}
    own_names = judged.get("forecasts") or judged.get("observations")  # among which ours need not be, or without audits
    if _section(rollout, "ocean").get("kind") == "emulator" and not rollout.get("thin") and not own_names:
        found["oceans"] = {"emulator": ocean_store(at / "forecast.zarr")}
    if rollout.get("uncorrected_inits"):
        found["audit"] = {"without corrections": at / "uncorrected.zarr"}
    if rollout.get("long_run_days") or rollout.get("long_run_lead"):
        found["long_runs"] = {"emulator": at / "long_run.zarr"}
    return found


def _beside_downscale(raw: dict, default: dict) -> dict[str, Any]:
    """What is verified of downscaled fields, against the fine store.

    What a rollout writes besides is on the coarse grid, which that truth does not have. Raises `ConfigError` without a truth.
    """
    own = raw["downscale"]
    made = {name: own.get(key, default[key]) for name, key in (("downscaled", "output"), ("bilinear", "bilinear"))}
    found = {
        "forecasts": {name: path for name, path in made.items() if path is not None},
        "coarse": own.get("store", default["store"]),
    }
    if fine := _section(raw, "train_downscaling").get("fine"):
        return found | {"truth": fine}
    if isinstance(judged := raw.get("verify"), dict) and not (judged.get("truth") or judged.get("observations")):
        raise ConfigError("Expected verify.truth, a store on the fine grid, beside downscale without train_downscaling")
    return found


def _find_scenarios(raw: dict) -> None:
    """In place of an ingested scenario's name its store, wherever a stage takes one.

    Where none is said, that of the first; for statistics the training's, and for the truth the one that forecasts start from.
    """
    ingest = _section(raw, "ingest")
    names, whole = ingest.get("scenarios") or (), Path(str(ingest.get("output")))
    stores = {name: whole.parent / f"{name}.zarr" for name in names if isinstance(name, str)}
    if not stores:
        return

    def store(value, default):
        if isinstance(value, list):
            return [store(each, default) for each in value]
        if isinstance(value, dict):
            return {key: store(each, default) for key, each in value.items()}
        return default if str(value) == str(whole) else stores.get(str(value), value)

    for stage, (keys, (other, key_of_other)) in TAKES_STORES.items():
        if isinstance(section := raw.get(stage), dict):
            default = _section(raw, other).get(key_of_other) or next(iter(stores.values()))
            raw[stage] = section | {key: store(section[key], default) for key in keys if key in section}


def _find_learned(raw: dict) -> None:
    """Analyses of kind learned are by the network of the experiment's stage `learn`, unless they name another."""
    if not isinstance(learn := raw.get("learn"), dict):
        return
    for stage in ("assimilate", "cycle"):
        section = _section(raw, stage)
        analysis = section.get("analysis")
        if isinstance(analysis, dict) and analysis.get("kind") == "learned":
            raw[stage] = section | {"analysis": {"checkpoint": Path(str(learn["output"])) / "checkpoint"} | analysis}


def load_experiment(path: Path, overrides: Sequence[str] = (), context: dict | None = None) -> Experiment:
    """The experiment in a YAML file, with defaults for the paths between stages. Raises `ConfigError`.

    `context`: `declared.AS_WRITTEN` leaves the network's section as it is written, else None.

    Relative paths are relative to the working directory, as on the command line; those of a run directory's own file to
    where the run was started.
    """
    raw = read_yaml(path)
    if (start := start_of(path)) is not None:
        experiment = settled(parse(Experiment, raw, str(path), context), Path(path).parent, start, context)
        raw = json.loads(experiment.model_dump_json())
    raw = apply_overrides(raw, overrides)
    if not isinstance(raw.get("directory"), str):
        got = repr(raw["directory"]) if "directory" in raw else sorted(map(str, raw))
        raise ConfigError(f"Expected a key 'directory' (the run directory) in {path}, got {got}")
    for stage, paths in _default_paths(raw).items():
        if isinstance(raw.get(stage), dict):
            raw[stage] = {**paths, **raw[stage]}
    _find_learned(raw)
    if isinstance(raw.get("ingest"), dict) and "sources" not in raw["ingest"] and isinstance(raw.get("simulate"), dict):
        named = raw["simulate"].get("scenarios") or []
        raw["ingest"] = ({"scenarios": list(named)} if named else {}) | raw["ingest"]
        raw["ingest"]["sources"] = [{"path": f"{raw['simulate']['directory']}/{'{scenario}/' if named else ''}*.nc"}]
    fine = _section(raw, "train_downscaling").get("fine")
    if isinstance(raw.get("ingest"), dict) and fine:
        raw["ingest"] = {"sources": [{"path": fine}]} | raw["ingest"]  # the coarse store is made of the fine one
    _find_scenarios(raw)
    experiment = parse(Experiment, raw, str(path), context)
    if not any(getattr(experiment, stage) for stage in STAGES):
        raise ConfigError(f"Expected at least one stage of {', '.join(STAGES)} in {path}, got none")
    return experiment


def load_stage(stage: str, path: Path, overrides: Sequence[str] = ()) -> Model:
    """One stage's configuration, from a file of its own or from its section of an experiment. Raises `ConfigError`.

    Of an experiment, names that begin with `directory` or a stage are meant from the top (`train.seed`), others within
    the stage's section (`seed`).
    """
    raw = read_yaml(path)
    if not any(name in raw for name in STAGES):
        return parse(STAGES[stage], apply_overrides(raw, overrides), str(path))
    from_top = [re.split(r"[.=]", override)[0] in Experiment.model_fields for override in overrides]
    full = [o if top else f"{stage}.{o}" for o, top in zip(overrides, from_top, strict=True)]
    # stages with sections of several kinds: the network, the analysis, the model
    kinds = ("train", "train_downscaling", "rollout", "assimilate", "cycle")
    context = None if stage in kinds else AS_WRITTEN
    section = getattr(load_experiment(path, full, context), stage)
    if section is None:
        raise ConfigError(f"Expected a section '{stage}' in {path}, got {', '.join(map(str, raw))}")
    return section


def to_yaml(config: Model) -> str:
    """The resolved configuration as YAML that loads to the same model."""
    return yaml.safe_dump(json.loads(config.model_dump_json()), sort_keys=False)


def fingerprint(config: Model, *more: str, without: Collection[str] = ()) -> str:
    """Hash of a configuration, `without` some of its keys, and of whatever else determines a stage's result."""
    text = json.dumps(json.loads(config.model_dump_json(exclude=set(without))), sort_keys=True)
    return hashlib.sha256("\n".join([text, *more]).encode()).hexdigest()[:16]
