"""A training step of an SFNO of which several processes hold each state: seconds, peak memory, bytes and messages.

Forward, backward and Adam, Gaussian grid, 40 channels in and out. One process with two threads, and one, two and four with
one thread each, in turn, so that a busy machine slows them alike. Memory is what the peak of a process is above its size
before the network is made. What is sent is counted, and beside it stands what docs/benchmarks.md's formula gives.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measure
import torch
import torch.distributed as dist

from emulator.kernels.freed_memory import keep
from emulator.networks.sfno import SFNO, SFNOOptions
from emulator.parallel.space import ALONE, Space

CHANNELS = 40
# rows, channels of the state, blocks, batch, stencil
SIZES = ((64, 64, 4, 4, 1), (128, 64, 4, 4, 1), (128, 64, 4, 4, 3))
WAYS = ((1, 2), (2, 1), (4, 1), (1, 1))  # processes, threads of each


class Sent:
    """Bytes to other processes and messages, by what sends them, counted while it is entered."""

    def __enter__(self):
        self.bytes, self.messages = {"exchanged": 0, "summed": 0}, 0
        self.kept = dist.all_to_all_single, dist.all_reduce
        dist.all_to_all_single, dist.all_reduce = self.exchange, self.reduce
        return self

    def __exit__(self, *error):
        dist.all_to_all_single, dist.all_reduce = self.kept

    def exchange(self, out, x, received, sent, group=None):
        own = sent[dist.get_rank(group)]
        self.bytes["exchanged"] += (sum(sent) - own) * x[:1].nbytes
        self.messages += len(sent) - 1
        self.kept[0](out, x, received, sent, group=group)

    def reduce(self, x, *more, group=None):
        size = dist.get_world_size(group)
        self.bytes["summed"] += 2 * x.nbytes * (size - 1) // size
        self.messages += 2 * (size - 1)
        self.kept[1](x, *more, group=group)


def step_of(network, space, rows, batch, band):
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    x = torch.randn(batch, CHANNELS, band.stop - band.start, 2 * rows)

    def step():
        optimizer.zero_grad()
        (network(x).square().mean() / space.size).backward()
        if space.size > 1:  # a training adds them up in larger messages, and as here without copies
            for parameter in network.parameters():
                dist.all_reduce(parameter.grad, group=space.group)
        optimizer.step()

    return step


def child(size, way, repeats, rank, folder):
    rows, embed, blocks, batch, stencil = size
    torch.set_num_threads(way[1])
    keep()
    space = ALONE
    if way[0] > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=way[0])
        space = Space(dist.group.WORLD)
    torch.manual_seed(0)

    def made(rows, batch, **more):
        options = SFNOOptions(stencil=stencil, **more)
        network = SFNO(CHANNELS, CHANNELS, rows, 2 * rows, options=options, space=space)
        return network, step_of(network, space, rows, batch, space.band(rows))

    made(16, 1, embed_dim=16, blocks=1)[1]()  # libraries are there once
    before = measure.resident()
    network, step = made(rows, batch, embed_dim=embed, blocks=blocks)
    with Sent() as sent:
        step()
    step()
    walls, cpus = [], []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        step()
        walls.append(time.perf_counter() - start[0])
        cpus.append(time.process_time() - start[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lmax, p = network.outer.lmax, way[0]
    found = {
        "seconds": statistics.median(walls),
        "processor_seconds": statistics.median(cpus),
        "least_processor_seconds": min(cpus),
        "mib": round(peak - before),
        **{f"{name}_mib": round(count / 2**20, 2) for name, count in sent.bytes.items()},
        "by_formula_mib": round(4 * blocks * 8 * rows * lmax * embed * batch * (p - 1) / p**2 / 2**20, 2),
        "messages": sent.messages,
        "weights": sum(parameter.numel() for parameter in network.parameters()),
    }
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    if space.size > 1:
        dist.barrier()
        dist.destroy_process_group()


def run(size, way, repeats):
    """The slowest and the largest of a way's processes."""
    with tempfile.TemporaryDirectory() as folder:
        case = json.dumps({"size": size, "way": way, "repeats": repeats, "folder": folder})
        environment = {**os.environ, "OMP_NUM_THREADS": str(way[1]), "MKL_NUM_THREADS": str(way[1])}
        command = [sys.executable, __file__, "--one", case, str(0)]
        processes = [subprocess.Popen([*command[:-1], str(rank)], env=environment) for rank in range(way[0])]
        if any(process.wait() for process in processes):
            raise SystemExit(f"{way[0]} processes of {way[1]} threads failed")
        found = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(way[0])]
    total = sum(result["processor_seconds"] for result in found)
    return {key: max(result[key] for result in found) for key in found[0]} | {"processor_seconds_of_all": total}


def rows(arguments, sizes):
    for size in sizes:
        taken = {way: [] for way in WAYS}
        for _ in range(3):
            for way in WAYS:
                taken[way].append(run(size, way, arguments.repeats))
        alone = taken[1, 2]
        for way in WAYS:
            ratio = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(taken[way], alone, strict=True))
            middle = {key: statistics.median(result[key] for result in taken[way]) for key in taken[way][0]}
            middle["mib"] = max(result["mib"] for result in taken[way])
            yield {
                "case": "rows {}, embed {}, blocks {}, batch {}, stencil {}".format(*size),
                "processes": way[0],
                "threads": way[1],
                "of_one_with_two_threads": round(ratio, 3),
                "of_its_memory": round(middle["mib"] / max(result["mib"] for result in alone), 3),
                **middle,
            }


def main():
    if "--one" in sys.argv:
        case, rank = json.loads(sys.argv[-2]), int(sys.argv[-1])
        return child(case["size"], case["way"], case["repeats"], rank, case["folder"])
    parser = measure.parser(__doc__)
    parser.add_argument("--sizes", default=None, help="numbers of those of SIZES to take, as 0,2")
    arguments = parser.parse_args()
    chosen = SIZES if arguments.sizes is None else [SIZES[int(n)] for n in arguments.sizes.split(",")]
    print(json.dumps(measure.machine(arguments)), flush=True)
    for row in rows(arguments, chosen):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
