"""What a training leaves to read: rows of JSON, cut back where a killed run had written further than it had saved."""

import json
import os
from pathlib import Path

from emulator.files.whole_file import whole_file

FILES = ("metrics.jsonl", "timing.jsonl", "validation.jsonl")


class Journal:
    """Rows of JSON in files of a directory. Processes other than the first write nothing (`writes` false)."""

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
