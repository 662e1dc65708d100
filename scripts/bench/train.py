"""Training: updates a second of one process against two, the share of the time spent waiting for data, and the share of
the machine's rate of matrix products. The fields are closed-form waves on the quickstart's grid, read from memory.

`ours` of the scaling is samples a second of two processes of half the threads, `peer` of one process of all of them, with
the same global batch.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measure
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from small_planet import small_planet  # noqa: E402
from small_training import VALUES, trainer  # noqa: E402

from emulator.model.assemble import input_count  # noqa: E402
from emulator.networks import cost  # noqa: E402
from emulator.parallel.distributed import device_of, process_group  # noqa: E402
from emulator.parallel.processes import processes_of  # noqa: E402
from emulator.training.options import TrainOptions  # noqa: E402
from emulator.training.recipe import Recipe  # noqa: E402
from emulator.training.trainer import Trainer  # noqa: E402

UPDATES, WARM, BATCH = 14, 4, 4


def quickstart(directory: Path, processes, device) -> Trainer:
    """The quickstart's network and corrections on waves of 48 x 96 cells and 8 levels."""
    planet = small_planet(times=40, nlat=48, levels=8)
    phases = [{"updates": UPDATES, "batch_size": BATCH}]
    network = {"kind": "sfno", "embed_dim": 64, "blocks": 4, "scale_factor": 1.5}
    own = {"prognostic": None, "network": network, "phases": phases, "save_every": 10**6, "log_every": 1, "ema": 0.0}
    config = TrainOptions.of(VALUES | own)
    return trainer(planet, directory, Recipe.of(config), "bench", config=config, processes=processes, device=device)


def one(arguments, case: dict) -> dict | None:
    """Train as the process that the environment says; the first one reports."""
    processes = processes_of(os.environ)
    torch.set_num_threads(case["threads"])
    device = device_of(processes) if arguments.device != "cpu" else torch.device("cpu")
    with tempfile.TemporaryDirectory() as directory, process_group(processes, device, 120):
        made, marks = quickstart(Path(directory), processes, device), []
        made.run(lambda row: marks.append((time.perf_counter(), row["data_wait_share"])))
    steps = sorted(b[0] - a[0] for a, b in zip(marks[WARM:], marks[WARM + 1 :], strict=False))
    if processes.rank:
        return None
    result = {"samples_per_second": BATCH / steps[len(steps) // 2], "data_wait_share": marks[-1][1]}
    return result | ({"operations": operations(made)} if processes.size == 1 else {})


def operations(made: Trainer) -> float:
    """Additions and multiplications of the matrix products of one update, the network's alone."""
    step, phase = made.step, made.recipe.phases[0]
    space = step.static.shape[1:]
    return phase.work * cost.products(step.network, input_count(step.layout), tuple(space))


def together(arguments, size: int) -> dict:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = str(opened.getsockname()[1])
    threads = max(1, arguments.threads // size)
    command = [sys.executable, __file__, "--device", arguments.device, "--one", json.dumps({"threads": threads})]
    started = []
    for rank in range(size):
        processes = {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        processes |= {"OMP_NUM_THREADS": str(threads), "LOCAL_RANK": str(rank)}
        started.append(subprocess.Popen(command, env=os.environ | processes, stdout=subprocess.PIPE, text=True))
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"a training in {size} processes failed")
    return json.loads(said[0].splitlines()[-1])


def rows(arguments):
    limit = measure.product_rate(device=arguments.device) * 1e9
    alone, two = together(arguments, 1), together(arguments, 2)
    ours, peer = two["samples_per_second"], alone["samples_per_second"]
    scaling = {"case": "two processes against one, same batch", "ours": round(ours, 2), "peer": round(peer, 2)}
    yield scaling | {"ratio": round(ours / peer, 3), "unit": "samples/s"}
    for name, found in (("one process", alone), ("two processes", two)):
        wait = found["data_wait_share"]
        yield {
            "case": f"share of time waiting for data, {name}",
            "ours": wait,
            "peer": None,
            "ratio": None,
            "unit": "1",
        }
    rate = alone["operations"] / BATCH * peer
    share = {"case": "matrix products of an update against the machine's rate", "ours": round(rate / 1e9, 2)}
    yield share | {"peer": round(limit / 1e9, 2), "ratio": round(rate / limit, 3), "unit": "GFLOP/s"}


def main() -> None:
    arguments = measure.parser(__doc__).parse_args()
    measure.prepare(arguments)
    if arguments.one:
        result = one(arguments, json.loads(arguments.one))
        if result is not None:
            print(json.dumps(result))
        return
    measure.report(arguments, rows(arguments))


if __name__ == "__main__":
    main()
