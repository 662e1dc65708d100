"""A store as what other tools read: whole under its name or not there."""

import logging
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from emulator.exports.registry import TARGETS
from emulator.exports.source import Source

log = logging.getLogger(__name__)


def export(store: str | os.PathLike, to: str, output: str | os.PathLike, levels: Sequence[float] | None = None) -> Path:
    """Writes an analysis or forecast store for other tools and returns the path of what was made.

    Args:
      store: path of a finished store. to: one of `TARGETS`. output: a path where nothing lies yet; what is made is a folder.
      levels: pressures in hPa, that fields on sigma or hybrid levels are interpolated to first.

    Fields are read in blocks. Under a temporary name, then renamed. Raises `ValueError` for a target that there is not, for
    a store that it cannot hold and where something lies at the output, `ImportError` without what writes it, and `OSError`
    when the disk is full.
    """
    target, output = TARGETS[to], Path(output)
    if target.one is None and target.suffix and output.suffix != target.suffix:
        raise ValueError(
            f"Expected an output that ends in {target.suffix}, without which readers of {to} take it for none"
        )
    if os.path.lexists(output):
        what = "a folder" if output.is_dir() else "a file"
        raise ValueError(f"Expected nothing at {output} yet, got {what}; name another output or remove it")
    source = Source.of(store, levels)
    target.check(source)
    partial = output.with_name(f"{output.name}.{uuid.uuid4().hex}.partial")  # nobody else's, whose files would be lost
    partial.mkdir(parents=True)
    try:
        target.write(source, partial)
        partial.rename(output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    log.info("%s: %s", output, target.about)
    return output


def check_formats(kinds: Sequence[str], dataset=None) -> None:
    """To be known before there is anything to write.

    `dataset`: the analysis that forecasts will be of. Raises `ImportError` where a format cannot be written here, and
    `ValueError` for a grid that it does not hold.
    """
    for kind in kinds:
        TARGETS[kind].check(None if dataset is None else Source(dataset))


def export_beside(path: Path, kind: str) -> Path:
    """Writes every initial time of a forecast store as a file and returns the folder, beside the store.

    `kind`: a target of files. Files that are there and newer than the store are left alone, so that a stopped export goes
    on. Raises `OSError` when a file cannot be written.
    """
    path, target, source = Path(path), TARGETS[kind], Source.of(path)
    folder = path.with_name(f"{path.stem}_{kind}")
    folder.mkdir(parents=True, exist_ok=True)
    written = (path / "zarr.json").stat().st_mtime
    for stem, blocks in source.files():
        file = folder / f"{stem}{target.suffix}"
        if not (file.exists() and file.stat().st_mtime >= written):
            target.one(blocks, file)
    log.info("%s: %d files", folder, source.dataset.sizes["init_time"])
    return folder
