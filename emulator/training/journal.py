"""What a training leaves to read: rows of JSON, cut back where a killed run had written further than it had saved."""

import json
from pathlib import Path

FILES = ("metrics.jsonl", "timing.jsonl", "validation.jsonl")


class Journal:
    """Rows of JSON in files of a directory. Processes other than the first write nothing (`writes` false)."""

    def __init__(self, directory: Path, writes: bool):
        self.directory, self.writes = Path(directory), writes

    def add(self, name: str, row: dict) -> None:
        if self.writes:
            with open(self.directory / name, "a") as stream:
                stream.write(json.dumps(row) + "\n")

    def cut(self, update: int) -> None:
        """Drop what was written after an update, so that the resumed run writes it again."""
        for name in FILES if self.writes else ():
            path = self.directory / name
            if path.exists():
                rows = [line for line in path.read_text().splitlines() if line.endswith("}")]
                kept = [line for line in rows if json.loads(line)["update"] <= update]
                path.write_text("".join(line + "\n" for line in kept))
