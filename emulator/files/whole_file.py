"""A file that is whole under its name or not there."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path` to write under; at the end of the `with` block it is renamed to `path`.

    The folder is made where it is absent. After an error the temporary file is removed. Raises `OSError` naming `path`
    when the disk is full, the folder cannot be written, or a folder or device lies there.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise FileExistsError(errno.EEXIST, "something that is no file is there", str(path))
        try:
            yield partial
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
