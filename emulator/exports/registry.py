"""Targets of an export by name, each registered by its file in `emulator/exports/targets/`."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import xarray as xr

from emulator.exports.source import Source
from emulator.registry import Registry


@dataclasses.dataclass(frozen=True)
class Target:
    """What a store is written as.

    Attributes:
      about: in a few words, for messages and the command line.
      check: raises `ValueError` for a store that the target cannot hold, and `ImportError` without what writes it.
      write: writes the store as a folder that is not there yet.
      one: of a target of a file for each forecast or year: writes consecutive blocks of one as a file.
      suffix: what the names of these files end in, or that of the folder where the target is one store.
    """

    about: str
    check: Callable[[Source], None]
    write: Callable[[Source, Path], None]
    one: Callable[[Iterator[xr.Dataset], Path], object] | None = None
    suffix: str = ""


TARGETS: Registry[Target] = Registry("target of an export", "emulator.exports.targets")


def register_files(
    name: str, about: str, check: Callable, one: Callable, suffix: str, begin: Callable[[Source], None] | None = None
) -> Target:
    """A target that is a folder of files, one for each initial time of forecasts or year of an analysis.

    `begin`: what is to be said, or refused, of the fields of a store before the first file.
    """

    def write(source: Source, folder: Path) -> None:
        if begin is not None:
            begin(source)
        for stem, blocks in source.files():
            one(blocks, folder / f"{stem}{suffix}")

    return TARGETS.register(name, Target(about, check, write, one, suffix))
