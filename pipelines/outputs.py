"""Where every stage writes, and what lies there once it is complete."""

from pathlib import Path

from emulator.forecasting.options import driving_store, ocean_store
from pipelines.config import Model
from pipelines.simulate import files as simulated

# Keys of a stage's configuration that name what it writes; ingest knows its stores itself.
# Every other path of a configuration is read.
WRITTEN = {
    "simulate": ("directory",),
    "stats": ("output", "climatology"),
    "outflow": ("output",),
    "train": ("output",),
    "observe": ("output",),
    "learn": ("output",),
    "assimilate": ("output",),
    "cycle": ("output",),
    "rollout": ("output", "uncorrected", "long_run"),
    "train_downscaling": ("output",),
    "downscale": ("output", "bilinear"),
    "verify": ("output",),
    "report": ("output",),
}


def written(stage: str, config: Model) -> list[Path]:
    """Files and folders that a stage may write to."""
    if stage == "ingest":
        return [one.output for one in config.stores()]
    paths = [Path(path) for path in (getattr(config, name) for name in WRITTEN[stage]) if path is not None]
    if stage in ("assimilate", "cycle") and config.covariance.path:
        paths.append(config.covariance.path)  # estimated where it is not there
    if stage != "rollout":
        return paths
    if config.boundary is not None and config.boundary.checkpoint is not None:
        paths.append(driving_store(config.output))
    return [*_with_oceans([*paths, *config.scenario_stores.values()], config), *config.pressure_stores.values()]


def _with_oceans(stores: list[Path], config: Model) -> list[Path]:
    """Forecast stores, and those of an ocean's network beside them."""
    network = config.ocean is not None and config.ocean.kind == "emulator"
    return [*stores, *(ocean_store(store) for store in stores if network)]


def files(stage: str, config: Model) -> list[Path]:
    """All that a stage has left when it is complete; folders that appear by a rename are named as a whole.

    The logs of a training are left out: it cannot write them again without training again.
    """
    if stage == "simulate":
        return simulated(config)
    if stage == "ingest":
        return [one.output for one in config.stores()]
    output = Path(config.output)
    if stage == "stats":
        return [output, *([config.climatology] if config.climatology else [])]
    if stage in ("train", "learn", "train_downscaling"):
        return [output / "checkpoint"]
    if stage in ("assimilate", "cycle"):
        return [output / "analysis.zarr"]
    if stage == "rollout":
        stores = [output, *config.scenario_stores.values(), *([config.uncorrected] if config.uncorrected_inits else [])]
        stores += [config.long_run] if config.long_run_days or config.long_run_lead else []
        also = [output.with_name(f"{output.stem}_{kind}") for kind in config.also]
        return [*_with_oceans(stores, config), *config.pressure_stores.values(), *also]
    if stage == "downscale":
        return [output, *([config.bilinear] if config.bilinear else [])]
    if stage == "report":
        return [output / name for name in ("report.html", "scores.csv", "scores.json", "scores.nc")]
    return [output]
