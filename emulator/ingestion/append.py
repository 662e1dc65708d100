"""New times at the end of a finished store: the slabs that stay as they are, taken over without a copy where possible."""

import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.files.whole_file import whole_file
from emulator.ingestion.fields import StorePlan
from emulator.ingestion.fill import Slab
from emulator.store.analysis import open_analysis
from emulator.store.marks import DiskError, mark, marks, partial_path, reason

OWN = {"fingerprint", "history", "source", "missing_times", "interpolated_times", "complete", "time_step_seconds"}

log = logging.getLogger(__name__)


def kept_slabs(path, template: xr.Dataset, plan: StorePlan, wanted: Sequence[Slab]) -> list[Slab]:
    """The slabs of a store to be that the finished store at `path` already holds whole.

    The first and the last of them of every field are read from the sources again and compared.

    Raises `ValueError` with one sentence when the store is not the beginning of the one to be: other fields, attributes,
    grid, levels, times or values.
    """
    if plan.leads is not None:
        raise ValueError(f"Expected an analysis store to append to, got forecasts for {path}")
    old = open_analysis(path)
    _check_same(old, template, path)
    count = old.sizes["time"]
    kept = [slab for slab in wanted if slab.stop <= count and _is_whole(old, slab)]
    by_field: dict[str, list[Slab]] = {}
    for slab in kept:
        by_field.setdefault(slab.name, []).append(slab)
    for own in by_field.values():
        for slab in {own[0], own[-1]}:
            _check_values(old, plan, slab, path)
    if kept:
        log.info("Kept %d regions of %s, up to %s", len(kept), path, old["time"].values[count - 1])
    return kept


def _is_whole(old: xr.Dataset, slab: Slab) -> bool:
    """Whether the store's own file for the slab begins and ends where the slab does."""
    encoding = old[slab.name].encoding
    length = (encoding.get("shards") or encoding["chunks"])[0]
    return slab.start % length == 0 and slab.stop - slab.start == length


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
        is_series = variable.dims == ("time",) and name != "time"
        if is_series:  # written whole, and not compared slab by slab
            variable = variable[: old.sizes["time"]]
        same = before.dims == variable.dims and (
            ("time" in variable.dims and not is_series)
            or np.array_equal(before.values, variable.values, equal_nan=variable.dtype.kind == "f")
        )
        units = before.attrs.get("units") == variable.attrs.get("units")
        if not (same and units and before.attrs.get("role") == variable.attrs.get("role")):
            raise ValueError(f"Expected {name} to append as it is in {path}, got it changed")


def _check_values(old, plan, slab, path):
    field = plan.fields[slab.name].part(slab.start, slab.stop)
    again = field.read(0, slab.stop - slab.start, plan.grid.shape)
    stored = old[slab.name].isel(time=slice(slab.start, slab.stop)).values
    if not np.array_equal(again, stored, equal_nan=True):
        raise ValueError(
            f"Expected the sources to hold the {slab.name} that {path} has from {plan.times[slab.start]} to "
            f"{plan.times[slab.stop - 1]}, got other values; ingest without appending to make the store anew"
        )


def link_slabs(path, kept: Sequence[Slab]) -> None:
    """Takes slabs of the finished store over into the unfinished one, and marks them.

    Files are linked, so that terabytes cost nothing (no writer ever changes a file in place), or copied where the file
    system has no links. Raises `DiskError` when that fails.
    """
    partial, done = partial_path(path), marks(path)
    same = {name: _layout(path, name) == _layout(partial, name) for name in {slab.name for slab in kept}}
    for slab in kept:
        if slab.key in done or not same[slab.name]:
            continue
        number = slab.start // (slab.stop - slab.start)
        source = Path(path) / slab.name / "c" / str(number)
        try:
            for file in source.rglob("*"):
                target = partial / file.relative_to(path)
                if file.is_file() and not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _link(file, target)
        except OSError as error:
            raise DiskError(f"Expected to take {slab.name} over from {path}, got: {reason(error)}") from error
        mark(path, slab.key)


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
        with whole_file(target, shared=True, flush=False) as scratch:
            shutil.copyfile(file, scratch)
