"""SIGTERM and SIGUSR1 end every stage with the code that requeues, whenever and however often they come; Ctrl-C does not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_experiment import tiny_experiment

from emulator.files.interruption import Interrupted
from pipelines.cli import EX_TEMPFAIL, main
from pipelines.signals import stopping_at_once, stopping_when_asked

ROOT = Path(__file__).resolve().parents[2]


def test_a_signal_stops_what_is_under_way_and_the_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGUSR1"), stopping_at_once(restore=True):
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) is before


class Asked:
    """A sequence of one number, at which something happens when it is read."""

    def __init__(self, happens):
        self.happens = happens

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.happens()


def signalled() -> float:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    return 1.0


def test_an_error_that_a_library_makes_of_a_signal_is_one_of_a_stop():
    """Torch forgets what was raised while it read a sequence, and raises its own."""
    with pytest.raises(ValueError, match="could not determine the shape of object type"), stopping_at_once(True):
        torch.tensor(Asked(lambda: [][0]))  # without a signal it stays that
    with pytest.raises(Interrupted, match="stopped by SIGTERM; start again to go on") as stop:
        with stopping_at_once(restore=True):
            torch.tensor(Asked(signalled))
    assert "could not determine the shape" in str(stop.value.__cause__)


def test_a_loop_asks_and_then_the_handlers_around_it_come_back():
    with pytest.raises(Interrupted, match="SIGTERM"), stopping_at_once(restore=True):
        with stopping_when_asked() as asked:
            assert not asked()
            os.kill(os.getpid(), signal.SIGTERM)
            assert asked()
        os.kill(os.getpid(), signal.SIGTERM)


def test_ctrl_c_is_asked_for_once_and_ends_at_once_the_second_time(capfd):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="after update 3"), stopping_when_asked() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert asked()
        raise Interrupted("stopped after update 3")
    assert "Ctrl-C again ends at once" in capfd.readouterr().err
    with pytest.raises(KeyboardInterrupt, match="^$"), stopping_when_asked() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
        raise AssertionError("it went on")
    with pytest.raises(Interrupted), stopping_when_asked() as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked()
        raise Interrupted("stopped")
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_saves_the_training_and_it_goes_on(tmp_path):
    path = tiny_experiment(tmp_path)
    path.write_text(path.read_text().replace("updates: 30", "updates: 4000").replace("save_every: 10", "log_every: 2"))

    def stopped_after(sign: str) -> list[str]:
        """The lines of a run that is stopped once it has said `sign`."""
        command = [sys.executable, "-m", "pipelines.cli", "run", str(path)]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        lines = []
        for line in process.stderr:
            lines.append(line.strip())
            if sign in line:
                process.send_signal(signal.SIGINT)
        assert process.wait() == 130 and "Traceback" not in "".join(lines), lines
        return lines

    said = stopped_after("train 2 of 4006")[-1]
    (state,) = (tmp_path / "run" / "train").glob("state-*")
    update = int(state.name.removeprefix("state-"))
    assert said == f"stopped after update {update} of 4006; start again to go on"
    again = stopped_after(f"resuming after update {update}")
    assert again[-1].startswith("stopped after update ")


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


@pytest.fixture
def interruptible():
    """Ctrl-C as in a terminal: a process that a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_signal_that_comes_when_the_loop_has_ended_stops_what_follows(interruptible):
    with pytest.raises(Interrupted, match="SIGTERM"), stopping_at_once(restore=True):
        with stopping_when_asked():
            os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the next stage began")
    with pytest.raises(KeyboardInterrupt):
        with stopping_when_asked():
            os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the next stage began")
