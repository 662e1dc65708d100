"""What the doctor says, alone and of two processes."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import pipelines.doctor
from emulator.kernels import library
from emulator.parallel.processes import Processes
from emulator.parallel.rates import exchange_latency, exchange_rate, product_rate
from pipelines.doctor import EXTRAS

ROOT = Path(__file__).resolve().parents[2]


def doctor(size: int) -> list[str]:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = str(opened.getsockname()[1])
    started = []
    for rank in range(size):
        world = {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {**os.environ, **world, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "pipelines.cli", "doctor"]
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=200)[0] for process in started]
    assert [process.returncode for process in started] == [0] * size
    return said


def test_two_processes_say_where_they_are_and_what_lies_between_them():
    first, second = doctor(2)
    assert second == ""
    assert f"0 on {socket.gethostname()} (" in first and f"1 on {socket.gethostname()} (" in first
    assert f"torch {torch.__version__.partition(chr(43))[0]}" in first and "2 processes by" in first
    products, between = re.search(r"float32 ([\d,]+) GFLOP/s", first), re.search(r"([\d.]+) GB/s, (\d+) micro", first)
    assert int(products[1].replace(",", "")) >= 1 and float(between[1]) > 0 and int(between[2]) > 0


def test_one_process_names_its_extras_cores_and_memory(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jcm" else find(name))
    said = {line.split()[0]: line for line in pipelines.doctor.doctor()}
    named = said["extras"].split(maxsplit=1)[1].split(", ")
    assert ("networks" in said) == (find("torch_harmonics") is None)
    assert "gcm" not in named and named == [
        extra for module, extra in EXTRAS.items() if importlib.util.find_spec(module)
    ]
    assert f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores" in said["machine"]
    total = next(int(line.split()[1]) * 1024 for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    assert f"{total / 1e9:.0f} GB" in said["machine"]
    assert ("compiled" in said["kernels"]) == (library.LIBRARY is not None)
    assert "one process" in said["network"] and f"{torch.get_num_threads()} threads" in said["device"]


def test_every_extra_that_a_stage_may_lack_is_one_of_the_packages():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS.values()) <= set(extras)


def test_products_are_counted_as_additions_and_multiplications():
    assert product_rate(torch.device("cpu"), torch.float32, size=64, repeats=1) > 1e6


@pytest.mark.parametrize("measure", [exchange_rate, exchange_latency])
def test_one_process_has_nothing_to_measure_between(measure):
    with pytest.raises(ValueError, match="two processes"):
        measure(Processes(), torch.device("cpu"))
