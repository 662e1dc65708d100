"""A folder that cannot be written ends every stage with one sentence."""

import importlib.util
import os
from pathlib import Path

import pytest

from pipelines.cli import main

NAMES = {"stats": "s.nc", "verify": "s.nc", "train": "train", "report": "report"}


@pytest.fixture
def locked(request, tmp_path) -> Path:
    """A folder that cannot be written: by its mode, or for root, whom modes do not stop, by a disk mounted read-only."""
    if os.geteuid() == 0:
        return request.getfixturevalue("disk")("ro")
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    return folder


def _said(capsys) -> str:
    said = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in "".join(said)
    return said[-1]


def _simulation(folder: Path) -> Path:
    path = folder.parent / "simulate.yaml"
    path.write_text(f"directory: {folder / 'simulation'}\ndays: 3\nspin_up_days: 1\nchunk_days: 2\ntruncation: 21\n")
    return path


@pytest.mark.parametrize("stage", ["simulate", "ingest", "stats", "train", "rollout", "verify", "report", "run"])
def test_a_folder_that_cannot_be_written_ends_in_one_sentence(finished, stage, locked, capsys):
    output = locked / NAMES.get(stage, "s.zarr")
    if stage == "simulate":
        command = [stage, str(_simulation(locked))]
    elif stage == "run":
        command = [stage, str(finished), f"directory={output}"]
    else:
        command = [stage, str(finished), f"output={output}"]
    assert main(command) == 1
    said = _said(capsys)
    assert ("Read-only file system" in said or "Permission denied" in said) and str(locked) in said, said
    assert not list(locked.iterdir())
    if stage != "simulate" or importlib.util.find_spec("jcm"):
        assert main([*command, "--check"]) == 1
        assert f"{locked} is not writable" in _said(capsys)
