"""A trained step in a checkpoint: what describes it besides its tensors, the step restored, and whether it fits a store."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from emulator.data.channels import Channels, Layout
from emulator.data.samples import Samples
from emulator.data.trained_range import trained_limits
from emulator.generative.windows import INTERPOLATOR
from emulator.model import adapted, checkpoint
from emulator.model.assemble import make_step, network_of
from emulator.model.conserving import ConservationOptions, restore_scheme
from emulator.model.gaps import REFUSED
from emulator.model.migrations import SCHEMA, Content, migrated
from emulator.model.step import Step
from emulator.model.step_buffers import StepBuffers
from emulator.model.stepper import Cascade, Stepper
from emulator.model.windows import HINT
from emulator.parallel.space import ALONE, Space
from emulator.planet.calendar import MONTH_SECONDS
from emulator.planet.grid import Grid
from emulator.planet.variables import known
from emulator.planet.vertical import VERTICAL, Levels
from emulator.store.masks import domain_of
from emulator.store.schema import constants_of, grid_of, levels_of, time_step_seconds

log = logging.getLogger(__name__)


def metadata(config: Mapping, samples: Samples, scheme_state: dict, statistics: xr.Dataset | None = None) -> dict:
    """Everything but the tensors that a checkpoint needs to be used without the store it was trained on.

    `config`: the training's options as JSON can hold them, of which `network` and `conservation` make the step again.
    `statistics`: of the training, of which the range of the forcing is kept.
    """
    dataset, levels = samples.dataset, levels_of(samples.dataset)
    return {
        "schema": SCHEMA,
        "config": dict(config),
        "layout": samples.layout.to_json(),
        "grid": grid_to_json(samples.grid),
        "levels": levels and levels.to_json(),
        "constants": json.loads(constants_of(dataset).to_json()),
        "step_seconds": time_step_seconds(dataset),
        "period": [str(min(samples.times)), str(max(samples.times))],
        "store": {key: dataset.attrs.get(key) for key in ("fingerprint", "source")},
        "scheme": scheme_state,
        **({} if statistics is None else {"forcing_range": trained_limits(statistics, samples.layout.forcing.names)}),
        **({"climatology": samples.climatology.made} if samples.climatology else {}),
    }


def opened(path: str | os.PathLike, base: str | os.PathLike | None = None) -> Content:
    """Tensors and description of a checkpoint of any released schema, as of today's; adapters added to their `base`.

    Raises `CheckpointError` for what is no whole checkpoint.
    """
    content = checkpoint.load(Path(path))
    if content[1].get("schema") == adapted.SCHEMA:
        content = adapted.merged(path, content, opened(adapted.base_of(path, content[1], base)))
    return migrated(*content, path)


def load_model(
    path: str | os.PathLike,
    device: torch.device | str | None = None,
    space: Space = ALONE,
    base: str | os.PathLike | None = None,
) -> Step:
    """The trained step of a checkpoint, in evaluation mode, with what the checkpoint says of it as `metadata`.

    `device`: a GPU where there is one, by default. `space`: the processes that hold a state together, which all load it.
    `base`: of adapters alone, the checkpoint that they are for, if it does not lie where it was.
    Raises `CheckpointError` for what is no whole checkpoint, and `ValueError` for one whose network this version does not
    know.
    """
    tensors, saved = opened(path, base)
    channels, grid = Layout.from_json(saved["layout"]), grid_from_json(saved["grid"])
    scheme = restore_scheme(saved, ConservationOptions.of(saved["config"]["conservation"]), grid, space)
    predicts = saved["config"].get("predict", "change")
    blank = StepBuffers.blank(channels, grid.shape, predicts)
    step = make_step(network_of(saved["config"]), channels, grid, blank, scheme, predicts, space)
    step.load_state_dict({name: step.own(name, tensor) for name, tensor in tensors.items()})
    step.metadata, step.loaded = saved, tensors_digest(step)
    return step.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def tensors_digest(step: Step) -> str:
    """Hash of a step's weights and buffers, the same however many processes hold them; they ask together."""
    total = hashlib.sha256()
    for name, tensor in sorted(step.state_dict().items()):
        total.update(
            name.encode() + step.whole(name, tensor).detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return total.hexdigest()


def digest_of(stepper: Stepper) -> list | None:
    """What tells a stepper's weights from others', `(first step, digest)` for each of a cascade's; None where nothing does.

    A step as its checkpoint holds it has the checkpoint's digest, one that was changed since its own. Beside it stands the
    pairing of a step of windows that has one, by which forecasts of the same weights differ.
    """
    if isinstance(stepper, Cascade):
        stages = [(start, digest_of(one)) for start, one in stepper.stages]
        return None if any(digest is None for _, digest in stages) else [(start, d[0][1]) for start, d in stages]
    if isinstance(stepper, Step):
        own = tensors_digest(stepper)
        known = stepper.metadata["sha256"] if stepper.metadata and own == stepper.loaded else own
        pairing = getattr(stepper, "pairing", 0.0)
        return [(0, f"{known}, pairing {pairing}" if pairing else known)]
    digest = getattr(stepper, "digest", None)
    return None if digest is None else [(0, str(digest))]


def grid_to_json(grid: Grid) -> dict:
    """Coordinates, from which areas follow; those of points are kept too."""
    if grid.kind == "projected":
        return {"x": grid.x.tolist(), "y": grid.y.tolist(), "mapping": dict(grid.mapping)}
    coordinates = {"latitude": grid.latitude.tolist(), "longitude": grid.longitude.tolist()}
    return coordinates | ({"area": grid.cell_area.tolist()} if grid.is_points else {})


def grid_from_json(saved: dict) -> Grid:
    """What `grid_to_json` made."""
    if "mapping" in saved:
        return Grid.projected(saved["x"], saved["y"], saved["mapping"])
    if "area" in saved:
        return Grid.points(saved["latitude"], saved["longitude"], saved["area"])
    return Grid.from_coordinates(saved["latitude"], saved["longitude"])


def with_step(dataset: xr.Dataset, saved: dict | None) -> xr.Dataset:
    """A store of one time with the step of a checkpoint, which nothing else tells; any other store as it is."""
    if saved is None or dataset.sizes.get("time") != 1 or dataset.attrs.get("time_step_seconds"):
        return dataset
    seconds = saved["step_seconds"]
    months = round(seconds / MONTH_SECONDS)
    calendar = {"time_step_months": months} if months and abs(seconds - months * MONTH_SECONDS) < 1e-3 else {}
    return dataset.assign_attrs(time_step_seconds=seconds, **calendar)


def with_gaps(dataset: xr.Dataset, saved: dict | None) -> xr.Dataset:
    """A store for a checkpoint whose network goes without parts of its state: variables that the store lacks are missing.

    Those that do not exist everywhere are not added, since nothing tells where they do. Any other store as it is.
    """
    layout = Layout.from_json(saved["layout"]) if saved else None
    if layout is None or layout.gaps == REFUSED:
        return dataset
    named, found = zip(layout.prognostic.names, layout.prognostic.levels, strict=True), {}
    absent = {name: levels for name, levels in named if name not in dataset and name not in layout.masked}
    for name, levels in absent.items():
        axis = next((d for d in VERTICAL if levels and dataset.sizes.get(d) == levels), None)
        if levels and axis is None:
            continue
        dims = ("time", *([axis] if axis else []), *grid_of(dataset).dims)
        values = np.broadcast_to(np.float32(np.nan), [dataset.sizes[d] for d in dims])
        table = known(name)
        found[name] = (dims, values, {"units": table.units if table else "1", "role": "prognostic"})
    if found:
        log.warning("The store lacks %s, which the network goes without", ", ".join(found))
    return dataset.assign(found)


GROUPS = ("prognostic", "diagnostic", "forcing")


def check_match(saved: dict, dataset: xr.Dataset, checkpoint_name: object, store_name: object, groups=GROUPS) -> None:
    """Raises `ValueError`, naming both sides, unless a checkpoint can run on a store's states and forcing.

    `groups`: of fields that are taken from the store; without forcing its time step may be any.
    """

    def refuse(what, expected, got):
        raise ValueError(
            f"Expected {what} {expected} as checkpoint {checkpoint_name} has, store {store_name} has {got}"
        )

    if saved["config"].get("objective", {}).get("kind") == INTERPOLATOR:
        raise ValueError(
            f"Expected a network that forecasts as checkpoint {checkpoint_name}, got an interpolator {HINT}"
        )
    grid, other = grid_from_json(saved["grid"]), grid_of(dataset)
    if not grid.same_as(other):
        refuse("the grid", grid.describe(), other.describe())
    seconds = time_step_seconds(dataset)
    if "forcing" in groups and seconds != saved["step_seconds"]:
        refuse("a time step of", f"{saved['step_seconds'] / 3600:g} h", f"{seconds / 3600:g} h")
    channels = Layout.from_json(saved["layout"])

    def masks_of(name):
        return name in channels.masked, domain_of(dataset, name) is not None

    for group in (getattr(channels, name) for name in groups):
        for name, count in zip(group.names, group.levels, strict=True):
            if name not in dataset:
                refuse("variable", name, f"only {', '.join(sorted(map(str, dataset.data_vars)))}")
            (levels,) = Channels.of(dataset, [name]).levels
            if levels != count:
                refuse(f"{name} on", f"{count} levels", f"{levels}")
            existing = [{True: "part of its cells", False: "every cell"}[n] for n in masks_of(name)]
            if existing[0] != existing[1]:
                refuse(f"{name} on", *existing)
    levels, others = saved["levels"] and Levels.from_json(saved["levels"]), levels_of(dataset)
    if levels is not None and any(channels.prognostic.levels):
        if others is None or not levels.same_as(others):
            refuse("levels", levels.describe(), others.describe() if others else "none that make up columns")
