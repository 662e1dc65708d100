"""One process at a time in a folder."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest

from emulator.files.one_writer import Busy, one_writer

HOLD = """
import sys, time
from pathlib import Path
from emulator.files.one_writer import one_writer
with one_writer(Path(sys.argv[1])):
    print("held", flush=True)
    {then}
"""


def holder(folder, then: str) -> subprocess.Popen:
    code = HOLD.format(then=then)
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_who_works_there_and_a_kill_frees_the_folder(tmp_path):
    folder = tmp_path / "new" / "folder"
    process = holder(folder, "time.sleep(100)")
    with pytest.raises(Busy, match=f"{folder}, process {process.pid} on {socket.gethostname()} works there"):
        with one_writer(folder, patience_seconds=0.2):
            raise AssertionError("two writers")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with one_writer(folder, patience_seconds=0):
        pass


def test_a_holder_on_its_way_out_is_waited_for(tmp_path):
    process = holder(tmp_path, "time.sleep(1)")
    with one_writer(tmp_path, patience_seconds=30):
        assert process.wait(10) == 0


def test_a_disk_without_locks_is_trusted(tmp_path, monkeypatch, caplog):
    def refused(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refused)
    with one_writer(tmp_path, patience_seconds=0):
        assert "knows no locks" in caplog.text
