"""Which of the processes of one run this is, and where they meet, from the variables that a launcher sets. Needs no torch."""

import dataclasses
import re
from collections.abc import Mapping

DEFAULT_PORT = 29500
PORTS = range(20000, 60000)  # a job takes one by its number, so that jobs on one node do not meet


@dataclasses.dataclass(frozen=True)
class Processes:
    """The processes of one run.

    Attributes:
      rank, size: number of this process, from 0, and how many there are.
      local_rank: number of this process on its node, which chooses its GPU.
      address, port: where the first process listens.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    address: str = "127.0.0.1"
    port: int = DEFAULT_PORT

    def divided(self, together: int) -> "Processes":
        """The spaces of so many consecutive processes, which hold a state together: the number of this one's, and how many.

        Raises `ValueError` where the processes do not divide into them.
        """
        if self.size % together:
            raise ValueError(
                f"Expected processes in groups of {together} that hold a state together (parallel.space), got {self.size}"
            )
        return dataclasses.replace(self, rank=self.rank // together, size=self.size // together)


def processes_of(environment: Mapping[str, str]) -> Processes:
    """The processes that a launcher describes in the environment: torchrun's variables first, else those of a Slurm step.

    A Slurm batch script that starts the program without `srun` is one process, however many tasks the job has. Raises
    `ValueError` for an incomplete or impossible description.
    """
    if "RANK" in environment or "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        if missing := [name for name in names[:2] if name not in environment]:
            raise ValueError(f"Expected RANK and WORLD_SIZE from the launcher, got no {missing[0]}")
        rank, size = (_number(environment, name) for name in names[:2])
        local = _number(environment, "LOCAL_RANK") if "LOCAL_RANK" in environment else 0
        address, port = "127.0.0.1", DEFAULT_PORT
    elif "SLURM_STEP_NUM_TASKS" in environment and "SLURM_PROCID" in environment:
        rank, size = _number(environment, "SLURM_PROCID"), _number(environment, "SLURM_STEP_NUM_TASKS")
        local = _number(environment, "SLURM_LOCALID") if "SLURM_LOCALID" in environment else 0
        address = first_host(environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", ""))
        job, step = (_number(environment, n) if n in environment else 0 for n in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        port = PORTS[(97 * job + step) % len(PORTS)]
    else:
        return Processes()
    if not 0 <= rank < size:
        raise ValueError(f"Expected a rank from 0 to below the number of processes, got rank {rank} of {size}")
    address = environment.get("MASTER_ADDR", address)
    port = _number(environment, "MASTER_PORT") if "MASTER_PORT" in environment else port
    return Processes(rank, size, local, address, port)


def first_host(nodes: str) -> str:
    """The first name of Slurm's short form of a list of nodes, such as `gpu[003-004,7],login`."""
    head = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    if not head:
        raise ValueError(f"Expected names of nodes from Slurm, got {nodes!r}")
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", head[0])


def _number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError:
        raise ValueError(f"Expected a whole number in {name}, got {environment[name]!r}") from None
