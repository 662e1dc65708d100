"""SIGTERM and SIGUSR1 end every stage with the code that requeues, whenever and however often they come."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_experiment import tiny_experiment

from emulator.interruption import Interrupted
from pipelines.cli import EX_TEMPFAIL, main
from pipelines.signals import stopping_at_once, stopping_when_asked

ROOT = Path(__file__).resolve().parents[2]


def test_a_signal_stops_what_is_under_way_and_the_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGUSR1"), stopping_at_once(restore=True):
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_loop_asks_and_then_the_handlers_around_it_come_back():
    with pytest.raises(Interrupted, match="SIGTERM"), stopping_at_once(restore=True):
        with stopping_when_asked() as asked:
            assert not asked()
            os.kill(os.getpid(), signal.SIGTERM)
            assert asked()
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_signal_does_not_disturb_the_first():
    with pytest.raises(Interrupted, match="SIGTERM"), stopping_at_once(restore=True):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGUSR1)


@pytest.mark.parametrize("pattern", ["run/analysis.zarr*", "run/train/metrics.jsonl"], ids=["ingest", "train"])
def test_a_chain_told_to_stop_exits_with_the_code_that_requeues_and_goes_on(tmp_path, pattern):
    path = tiny_experiment(tmp_path)
    text = (
        path.read_text()
        .replace("updates: 30", "updates: 400")
        .replace("save_every: 10", "save_every: 5\n  log_every: 2")
    )
    path.write_text(text)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "run", str(path)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not list(tmp_path.glob(pattern)):
        time.sleep(0.01)
    while process.poll() is None:  # as srun does when another task has ended
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    said = process.stderr.read()
    assert process.returncode == EX_TEMPFAIL, said
    assert "start again to go on" in said and "Traceback" not in said
    if "train" in pattern:
        assert list((tmp_path / "run" / "train").glob("state-*"))
        return
    assert main(["ingest", str(path)]) == 0
