"""Files and folders that are whole under their names or not there: written beside, then renamed."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SPARE_BYTES = 1 << 20  # the HDF5 library fails without a reason when less than about this is left


@contextmanager
def whole_file(path: Path, shared: bool = False, flush: bool = True) -> Iterator[Path]:
    """Yields a temporary name beside `path` to write under; at the end of the `with` block it is renamed to `path`.

    After an error the temporary file is removed.

    Args:
      path: of the file; its folder is made where it is absent.
      shared: other processes may write the same file at the same time, or rename its folder: the temporary name is of this
        write alone, and the folder has to be there.
      flush: waits for the disk before the rename; for one of very many small files that takes too long.

    Raises `OSError` naming `path` when the disk is full, the folder cannot be written, or a folder or device lies there.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial" if shared else f"{path.name}.partial")
    try:
        if not shared:
            path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise FileExistsError(errno.EEXIST, "something that is no file is there", str(path))
        try:
            yield partial
            if flush:
                with open(partial, "rb") as file:
                    os.fsync(file.fileno())  # a network disk tells of a full quota no earlier
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def replace_folder(whole: Path, path: Path) -> bool:
    """Renames the folder `whole` to `path`, in place of an older folder there, which is deleted.

    Of several processes that do so at the same time one succeeds; the others do nothing and return False. Raises `OSError`.
    """
    whole, path = Path(whole), Path(path)
    old = whole.with_name(f"{whole.name}-{uuid.uuid4().hex}")
    if path.exists():
        path.rename(old)
    try:
        whole.rename(path)
    except FileNotFoundError:  # another process was faster, and what was at the path is the new folder
        if old.exists():
            old.rename(path)
        return False
    shutil.rmtree(old, ignore_errors=True)
    return True


def write_netcdf(dataset, path: Path, encoding: Mapping | None = None) -> None:
    """Writes an `xarray.Dataset` under a temporary name beside `path`, then renames.

    Raises `OSError`, saying why and for which file, when the disk is full or the folder cannot be written; the temporary
    file is then removed.
    """
    path = Path(path)
    with whole_file(path) as partial:
        try:
            dataset.to_netcdf(partial, engine="netcdf4", encoding=dict(encoding or {}))
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)  # before the disk is measured
            if shutil.disk_usage(path.parent).free < SPARE_BYTES + dataset.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
            raise OSError(f"could not write {path}: {' '.join(str(error).split())}") from error
