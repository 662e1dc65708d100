"""`emulator doctor`: versions, devices, and measured rates of this machine and of the processes started together on it."""

import importlib.util
import os
import platform
import shutil
import socket
from collections.abc import Iterator

import torch
import torch.distributed as dist

from emulator.kernels import library
from emulator.parallel.distributed import device_of, process_group
from emulator.parallel.processes import Processes, processes_of
from emulator.parallel.rates import copy_rate, exchange_latency, exchange_rate, product_rate
from pipelines.run import provenance

EXTRAS = {"jcm": "gcm", "veros": "ocean", "cfgrib": "grib", "gcsfs": "cloud", "dask_jobqueue": "slurm"}
EXTRAS |= {name: name for name in ("tensorboard", "mlflow")}


def doctor() -> list[str]:
    """Lines to print; only the first of several processes has any. Measures for a few seconds, all processes together."""
    processes = processes_of(os.environ)
    device = device_of(processes)
    with process_group(processes, device, 120):
        places = _places(processes, device)
        lines = [*_machine(), *_device(device), *_between(processes, device)]
    return [*lines[:2], *places, *lines[2:]] if processes.rank == 0 else []


def _machine() -> Iterator[str]:
    program = provenance()
    versions = ", ".join(f"{name} {version}" for name, version in program["versions"].items())
    yield f"program   commit {program['commit']}, Python {program['python']}; {versions}"
    extras = [extra for module, extra in EXTRAS.items() if importlib.util.find_spec(module)]
    yield f"extras    {', '.join(extras) or 'none'}"
    if not importlib.util.find_spec("torch_harmonics"):
        yield "networks  all but torch_harmonics, whose package has wheels for x86-64 Linux alone"
    absent = "none, for want of a C compiler at installation: torch's operations take their place, more slowly"
    yield f"kernels   {'compiled, for float32 on CPU' if library.LIBRARY else absent}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    yield f"machine   {platform.machine()}, {cores} of {os.cpu_count()} cores for this process, {memory:.0f} GB"
    slurm = shutil.which("sbatch")
    job = f", in job {os.environ['SLURM_JOB_ID']}" if "SLURM_JOB_ID" in os.environ else ""
    yield f"slurm     {f'{slurm}{job}' if slurm else 'no sbatch here'}"


def _device(device: torch.device) -> Iterator[str]:
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        yield f"device    {about.name}, {about.total_memory / 1e9:.0f} GB; CUDA {torch.version.cuda}"
    else:
        yield f"device    CPU, {torch.get_num_threads()} threads; CUDA {'not ' * (not torch.cuda.is_available())}available"
    rates = {name: product_rate(device, getattr(torch, name)) for name in ("float32", "bfloat16")}
    yield "products  " + ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in rates.items())
    yield f"memory    {copy_rate(device) / 1e9:,.1f} GB/s read and written by a copy"


def _between(processes: Processes, device: torch.device) -> Iterator[str]:
    available = [name for name in ("nccl", "gloo", "mpi") if getattr(dist, f"is_{name}_available")()]
    if processes.size == 1:
        yield f"network   one process (srun or torchrun start more); backends {', '.join(available)}"
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    interface = os.environ.get(f"{backend.upper()}_SOCKET_IFNAME", "chosen by the library")
    where = f"{processes.address}:{processes.port}"
    yield f"network   {processes.size} processes by {backend}, interface {interface}, meeting at {where}"
    rate, latency = exchange_rate(processes, device), exchange_latency(processes, device)
    yield f"          sum over all: {rate / 1e9:.2f} GB/s, {latency * 1e6:.0f} microseconds for one number"


def _places(processes: Processes, device: torch.device) -> list[str]:
    """Where every process runs."""
    if processes.size == 1:
        return []
    text = f"{processes.rank} on {socket.gethostname()} ({device})".encode()[:128].ljust(128)
    own = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    every = [torch.empty_like(own) for _ in range(processes.size)]
    dist.all_gather(every, own)
    return [f"process   {bytes(each.tolist()).decode(errors='replace').strip()}" for each in every]
