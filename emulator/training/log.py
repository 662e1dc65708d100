"""What a training leaves to read: rows of JSON with means since the last row, how fast it goes, and how long it will take."""

import contextlib
import functools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from emulator.files.whole_file import whole_file
from emulator.parallel.processes import Processes
from emulator.parallel.rates import peak_memory, product_rate
from emulator.training.recipe import Recipe

FILES = ("metrics.jsonl", "timing.jsonl", "validation.jsonl")


class Journal:
    """Rows of JSON in files of a directory, cut back where a killed run had written further than it had saved.

    Processes other than the first write nothing (`writes` false).
    """

    def __init__(self, directory: Path, writes: bool):
        self.directory, self.writes = Path(directory), writes

    def add(self, name: str, row: dict) -> None:
        if self.writes:
            with open(self.directory / name, "a") as stream:
                stream.write(json.dumps(row) + "\n")

    def settle(self) -> None:
        """Have the disk hold all rows: a state that is saved next must not outlive the rows before it."""
        for name in FILES if self.writes else ():
            if (self.directory / name).exists():
                with open(self.directory / name, "rb") as stream:
                    os.fsync(stream.fileno())

    def cut(self, update: int) -> None:
        """Drop what was written after an update, so that the resumed run writes it again, and what a kill cut short."""
        for name in FILES if self.writes else ():
            path = self.directory / name
            if path.exists():
                kept = [line for line in path.read_bytes().splitlines(keepends=True) if _number(line) <= update]
                with whole_file(path) as scratch:
                    scratch.write_bytes(b"".join(kept))


def _number(line: bytes) -> float:
    """The update of a row; that of a damaged row lies beyond all others."""
    try:
        return json.loads(line)["update"] if line.endswith(b"\n") else float("inf")
    except (ValueError, KeyError, TypeError):
        return float("inf")


class Log:
    """Writes `metrics.jsonl` (what the training found, the same at every run) and `timing.jsonl`.

    `products`: operations of the network's matrix products for one sample and step; 0 where not known. `rows`: of the
    updates since the last row of the log.
    """

    def __init__(self, journal: Journal, recipe: Recipe, processes: Processes, device: torch.device):
        self._journal, self._recipe, self._processes, self._device = journal, recipe, processes, device
        self.products, self.rows = 0, []
        self.begin(0)

    def begin(self, update: int) -> None:
        """This process goes on after an update."""
        self._started, self._first, self._waited = time.perf_counter(), update, 0.0
        self._steady = (
            self._started,
            update,
        )  # when the first update had ended, which compiles and warms up, and its number

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time of a `with` block as waiting for data."""
        mark = time.perf_counter()
        yield
        self._waited += time.perf_counter() - mark

    def add(self, row: dict[str, Tensor], update: int) -> None:
        """What one update found."""
        self.rows.append(row)
        if update == self._first + 1:
            self._steady = time.perf_counter(), update

    def unlogged(self) -> list[dict[str, float]]:
        """Rows for a saved state: float -> JSON -> float is exact, so a resumed run logs the same means."""
        self.rows = [{name: float(value) for name, value in row.items()} for row in self.rows]
        return self.rows

    def due(self, update: int) -> bool:
        """Whether a row is to be written after an update; none is a mean of two losses."""
        recipe = self._recipe
        return update % recipe.log_every == 0 or update in (recipe.singles, recipe.updates)

    def write(self, update: int, retried: int) -> dict:
        """The row of the log after an update, of numbers; the time left is told by the updates after the first.

        It says the kind of its loss too (`loss_kind`), where phases of single forecasts have another.
        """
        recipe, spent = self._recipe, time.perf_counter() - self._started
        index, _ = recipe.locate(update - 1)
        rows, self.rows = self.rows, []
        means = {name: sum(float(row[name]) for row in rows) / len(rows) for name in rows[0]}
        rate = recipe.learning_rate(update - 1) * 0.5**retried
        row = {"update": update, "phase": index, "learning_rate": rate} | means
        kind = {"loss_kind": recipe.loss_at(update - 1)} if recipe.singles else {}  # where rows are of two losses
        samples = recipe.sum(lambda phase: phase.batch_size, self._first, update)
        steady, begin = self._steady
        since, begin = (time.perf_counter() - steady, begin) if update > begin else (spent, self._first)
        spans = (self._first, update), (begin, update), (update, recipe.updates)
        done, paced, left = (recipe.sum(recipe.work, *span) for span in spans)
        timing = {
            "update": update,
            "seconds": round(spent, 3),
            "samples_per_second": round(samples / spent, 3),
            "data_wait_share": round(self._waited / spent, 5),
            "remaining_seconds": round(since / paced * left, 1),
            "peak_memory_gb": round(peak_memory(self._device) / 1e9, 3),
        }
        if self.products:
            achieved = self.products * done / self._processes.size / spent
            timing["gigaflop_per_second"] = round(achieved / 1e9, 2)
            timing["product_rate_share"] = round(achieved / self._product_rate, 4)
        self._journal.add("metrics.jsonl", row | kind)
        self._journal.add("timing.jsonl", timing)
        return row | kind | timing | {"updates": recipe.updates}

    @functools.cached_property
    def _product_rate(self) -> float:
        size = (
            4096 if self._device.type == "cuda" else None
        )  # the training's own memory is not to be told wrong by this
        return product_rate(self._device, getattr(torch, self._recipe.precision), size)
