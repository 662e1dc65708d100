"""Forecasts that several processes hold together: which rows each writes, where they went on, and who is done."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from emulator.forecasting.position import Position
from emulator.parallel.space import Space
from emulator.store.marks import mark, marks, progress_path, unmark

KEPT = 4  # restart files of a process: its writer is at most two blocks behind that of another


class Rows:
    """The rows of a forecast store, of which every process of a space writes whole chunks.

    Chunks are of one size and bands are not, so a process writes some rows of its neighbours and they some of its own.

    Args:
      space: the processes. kept: rows of the grid that the store has, increasing.
    """

    def __init__(self, space: Space, kept: np.ndarray):
        self.space, self.kept = space, kept
        self.chunk = -(-len(kept) // space.size)

    def of(self, rank: int) -> np.ndarray:
        """Rows of the grid that a process writes; none of the last, where there are too few chunks."""
        return self.kept[rank * self.chunk : (rank + 1) * self.chunk]

    @property
    def first(self) -> int:
        """Where this process's rows begin in the store."""
        return self.space.rank * self.chunk


class Restarts:
    """The files from which one group of forecasts goes on, one for each process, which all have to be of one step.

    Args:
      store: of the forecasts. space: the processes. group, batch_size: first initial time, and forecasts at a time.
    """

    def __init__(self, store: Path, space: Space, group: int, batch_size: int):
        self._folder, self._space = progress_path(store), space
        part = "" if space.size == 1 else f"-{space.rank + 1}of{space.size}"
        self._name = f"restart-{group:06d}-{batch_size:d}{part}"

    def _path(self, number: int) -> Path:
        return self._folder / (f"{self._name}{'' if self._space.size == 1 else f'-{number:08d}'}.safetensors")

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem.rpartition("-")[2]) for path in self._folder.glob(f"{self._name}-*.safetensors"))

    def load(self) -> Position | None:
        """The last position that all processes have; None where there is none. They ask together."""
        if self._space.size == 1:
            return Position.load(self._path(0))
        own = torch.tensor((self._numbers() + [-1] * KEPT)[:KEPT])
        found = self._space.whole(own, KEPT * self._space.size, 0).view(-1, KEPT).tolist()
        common = set.intersection(*map(set, found)) - {-1}
        return Position.load(self._path(max(common))) if common else None

    def save(self, position: Position) -> None:
        """Raises `OSError` when the disk is full."""
        position.save(self._path(position.number))
        if self._space.size > 1:
            for number in self._numbers()[: 1 - KEPT]:
                self._path(number).unlink(missing_ok=True)

    def remove(self) -> None:
        for path in self._folder.glob(f"{self._name}*.safetensors"):
            path.unlink(missing_ok=True)


def part_key(index: int, space: Space) -> str:
    """The mark of an initial time, or of this process's part of it."""
    whole = f"init-{index:06d}"
    return whole if space.size == 1 else f"part-{space.rank + 1}of{space.size}-{whole}"


def settle(path: Path, space: Space, count: int) -> None:
    """Marks the initial times as done that all processes of the space have written; they ask together."""
    wait(space)
    if space.size > 1 and space.rank == 0:
        found = marks(path)
        for index in range(count):
            whole = f"init-{index:06d}"
            parts = [f"part-{rank + 1}of{space.size}-{whole}" for rank in range(space.size)]
            if found.issuperset(parts):
                mark(path, whole)
                for part in parts:
                    unmark(path, part)
    wait(space)


def anywhere(flag: bool, space: Space) -> bool:
    """Whether it is so for any process of the space."""
    return flag if space.size == 1 else float(space.highest(torch.tensor(float(flag)))) > 0


def agreed(done: Iterable[int], count: int, space: Space) -> set[int]:
    """Of `count` things those that all processes of the space know to be done."""
    known = set(done)
    if space.size == 1:
        return known
    lacking = space.highest(torch.tensor([float(index not in known) for index in range(count)]))
    return {index for index, lacks in enumerate(lacking.tolist()) if not lacks}


def wait(space: Space) -> None:
    """Returns when every process of the space has come here."""
    if space.size > 1:
        space.total(torch.zeros(1))
