"""A Zarr v3 store made once as an empty template, then filled region by region, in any order, by any process.

Until it is finished a store lies at `<path>.partial`, with one small file per finished region in `<path>.progress`, which
holds the digest of the region's values. A process killed anywhere leaves those two, and the next run does only what is
missing. Any number of processes may make, fill and finish one store at the same time: the template appears by a rename,
chunks and marks are written beside and renamed, and two that write one region write the same. `finish` renames: what lies
at `<path>` is always whole.
"""

import hashlib
import json
import logging
import os
import shutil
import uuid
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec

from emulator.files.whole_file import replace_folder, whole_file
from emulator.store.chunk_writer import write_chunks
from emulator.store.chunks import ChunkReader
from emulator.store.marks import DiskError, marks, partial_path, progress_path, read_text, reason
from emulator.store.schema import ROWS

# With its bytes shuffled a chunk of ERA5 shrinks 1.40 times by lz4 and 1.54 times by zstd 3, which takes 4 times as long to
# decompress (2.1 against 8.0 GB/s on one core) and 7 times as long to compress: reading waits for the processor.
COMPRESSOR = BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=4)

UNFINISHED = "unfinished"  # attribute of the group: the digest of the recipe, until the store is finished

log = logging.getLogger(__name__)


class OtherTemplate(ValueError):
    """An unfinished store lies there that was begun from other sources or settings."""


def create(
    path,
    template: xr.Dataset,
    chunks: Mapping[str, int],
    shards: Mapping[str, int] | None = None,
    fill: float = np.nan,
    shared: bool = False,
) -> bool:
    """Makes an unfinished store with the template's coordinates and empty data variables; no field is computed.

    Args:
      path: where the finished store will be.
      template: coordinates with values, data variables whose shape, type and attributes alone are used, and attributes.
        Data variables of one dimension, or without any of `chunks`, are written whole, now.
      chunks: size of a chunk along a dimension; dimensions left out are not cut.
      shards: size of a shard, a file of many chunks that has to be written by one process, along the same dimensions.
      shared: other processes may fill the same store; one of another template is then refused and not started over.

    Returns True when an unfinished store with the same template lies there already and is continued. Raises
    `OtherTemplate` as said under `shared`, and `DiskError` when the folder cannot be written.
    """
    recipe = _recipe(template, chunks, shards)
    partial, progress = partial_path(path), progress_path(path)
    check_replaceable(path)
    try:
        if recipe in _recipes_of(path):
            _begin_marks(progress, recipe)
            return True
        if partial.exists() or progress.exists():
            if shared:
                raise OtherTemplate(
                    f"Expected the unfinished store at {partial} to be of the same sources and settings, got another; remove "
                    f"{partial.name} and {progress.name} to start over"
                )
            log.warning("Starting %s over: the unfinished store there was made from other sources or settings", path)
            discard(path)
        partial.parent.mkdir(parents=True, exist_ok=True)
        scratch = partial.with_name(f"{partial.name}-{uuid.uuid4().hex}")
        try:
            _write_template(scratch, template, chunks, shards or {}, fill, recipe)
            scratch.rename(partial)
        except OSError:
            shutil.rmtree(scratch, ignore_errors=True)
            if recipe not in _recipes_of(path):  # else another process was faster
                raise
        _begin_marks(progress, recipe)
    except OSError as error:
        raise DiskError(f"Expected to write a store at {path}, got: {reason(error)}") from error
    return False


def check_replaceable(path) -> None:
    """Raises `DiskError` where something lies at `path` that is no store of this program: it would be deleted."""
    path = Path(path)
    if not os.path.lexists(path) or "complete" in (_attributes(path) or {}):
        return
    if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
        return
    what = "a folder that is none" if path.is_dir() else "a file"
    raise DiskError(
        f"Expected a store of this program or nothing at {path}, got {what}; name another output or remove it"
    )


def _recipes_of(path) -> set[str | None]:
    """The digest of the recipe of an unfinished store: in its attributes until it is whole, then beside its marks alone."""
    attributes = _attributes(partial_path(path))
    if attributes is None:
        return set()
    return {attributes[UNFINISHED] if UNFINISHED in attributes else read_text(progress_path(path) / "recipe")}


