"""One tiny experiment, run once from sources to report, for all tests of the stages."""

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
