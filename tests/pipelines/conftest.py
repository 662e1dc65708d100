"""For all tests of the stages: one tiny experiment, run once from sources to report, and a disk of any size."""

import os
import subprocess
from pathlib import Path

import pytest
from tiny_experiment import tiny_experiment

from pipelines.cli import main


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The YAML of a tiny experiment that has been run; its files lie in `run/` beside it."""
    path = tiny_experiment(tmp_path_factory.mktemp("tiny"))
    assert main(["run", str(path)]) == 0
    return path


@pytest.fixture
def disk(tmp_path):
    """Mounts a small disk, by mount's options; a second call changes them."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        first = [] if os.path.ismount(folder) else ["-t", "tmpfs", "tmpfs"]
        options = options if first else f"remount,{options}"
        if subprocess.run(["mount", *first, "-o", options, str(folder)], capture_output=True).returncode:
            pytest.skip("a small disk can only be mounted by root")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", "-l", str(folder)], check=True)
