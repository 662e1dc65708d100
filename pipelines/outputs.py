"""Where every stage writes, and what lies there once it is complete."""

from pathlib import Path

from pipelines.config import Model
from pipelines.simulate import files as simulated

# Keys of a stage's configuration that name what it writes. Every other path of a configuration is read.
WRITTEN = {
    "simulate": ("directory",),
    "ingest": ("output",),
    "stats": ("output", "climatology"),
    "train": ("output",),
    "rollout": ("output", "uncorrected", "long_run"),
    "verify": ("output",),
    "report": ("output",),
}


def written(stage: str, config: Model) -> list[Path]:
    """Files and folders that a stage may write to."""
    more = config.scenario_stores.values() if stage == "rollout" else ()
    return [Path(path) for path in (*(getattr(config, name) for name in WRITTEN[stage]), *more) if path is not None]


def files(stage: str, config: Model) -> list[Path]:
    """All that a stage has left when it is complete; folders that appear by a rename are named as a whole.

    The logs of a training are left out: it cannot write them again without training again.
    """
    if stage == "simulate":
        return simulated(config)
    output = Path(config.output)
    if stage == "stats":
        return [output, *([config.climatology] if config.climatology else [])]
    if stage == "train":
        return [output / "checkpoint"]
    if stage == "rollout":
        paths = [output, *(output.with_name(f"{output.stem}_{kind}") for kind in config.also)]
        paths += [*config.scenario_stores.values(), *([config.uncorrected] if config.uncorrected_inits else [])]
        return paths + ([config.long_run] if config.long_run_days else [])
    if stage == "report":
        return [output / name for name in ("report.html", "scores.csv", "scores.json", "scores.nc")]
    return [output]
