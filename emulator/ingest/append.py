"""New times at the end of a finished store: the regions that stay as they are, taken over without a copy where possible."""

import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.ingest.fields import Plan
from emulator.ingest.fill import Region
from emulator.store.analysis import open_analysis
from emulator.store.marks import DiskError, mark, marks, partial_path, reason

OWN = {"fingerprint", "history", "source", "missing_times", "interpolated_times", "complete", "time_step_seconds"}

log = logging.getLogger(__name__)


def kept_regions(path, template: xr.Dataset, plan: Plan, wanted: Sequence[Region]) -> list[Region]:
    """The regions of a store to be that the finished store at `path` already holds whole.

    The first and the last of them of every field are read from the sources again and compared.

    Raises `ValueError` with one sentence when the store is not the beginning of the one to be: other fields, attributes,
    grid, levels, times or values.
    """
    if plan.leads is not None:
        raise ValueError(f"Expected an analysis store to append to, got forecasts for {path}")
    old = open_analysis(path)
    _check_same(old, template, path)
    count = old.sizes["time"]
    kept = [region for region in wanted if region.stop <= count and _is_whole(old, region)]
    by_field: dict[str, list[Region]] = {}
    for region in kept:
        by_field.setdefault(region.name, []).append(region)
    for regions in by_field.values():
        for region in {regions[0], regions[-1]}:
            _check_values(old, plan, region, path)
    if kept:
        log.info("%d regions of %s up to %s stay as they are", len(kept), path, old["time"].values[count - 1])
    return kept


def _is_whole(old: xr.Dataset, region: Region) -> bool:
    """Whether the store's own file for the region begins and ends where the region does."""
    encoding = old[region.name].encoding
    length = (encoding.get("shards") or encoding["chunks"])[0]
    return region.start % length == 0 and region.stop - region.start == length


def _check_same(old, template, path):
    times = template["time"].values
    if len(times) < old.sizes["time"] or not np.array_equal(times[: old.sizes["time"]], old["time"].values):
        raise ValueError(
            f"Expected the times of {path}, {old['time'].values[0]} to {old['time'].values[-1]}, at the beginning of those "
            f"to append, got {times[0]} to {times[-1]}"
        )
    if {*old.data_vars} - {"missing", "interpolated"} != {*template.data_vars} - {"missing", "interpolated"}:
        raise ValueError(
            f"Expected the fields of {path}, {', '.join(sorted(map(str, old.data_vars)))}, got "
            f"{', '.join(sorted(map(str, template.data_vars)))}"
        )
    for name in sorted((set(old.attrs) | set(template.attrs)) - OWN):
        if old.attrs.get(name) != template.attrs.get(name):
            raise ValueError(
                f"Expected {name} = {old.attrs.get(name)!r} as in {path}, got {template.attrs.get(name)!r} to append"
            )
    for name, variable in template.variables.items():
        if name in ("missing", "interpolated"):
            continue
        before = old.variables[name]
        same = before.dims == variable.dims and (
            "time" in variable.dims
            or np.array_equal(before.values, variable.values, equal_nan=variable.dtype.kind == "f")
        )
        units = before.attrs.get("units") == variable.attrs.get("units")
        if not (same and units and before.attrs.get("role") == variable.attrs.get("role")):
            raise ValueError(f"Expected {name} to append as it is in {path}, got it changed")


def _check_values(old, plan, region, path):
    field = plan.fields[region.name].part(region.start, region.stop)
    found = field.read(0, region.stop - region.start, plan.grid.shape)
    held = old[region.name].isel(time=slice(region.start, region.stop)).values
    if not np.array_equal(found, held, equal_nan=True):
        raise ValueError(
            f"Expected the sources to hold the {region.name} that {path} has from {plan.times[region.start]} to "
            f"{plan.times[region.stop - 1]}, got other values; ingest without appending to make the store anew"
        )


def link_regions(path, kept: Sequence[Region]) -> None:
    """Takes regions of the finished store over into the unfinished one, and marks them.

    Files are linked, so that terabytes cost nothing (no writer ever changes a file in place), or copied where the file
    system has no links. Raises `DiskError` when that fails.
    """
    partial, done = partial_path(path), marks(path)
    same = {name: _layout(path, name) == _layout(partial, name) for name in {region.name for region in kept}}
    for region in kept:
        if region.key in done or not same[region.name]:
            continue
        number = region.start // (region.stop - region.start)
        source = Path(path) / region.name / "c" / str(number)
        try:
            for file in source.rglob("*"):
                target = partial / file.relative_to(path)
                if file.is_file() and not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _link(file, target)
        except OSError as error:
            raise DiskError(f"Expected to take {region.name} over from {path}, got: {reason(error)}") from error
        mark(path, region.key)


def _layout(store, name: str) -> dict:
    """Chunks, shards and codecs of an array, as its metadata have them: all but its length."""
    metadata = json.loads((Path(store) / name / "zarr.json").read_text())
    return {key: metadata[key] for key in ("data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs")}


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except FileExistsError:
        pass  # another process was faster
    except OSError:
        scratch = target.with_name(f"{target.name}.{os.getpid()}.partial")
        shutil.copyfile(file, scratch)
        os.replace(scratch, target)
