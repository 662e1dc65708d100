"""The rows that a training leaves: cut back after a kill without ever being lost."""

import errno
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emulator.training.log import Journal

ROWS = [{"update": 2 * n, "loss": 1 / (n + 1)} for n in range(1, 6)]


def lines(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 12), st.integers(0, len(lines(ROWS))), st.binary(max_size=20))
def test_a_cut_keeps_whole_rows_up_to_an_update_wherever_the_file_ends(tmp_path, update, end, rubbish):
    """A kill ends a file anywhere, and a lost node may leave anything behind what was written."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(lines(ROWS)[:end] + rubbish.replace(b"}", b""))
    whole = lines(ROWS)[:end].count(b"\n")
    Journal(tmp_path, writes=True).cut(update)
    kept = [row for row in ROWS[:whole] if row["update"] <= update]
    assert path.read_bytes()[: len(lines(kept))] == lines(kept)
    assert len(path.read_bytes().splitlines()) <= len(kept) + 1


def test_a_cut_that_fails_leaves_the_rows(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(lines(ROWS))

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        Journal(tmp_path, writes=True).cut(4)
    monkeypatch.undo()
    assert path.read_bytes() == lines(ROWS) and [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_other_processes_write_nothing(tmp_path):
    journal = Journal(tmp_path, writes=False)
    journal.add("metrics.jsonl", ROWS[0])
    journal.cut(0)
    journal.settle()
    assert not list(tmp_path.iterdir())
