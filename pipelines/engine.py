"""Where Dask works: threads of this process, a local cluster, Slurm jobs, or a scheduler that is already there."""

import contextlib
import itertools
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import dask

from pipelines import slurm
from pipelines.config import DaskConfig

CONNECT_SECONDS = 20
POLL_SECONDS = 5  # between looks whether Slurm's jobs are still there, while no task ends

log = logging.getLogger(__name__)

# map(function, list of argument tuples, report(done)) -> results in order
Map = Callable[[Callable, Sequence[tuple], Callable[[int], None]], list]


@contextmanager
def workers(config: DaskConfig) -> Iterator[Map]:
    """Yields a `map` over independent tasks; the first one that fails raises its error here."""
    if _is_here(config):
        yield lambda function, arguments, report: _in_threads(function, arguments, report, config.threads)
        return
    from distributed import Client, LocalCluster

    threads = config.workers * config.threads
    if config.address is not None:
        with _client(config.address) as client:
            log.info("Dask: %s", config.address)
            yield lambda function, arguments, report: _on_cluster(client, function, arguments, report)
        return
    if config.slurm is not None:
        with _slurm_cluster(config) as cluster, Client(cluster) as client:
            _check_script(cluster.job_script())
            cluster.scale(jobs=config.workers)
            log.info("Dask: %d Slurm jobs of %d threads, waiting for the first", config.workers, config.threads)

            def alive() -> None:
                _check_jobs(client, cluster)

            while not client.nthreads():
                with contextlib.suppress(TimeoutError):
                    client.wait_for_workers(1, timeout=POLL_SECONDS)
                alive()
            yield lambda function, arguments, report: _on_cluster(client, function, arguments, report, threads, alive)
        return
    memory = config.memory or "auto"
    options = {"n_workers": config.workers, "threads_per_worker": config.threads, "memory_limit": memory}
    with LocalCluster(**options, dashboard_address=None) as cluster, Client(cluster) as client:
        log.info("Dask: %d workers of %d threads", config.workers, config.threads)
        yield lambda function, arguments, report: _on_cluster(client, function, arguments, report, threads)


@contextmanager
def scheduler(config: DaskConfig) -> Iterator[int]:
    """Where `dask.compute` works inside the block, as `workers` has it; yields how many tasks go on at a time."""
    with workers(config):
        if _is_here(config):
            with dask.config.set(scheduler="threads", num_workers=config.threads):
                yield config.threads
            return
        from distributed import default_client

        # A client is Dask's scheduler for as long as it lives.
        yield max(config.workers * config.threads, sum(default_client().nthreads().values()))


def _is_here(config: DaskConfig) -> bool:
    return config.address is None and config.slurm is None and config.workers == 0


def _client(address: str):
    """A client of a scheduler that is already there. Raises `ValueError` with one sentence when none answers."""
    from distributed import Client

    try:
        return Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"Expected a Dask scheduler that answers at {address}, got: {text}") from None


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


def _in_threads(function, arguments, report, threads) -> list:
    """In threads of this process, a bounded number of tasks ahead. After an error those that have begun end, and no other."""
    results: list = [None] * len(arguments)
    waiting = iter(enumerate(arguments))
    running: dict = {}
    done = 0
    with ThreadPoolExecutor(threads, "worker") as pool:
        while True:
            for index, task in itertools.islice(waiting, 2 * threads - len(running)):
                running[pool.submit(function, *task)] = index
            if not running:
                return results
            try:
                for future in wait(running, return_when="FIRST_COMPLETED").done:
                    results[running.pop(future)] = future.result()
                    done += 1
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            report(done)


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


def _on_cluster(client, function, arguments, report, threads=0, alive: Callable[[], None] | None = None) -> list:
    """A bounded number of tasks are on their way at a time, so that a million of them need no memory here.

    `threads` are those to expect: more workers may come than there are at first. `alive` raises an error when none can.
    """
    from distributed import wait

    results: list = [None] * len(arguments)
    waiting = iter(enumerate(arguments))
    ahead = 4 * max(1, threads, sum(client.nthreads().values()))
    running: dict = {}
    done = 0
    while True:
        for index, task in itertools.islice(waiting, ahead - len(running)):
            running[client.submit(function, *task, pure=False)] = index
        if not running:
            return results
        try:
            ended = wait(list(running), timeout=POLL_SECONDS, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            if alive is not None:
                alive()
            continue
        for future in ended:
            if future.status == "error":
                wait(list(running))
            results[running.pop(future)] = future.result()
            done += 1
        report(done)
