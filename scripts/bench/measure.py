"""What the benchmarks share: the machine's line, results as JSON or a table, and a case timed in a process of its own."""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

import torch

from emulator.kernels import freed_memory

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
_clock = {"now": time.perf_counter}


def parser(about: str) -> argparse.ArgumentParser:
    """The arguments of every benchmark."""
    made = argparse.ArgumentParser(description=about.splitlines()[0])
    made.add_argument("--json", action="store_true", help="one JSON object a line")
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--repeats", type=int, default=7)
    made.add_argument(
        "--peers", default="", help="folder with installed peers (pip install --target), if not importable"
    )
    made.add_argument("--device", default="cpu")
    made.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: seconds of processor time, for one thread of a busy machine",
    )
    made.add_argument(
        "--kept", action="store_true", help="peers keep freed memory for their next step too, as our networks do"
    )
    made.add_argument("--one", help=argparse.SUPPRESS)
    return made


def prepare(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    if arguments.kept:
        freed_memory.keep()
    torch.manual_seed(0)
    _clock["now"] = CLOCKS[arguments.clock]
    if arguments.peers:
        sys.path.append(arguments.peers)  # last, so that it adds packages and replaces none


def machine(arguments: argparse.Namespace, **more) -> dict:
    """Machine and versions; on a GPU its name."""
    on = f"{arguments.threads} threads of {_processor()}, {arguments.clock} time"
    if arguments.device != "cpu":
        on = torch.cuda.get_device_name(arguments.device)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "emulator": version("emulator")}
    return {"machine": on, **versions, **more}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as stream:
            fields = dict(line.split(":", 1) for line in stream.read().split("\n\n")[0].splitlines() if ":" in line)
    except OSError:
        return platform.machine()
    named = {key.strip(): value.strip() for key, value in fields.items()}
    return " ".join(named.get(key, "") for key in ("model name", "cpu family", "model")).strip() or platform.machine()


def report(arguments: argparse.Namespace, rows: Iterable[dict], **more) -> None:
    """Print the machine, then every result as it comes."""
    head = machine(arguments, **more)
    print(json.dumps(head) if arguments.json else ", ".join(f"{k} {v}" for k, v in head.items()), flush=True)
    for row in rows:
        if arguments.json:
            print(json.dumps(row), flush=True)
            continue
        rest = {k: v for k, v in row.items() if k not in ("case", "ours", "peer", "ratio", "unit")}
        numbers = "  ".join("-".rjust(9) if row[k] is None else f"{row[k]:9.4g}" for k in ("ours", "peer", "ratio"))
        print(f"{row['case']:52s} {numbers} {row['unit']:4s} {rest or ''}", flush=True)


def row(case: str, ours: float, peer: float | None, unit: str, **more) -> dict:
    """One result; where less is better, `ratio` is the peer's over ours."""
    ratio = None if peer is None else round(peer / ours, 3)
    return {"case": case, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, **more}


def seconds(function: Callable, device: str = "cpu") -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    start = _clock["now"]()
    function()
    if device != "cpu":
        torch.cuda.synchronize()
    return _clock["now"]() - start


def side_by_side(ours: Callable, peer: Callable, repeats: int, device: str = "cpu") -> tuple[float, float, float]:
    """Median seconds of both, called in turn so that a busy machine slows them alike, and the median of the ratios."""
    for _ in range(2):
        ours(), peer()
    pairs = [(seconds(ours, device), seconds(peer, device)) for _ in range(repeats)]
    first, second = zip(*pairs, strict=True)
    return statistics.median(first), statistics.median(second), statistics.median(b / a for a, b in pairs)


def training_step(network: torch.nn.Module, x: torch.Tensor, repeats: int) -> dict:
    """Median seconds of forward, backward and Adam, the process's peak memory in MiB, and parameters."""
    _first_step(x.device)
    before = resident()
    fused = not any(p.is_complex() for p in network.parameters())  # as in training; torch has no fused kernel for those
    optimizer = torch.optim.Adam(network.parameters(), fused=fused)

    def step():
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()

    step(), step()
    taken = statistics.median(seconds(step, x.device.type) for _ in range(repeats))
    if x.device.type != "cpu":
        peak = torch.cuda.max_memory_allocated() / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return {"seconds": taken, "peak_mib": round(peak), "start_mib": round(before), "parameters": parameters}


def _first_step(device: torch.device) -> None:
    """Has torch load what it loads at a process's first step, 180 MiB, which are no network's."""
    layer = torch.nn.Linear(16, 16).to(device)
    optimizer = torch.optim.Adam(layer.parameters(), fused=True)
    layer(torch.ones(1, 16, device=device)).square().mean().backward()
    optimizer.step()


def resident() -> float:
    """Memory that the process holds now, MiB."""
    try:
        with open("/proc/self/statm") as stream:
            return int(stream.read().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        return 0.0


def alone(script: str, case: dict, arguments: argparse.Namespace) -> dict:
    """The result that `script --one CASE` prints, or {"failed": why}: memory peaks are a process's own."""
    shared = [
        "--threads",
        str(arguments.threads),
        "--repeats",
        str(arguments.repeats),
        "--device",
        arguments.device,
        "--clock",
        arguments.clock,
    ]
    shared += ["--kept"] * arguments.kept
    command = [sys.executable, script, *shared, "--peers", arguments.peers, "--one", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"failed": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    return json.loads(lines[-1])


def product_rate(dtype: torch.dtype = torch.float32, size: int = 1536, repeats: int = 5, device: str = "cpu") -> float:
    """GFLOP/s of the fastest square matrix product, the limit that a share refers to."""
    from emulator.kernels.precision import exact_products

    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    with exact_products():
        torch.mm(a, b)
        best = min(seconds(lambda: torch.mm(a, b), device) for _ in range(repeats))
    return 2 * size**3 / best / 1e9


def forget(folder: Path) -> None:
    """Drops the pages of all files of a folder from the cache."""
    for file in folder.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            os.fdatasync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)