def _begin_marks(progress: Path, recipe: str) -> None:
    progress.mkdir(exist_ok=True)
    with whole_file(progress / "recipe", shared=True, flush=False) as scratch:
        scratch.write_text(recipe)


def _write_template(folder, template, chunks, shards, fill, recipe) -> None:
    cut = set(chunks) - ROWS  # what has rows alone is written whole
    fixed = [name for name, v in template.data_vars.items() if v.ndim < 2 or not set(v.dims) & cut]
    whole = template.drop_vars([n for n in template.data_vars if n not in fixed]).drop_encoding()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=zarr.errors.ZarrUserWarning)
        whole.to_zarr(folder, mode="w", zarr_format=3, consolidated=False, encoding=_encoding(whole))
        group = zarr.open_group(folder, mode="r+")
        for name in template.data_vars:
            if name not in fixed:
                _create_array(group, name, template, chunks, shards, fill)
        group.attrs.update({"complete": False, UNFINISHED: recipe})


def write_region(path, name: str, values: np.ndarray, start: Mapping[str, int]) -> None:
    """Writes an array of the variable's dimensions at the given offsets (0 where none is given), and reads it back.

    Raises `ValueError` with one sentence when the disk is full or what is read back differs.
    """
    try:
        array = zarr.open_array(partial_path(path), path=name, mode="r+")
    except FileNotFoundError:
        raise DiskError(
            f"Expected the unfinished store of {path}, got nothing there: another process ended it"
        ) from None
    dims = array.metadata.dimension_names
    values = np.asarray(values, array.dtype)
    where = tuple(slice(start.get(d, 0), start.get(d, 0) + n) for d, n in zip(dims, values.shape, strict=True))
    if any(s.stop > n for s, n in zip(where, array.shape, strict=True)):
        raise ValueError(f"Expected a region of {name} within {array.shape} {dims}, got {where} for {path}")
    values = np.ascontiguousarray(values)
    layout = _layout(path, name, array, where)
    try:
        if layout is None or not write_chunks(layout, where[0].start, values):
            array[where] = values
        good = _reads_back(layout, array, values, where)
    except OSError as error:
        raise DiskError(f"Expected to write {name} to {path}, got: {reason(error)}") from error
    if not good:
        raise ValueError(
            f"Expected to read back what was written of {name} at {dict(start)} in {path}, got other values"
        )


def _layout(path, name, array, where) -> ChunkReader | None:
    """How the times of an array lie in files, where Zarr's detours can be left out."""
    whole = all(part == slice(0, size) for part, size in zip(where[1:], array.shape[1:], strict=True))
    return ChunkReader.of(partial_path(path), name) if whole and array.ndim > 1 else None


