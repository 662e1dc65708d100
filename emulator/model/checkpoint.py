"""Checkpoints: a directory of tensors (safetensors) and one JSON, written atomically and verified on load. No pickle."""

import hashlib
import json
import os
import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

TENSORS, METADATA = "weights.safetensors", "checkpoint.json"
OWN_SUM = "record_sha256"  # of what the JSON says besides


class CheckpointError(ValueError):
    """A checkpoint that is absent, damaged or of another schema; the message is one sentence."""


def save(directory: Path, tensors: dict[str, Tensor], metadata: dict) -> None:
    """Write a checkpoint so that `directory` holds either the whole of it or what it held before.

    Raises `OSError` when the disk is full or the folder cannot be written; nothing half-written stays.
    """
    directory = Path(directory)
    scratch = directory.with_name(f".{directory.name}.writing")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, scratch / TENSORS)
        record = metadata | {"sha256": _digest(scratch / TENSORS)}
        (scratch / METADATA).write_text(json.dumps(record | {OWN_SUM: _sum(record)}, indent=1))
        for path in (scratch / TENSORS, scratch / METADATA, scratch):
            _flush(path)
        previous = directory.with_name(f".{directory.name}.previous")
        shutil.rmtree(previous, ignore_errors=True)
        if directory.exists():
            os.rename(directory, previous)
        os.rename(scratch, directory)
        _flush(directory.parent)  # the name outlives a loss of power too
        shutil.rmtree(previous, ignore_errors=True)
    except SafetensorError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise OSError(f"could not write {directory}: {error}") from error
    except OSError:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def load(directory: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors and metadata of a checkpoint. Raises `CheckpointError` naming the file that is absent or damaged."""
    directory = Path(directory)
    previous = directory.with_name(f".{directory.name}.previous")
    if not directory.exists() and (previous / METADATA).exists():  # killed between the two renames of `save`
        directory = previous
    metadata = describe(directory)
    path = directory / TENSORS
    if not path.exists():
        raise CheckpointError(f"Expected tensors in {path}, found no such file")
    if _digest(path) != metadata.get("sha256"):
        raise CheckpointError(f"Expected {path} as {METADATA} records it, its checksum differs: the file is damaged")
    return load_file(path), metadata


def describe(directory: Path) -> dict:
    """A checkpoint's metadata alone. Raises `CheckpointError`."""
    path = Path(directory) / METADATA
    try:
        metadata = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"Expected a checkpoint in {directory}, found no {METADATA}") from None
    except ValueError as error:  # no JSON, or no text at all
        raise CheckpointError(f"Expected JSON in {path}, it is damaged: {error}") from None
    if not isinstance(metadata, dict):
        raise CheckpointError(f"Expected a JSON object in {path}, it is damaged: got {metadata!r}")
    if metadata.pop(OWN_SUM, None) not in (None, _sum(metadata)):  # None: written before there was one
        raise CheckpointError(f"Expected {path} as it was written, its checksum differs: the file is damaged")
    return metadata


def remove(directory: Path) -> None:
    """Remove a checkpoint, and what a killed save has left of the one before."""
    directory = Path(directory)
    for path in (directory, directory.with_name(f".{directory.name}.previous")):
        if path.exists():
            shutil.rmtree(path)


def path_of(directory: Path, prefix: str, number: int) -> Path:
    """Where a numbered checkpoint of a folder lies."""
    return Path(directory) / f"{prefix}-{number:08d}"


def rotate(directory: Path, prefix: str, keep: int, identity: str | None = None) -> None:
    """Remove all but the `keep` newest of the numbered checkpoints `prefix-NNN` in a folder, or of those of an identity."""
    for old in numbered(directory, prefix, identity)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)  # what a network disk does not let go of is tried again next time


def sweep(directory: Path) -> None:
    """Remove what saves that were killed have left half-written in a folder, where nobody saves meanwhile."""
    for scratch in Path(directory).glob(".*.writing"):
        shutil.rmtree(scratch, ignore_errors=True)


def numbered(directory: Path, prefix: str, identity: str | None = None) -> list[Path]:
    """The numbered checkpoints of a folder, oldest first; with an `identity` without those that record another."""
    paths = [p for p in Path(directory).glob(f"{prefix}-*") if p.name.rpartition("-")[2].isdigit()]
    paths = [p for p in paths if identity is None or _identity(p) in (identity, None)]
    return sorted(paths, key=lambda path: int(path.name.rpartition("-")[2]))


def _identity(directory: Path) -> str | None:
    """What a checkpoint records as its identity; None where it is damaged."""
    try:
        return describe(directory).get("identity")
    except CheckpointError:
        return None


def _sum(record: dict) -> str:
    """Checksum of what a record says, however it is laid out."""
    said = json.loads(json.dumps({name: value for name, value in record.items() if name != OWN_SUM}))
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
