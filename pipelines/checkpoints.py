"""Checkpoints: what one holds besides tensors, a step from one, and whether it fits a store."""

import json
from pathlib import Path

import xarray as xr

from emulator.data.channels import Layout
from emulator.data.samples import Samples
from emulator.model import checkpoint
from emulator.model.step import Step, StepBuffers
from emulator.planet.grid import Grid
from emulator.planet.vertical import Levels
from emulator.store.schema import constants_of, grid_of, levels_of, time_step_seconds
from pipelines.build import conditions, network
from pipelines.config import ConfigError, TrainConfig
from pipelines.conserve import restore_scheme
from pipelines.load import parse


def metadata(config: TrainConfig, samples: Samples, scheme_state: dict) -> dict:
    """Everything but the tensors that a checkpoint needs to be used without the store it was trained on."""
    dataset, levels = samples.dataset, levels_of(samples.dataset)
    return {
        "schema": "checkpoint-1",
        "config": json.loads(config.model_dump_json()),
        "layout": samples.layout.to_json(),
        "grid": grid_to_json(samples.grid),
        "levels": levels and levels.to_json(),
        "constants": json.loads(constants_of(dataset).to_json()),
        "step_seconds": time_step_seconds(dataset),
        "period": [str(samples.times[0]), str(samples.times[-1])],
        "store": {key: dataset.attrs.get(key) for key in ("fingerprint", "source")},
        "scheme": scheme_state,
    }


def load_step(path: Path) -> tuple[Step, dict]:
    """The trained step of a checkpoint, in evaluation mode, and its metadata. Raises `CheckpointError`."""
    tensors, saved = checkpoint.load(path)
    if saved.get("schema") != "checkpoint-1":
        raise checkpoint.CheckpointError(
            f"Expected a checkpoint of schema checkpoint-1 at {path}, got {saved.get('schema')!r}"
        )
    config = parse(TrainConfig, saved["config"], str(path))
    channels, grid = Layout.from_json(saved["layout"]), grid_from_json(saved["grid"])
    net = network(config.network, channels, grid)
    buffers, scheme = StepBuffers.blank(channels, grid.shape), restore_scheme(saved, config.conservation, grid)
    step = Step(net, channels, buffers, scheme, *conditions(config.network, channels, grid))
    step.load_state_dict(tensors)
    return step.eval(), saved


def grid_to_json(grid: Grid) -> dict:
    """Coordinates, from which areas follow; those of points are kept too."""
    found = {"latitude": grid.latitude.tolist(), "longitude": grid.longitude.tolist()}
    return found | ({"area": grid.area.tolist()} if grid.kind == "points" else {})


def grid_from_json(found: dict) -> Grid:
    """What `grid_to_json` made."""
    if "area" in found:
        return Grid.points(found["latitude"], found["longitude"], found["area"])
    return Grid.from_coordinates(found["latitude"], found["longitude"])


def check_match(saved: dict, dataset: xr.Dataset, checkpoint_path: Path, store_path: Path) -> None:
    """Raises `ConfigError`, naming both sides, unless a checkpoint can run on a store's states and forcing."""

    def refuse(what, expected, got):
        raise ConfigError(
            f"Expected {what} {expected} as checkpoint {checkpoint_path} has, store {store_path} has {got}"
        )

    grid, other = grid_from_json(saved["grid"]), grid_of(dataset)
    if not grid.same_as(other):
        refuse("the grid", grid.describe(), other.describe())
    seconds = time_step_seconds(dataset)
    if seconds != saved["step_seconds"]:
        refuse("a time step of", f"{saved['step_seconds'] / 3600:g} h", f"{seconds / 3600:g} h")
    channels = Layout.from_json(saved["layout"])
    for group in (channels.prognostic, channels.diagnostic, channels.forcing):
        for name, count in zip(group.names, group.levels, strict=True):
            if name not in dataset:
                refuse("variable", name, f"only {', '.join(sorted(map(str, dataset.data_vars)))}")
            levels = dataset.sizes["level"] if "level" in dataset[name].dims else 0
            if levels != count:
                refuse(f"{name} on", f"{count} levels", f"{levels}")
    levels, others = saved["levels"] and Levels.from_json(saved["levels"]), levels_of(dataset)
    if levels is not None and any(channels.prognostic.levels):
        if others is None or not levels.same_as(others):
            refuse("levels", levels.describe(), others.describe() if others else "none that make up columns")
