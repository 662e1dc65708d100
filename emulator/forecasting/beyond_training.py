"""What a forecast store says of forcing that training has not seen, found by however many processes and starts write it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from emulator.data.trained_range import TrainedRange
from emulator.files.whole_file import whole_file

PREFIX = "forcing-beyond-training"


@dataclasses.dataclass(frozen=True)
class Note:
    """What a process has found, kept beside an unfinished store until the last one finishes it."""

    path: Path
    trained: TrainedRange

    @classmethod
    def begin(cls, folder: Path, process: str, trained: TrainedRange) -> "Note":
        """Of one process, with what its earlier start has found."""
        note = cls(folder / f"{PREFIX}-{process}.json", trained)
        trained.recall(_read(note.path))
        return note

    def write(self) -> None:
        """To be called before the leads are written that it is of, so that no finished store lacks it."""
        if self.trained.beyond and self.trained.beyond != _read(self.path):
            with whole_file(self.path, shared=True, flush=False) as scratch:
                scratch.write_text(json.dumps(self.trained.beyond))


def _read(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def noted(folder: Path) -> list[dict]:
    """What all processes have found."""
    return [_read(path) for path in sorted(folder.glob(f"{PREFIX}-*.json"))]


def beyond_training(found: Sequence[Mapping]) -> dict[str, str]:
    """The attribute `forcing_beyond_training`; none where no forcing went beyond."""
    total = TrainedRange({})
    for one in found:
        total.recall(one)
    return {"forcing_beyond_training": json.dumps(total.beyond, sort_keys=True)} if total.beyond else {}
