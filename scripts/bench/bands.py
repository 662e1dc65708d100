"""A training step of one state over 1, 2, 4, ... processes of one thread each: peak memory, processor time, bytes fetched.

Beside the memory stands what `emulator train --check` would tell of it.

Memory is the highest resident memory of a process during the steps less what it had before them, with the network made; of
all processes the most. Bytes are what a process receives from others in a step, of all processes the most.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist

from emulator.kernels import freed_memory
from emulator.networks import registry
from emulator.networks.cost import resident
from emulator.parallel import space as spaces
from emulator.parallel.rates import most_held
from emulator.planet.grid import Grid
from emulator.training.memory import most_of_processes

CASES = {
    "sfno": ({"kind": "sfno", "embed_dim": 64, "blocks": 4}, Grid.gaussian(128)),
    "unet": ({"kind": "unet", "width": 32, "depth": 3}, Grid.equiangular(193, 384, poles=True)),
    "fuxi": (
        {"kind": "fuxi", "width": 96, "blocks": 6, "heads": 6, "window": 8, "patch": 1},
        Grid.equiangular(97, 192, poles=True),
    ),
    "wxformer": (
        {"kind": "wxformer", "widths": [32, 64, 128], "near": 8, "far": [8, 6, 6]},
        Grid.equiangular(145, 288, poles=True),
    ),
    "graph": ({"kind": "graph", "width": 128, "rounds": 6, "refinement": 5}, Grid.gaussian(96)),
}
CHANNELS = 16


def _memory(name: str) -> int:
    """Resident memory of this process now (`VmRSS`) or at its highest (`VmHWM`), bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def _step(network, x):
    network(x).square().sum().backward()
    network.zero_grad(set_to_none=True)


def _process(rank, size, folder, case, arguments):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    freed_memory.keep()
    space = spaces.Space(dist.group.WORLD if size > 1 else None)
    config, grid = CASES[case]
    torch.manual_seed(0)
    network = registry.build({**config, **json.loads(arguments.options)}, CHANNELS, CHANNELS, grid, space)
    x = torch.randn(arguments.batch, CHANNELS, *grid.shape)[:, :, space.band(grid.shape[0])].clone()
    received, exchange = [], spaces._exchange

    def counted(rows, sent, counts, group):
        each = rows.shape[1:].numel() * rows.element_size()
        received.append(each * (sum(counts) - counts[space.rank]))
        return exchange(rows, sent, counts, group)

    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest is counted from here on
    _step(network, x)
    spaces._exchange = counted
    _step(network, x)
    spaces._exchange = exchange
    taken, waited = [], []
    for _ in range(arguments.repeats):
        dist.barrier()
        start = time.process_time(), time.perf_counter()
        _step(network, x)
        taken.append(time.process_time() - start[0])
        waited.append(time.perf_counter() - start[1])
    result = {
        "peak_mib": (_memory("VmHWM") - before) / 2**20,
        "held_mib": before / 2**20,
        "cpu_seconds": statistics.median(taken),
        "seconds": statistics.median(waited),
        "received_bytes": sum(received),
        "exchanges": len(received),
    }
    Path(folder, str(rank)).write_text(json.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


def told(size: int, case: str, arguments) -> float:
    """Resident memory of a step in MiB as `--check` counts it: of a sample, times the batch, and gradients of the weights."""
    config, grid = CASES[case]
    weights = []

    def held(space):
        network = registry.build({**config, **json.loads(arguments.options)}, CHANNELS, CHANNELS, grid, space)
        x = torch.zeros(1, CHANNELS, *grid.shape)[:, :, space.band(grid.shape[0])].clone()
        weights.append(sum(parameter.nbytes for parameter in network.parameters()))
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        return most_held(lambda: _step(network, x))

    return resident(most_of_processes(held, size) * arguments.batch + weights[0]) / 2**20


def measured(size: int, case: str, arguments) -> dict:
    """The most of all processes."""
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        started = [context.Process(target=_process, args=(n, size, folder, case, arguments)) for n in range(size)]
        for process in started:
            process.start()
        for process in started:
            process.join()
        results = [json.loads(Path(folder, str(n)).read_text()) for n in range(size)]
    most = {name: max(result[name] for result in results) for name in results[0]}
    most["told_mib"] = told(size, case, arguments)
    return {"case": case, "processes": size} | {name: round(value, 3) for name, value in most.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--options", default="{}", help="of the network, as JSON")
    arguments = parser.parse_args()
    for case in arguments.cases:
        for size in arguments.sizes:
            print(json.dumps(measured(size, case, arguments)), flush=True)


if __name__ == "__main__":
    main()
