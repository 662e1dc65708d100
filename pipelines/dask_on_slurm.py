"""Dask's workers as Slurm jobs: asked for, and looked after while no task ends."""

import contextlib
import functools
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines import slurm
from pipelines.config import DaskConfig

log = logging.getLogger(__name__)


@contextlib.contextmanager
def slurm_workers(config: DaskConfig, poll_seconds: float) -> Iterator[tuple]:
    """A client with at least one worker, and what raises `ValueError` once there is none and none can come."""
    from distributed import Client

    with _slurm_cluster(config) as cluster, Client(cluster) as client:
        _check_script(cluster.job_script())
        cluster.scale(jobs=config.workers)
        log.info("Dask: %d Slurm jobs of %d threads, waiting for the first", config.workers, config.threads)
        alive: Callable[[], None] = functools.partial(_check_jobs, client, cluster)
        while not client.nthreads():
            with contextlib.suppress(TimeoutError):
                client.wait_for_workers(1, timeout=poll_seconds)
            alive()
        yield client, alive


def _slurm_cluster(config: DaskConfig):
    """Workers as Slurm jobs. Raises `ValueError` without the package that submits them, or without any worker."""
    if config.workers == 0:
        raise ValueError("Expected at least one of dask.workers to submit to Slurm, got 0")
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise ValueError("Expected dask-jobqueue for dask.slurm; install the extra emulator[slurm]") from None
    asked = config.slurm
    return SLURMCluster(
        cores=config.threads,
        processes=1,
        memory=config.memory or "8GB",
        queue=asked.partition,
        account=asked.account,
        walltime=asked.walltime,
        job_extra_directives=list(asked.options),
        job_script_prologue=list(asked.setup),
    )


def _check_script(text: str) -> None:
    """Raises `ValueError` with Slurm's words where it would not take the jobs: they would be waited for without end."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "dask-worker.sh"
        script.write_text(text)
        try:
            slurm.check(script)
        except slurm.SlurmError as error:
            raise ValueError(f"Expected Slurm to take Dask's jobs, got: {' '.join(str(error).split())}") from None


def _check_jobs(client, cluster) -> None:
    """Raises `ValueError` when no worker is left and no job that could become one."""
    jobs = [int(job.job_id) for job in list(cluster.workers.values()) if getattr(job, "job_id", None)]
    if client.nthreads() or not jobs:
        return
    known = slurm.states(jobs)
    if any(entry.state in slurm.WAITS_OR_WORKS for entries in known.values() for entry in entries):
        return
    ends = ", ".join(f"{job} {entry.state}" for job, entries in known.items() for entry in entries)
    raise ValueError(f"Expected Dask's jobs on Slurm to work, got all of them ended ({ends or jobs}); see their output")