def _reads_back(layout, array, values, where) -> bool:
    """Whether what was written is there."""
    if layout is None:
        return _same(array[where], values)
    back = np.empty(array.shape[1:], np.float32)
    for time, expected in enumerate(values, start=where[0].start):
        layout.read(time, back)
        if not _same(back, expected):
            return False
    return True


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Bits are compared first, which is ten times as fast; a NaN may come back as another one."""
    if one.dtype == other.dtype == np.float32 and np.array_equal(one.view(np.uint32), other.view(np.uint32)):
        return True
    return np.array_equal(one, other, equal_nan=other.dtype.kind == "f")


def discard(path) -> None:
    """Removes the unfinished store of `path`, if there is one."""
    for folder in (progress_path(path), partial_path(path)):
        shutil.rmtree(folder, ignore_errors=True)


def finish(path, expected: Iterable[str] = (), attributes: Mapping | None = None) -> None:
    """Makes the store whole: all regions marked, metadata consolidated, `complete` true, then the rename.

    An older store at `path` is replaced. Raises `ValueError` when a region is missing.
    """
    path, partial = Path(path), partial_path(path)
    if missing := sorted(set(expected) - marks(path)):
        raise ValueError(f"Expected every region of {path} to be written, got {len(missing)} missing: {missing[:3]}")
    try:
        for stray in partial.rglob("*.partial"):  # of processes that were killed while they wrote a chunk
            stray.unlink(missing_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=zarr.errors.ZarrUserWarning)
            zarr.consolidate_metadata(partial)
        metadata = json.loads((partial / "zarr.json").read_text())
        kept = {key: value for key, value in metadata["attributes"].items() if key != UNFINISHED}
        metadata["attributes"] = {**kept, **(attributes or {}), "complete": True}
        with whole_file(partial / "zarr.json", shared=True, flush=False) as scratch:
            scratch.write_text(json.dumps(metadata, indent=2))
        # from here on the store is whole, and only has to be renamed
        settle(path)
    except OSError as error:
        raise DiskError(f"Expected to finish the store at {path}, got: {reason(error)}") from error


def settle(path) -> None:
    """Puts a whole store in its place, where a process was killed before the rename. Does nothing otherwise."""
    path, partial, progress = Path(path), partial_path(path), progress_path(path)
    if not partial.exists():
        if (_attributes(path) or {}).get("complete") is True:  # killed after the rename: what is left is of no use
            for left in (progress, *path.parent.glob(f"{partial.name}-*")):
                shutil.rmtree(left, ignore_errors=True)
        return
    if (_attributes(partial) or {}).get("complete") is not True:
        return
    if not replace_folder(partial, path):  # another process was faster
        return
    shutil.rmtree(progress, ignore_errors=True)
    for scratch in path.parent.glob(f"{partial.name}-*"):
        if (_attributes(scratch) or {}).get("complete") is not True:  # a template that was never whole
            shutil.rmtree(scratch, ignore_errors=True)


def finished_fingerprint(path) -> str | None:
    """The `fingerprint` of the finished store at `path`, or None when there is none."""
    settle(path)
    attributes = _attributes(Path(path)) or {}
    return attributes.get("fingerprint") if attributes.get("complete") is True else None


def _attributes(folder: Path) -> dict | None:
    """Attributes of a Zarr group; None where there is none."""
    try:
        return json.loads((folder / "zarr.json").read_text())["attributes"]
    except (OSError, KeyError, json.JSONDecodeError):
        return None


def _recipe(template, chunks, shards) -> str:
    """Digest that two templates share exactly when one may continue the other."""
    arrays = {name: [list(v.dims), list(v.shape), str(v.dtype)] for name, v in template.variables.items()}
    values = {name: _digest(c.values) for name, c in template.coords.items()}
    attributes = {key: str(value) for key, value in template.attrs.items()}
    text = json.dumps([arrays, values, attributes, dict(chunks), dict(shards or {})], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(values: np.ndarray) -> str:
    data = repr(values.tolist()).encode() if values.dtype == object else np.ascontiguousarray(values).tobytes()
    return hashlib.sha256(data).hexdigest()[:16]


def _encoding(whole: xr.Dataset) -> dict:
    encoding = {}
    for name, variable in whole.variables.items():
        encoding[name] = {"chunks": variable.shape} if variable.ndim else {}
        if variable.dtype.kind == "M" or (variable.dtype == object and name == "time" and variable.size):
            calendar = "proleptic_gregorian" if variable.dtype.kind == "M" else variable.values.flat[0].calendar
            encoding[name] |= {"units": "seconds since 1970-01-01", "dtype": "int64", "calendar": calendar}
        elif variable.dtype.kind == "m":
            encoding[name] |= {"units": "seconds", "dtype": "int64"}
        elif np.issubdtype(variable.dtype, np.floating):
            encoding[name] |= {"_FillValue": None}
    return encoding


def _create_array(group, name, template, chunks, shards, fill):
    variable = template[name].variable
    size = {d: min(chunks.get(d, n), n) for d, n in variable.sizes.items()}
    shard = None
    if any(d in shards for d in variable.dims):  # a shard holds whole chunks
        shard = tuple(-(-min(shards.get(d, size[d]), n) // size[d]) * size[d] for d, n in variable.sizes.items())
    attributes = {key: value for key, value in variable.attrs.items() if key != "_FillValue"}
    if coordinates := " ".join(str(c) for c in template[name].coords if c not in template.dims):
        attributes["coordinates"] = coordinates
    group.create_array(
        name,
        shape=variable.shape,
        dtype=variable.dtype,
        chunks=tuple(size.values()),
        shards=shard,
        compressors=[COMPRESSOR],
        fill_value=fill if variable.dtype.kind == "f" else 0,
        attributes=attributes,
        dimension_names=variable.dims,
    )
