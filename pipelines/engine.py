"""Where Dask works: threads of this process, a local cluster, Slurm jobs, or a scheduler that is already there."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import dask

from pipelines.config import DaskConfig

CONNECT_SECONDS = 20

log = logging.getLogger(__name__)

# map(function, list of argument tuples, report(done)) -> results in order
Map = Callable[[Callable, Sequence[tuple], Callable[[int], None]], list]


@contextmanager
def workers(config: DaskConfig) -> Iterator[Map]:
    """Yields a `map` over independent tasks; the first one that fails raises its error here."""
    if config.address is None and config.slurm is None and config.workers == 0:
        yield lambda function, arguments, report: _in_batches(function, arguments, report, config.threads)
        return
    from distributed import Client, LocalCluster

    if config.address is not None:
        with _client(config.address) as client:
            log.info("Dask: %s", config.address)
            yield lambda function, arguments, report: _on_cluster(client, function, arguments, report)
        return
    if config.slurm is not None:
        with _slurm_cluster(config) as cluster, Client(cluster) as client:
            cluster.scale(jobs=config.workers)
            log.info("Dask: %d Slurm jobs of %d threads", config.workers, config.threads)
            client.wait_for_workers(1)
            yield lambda function, arguments, report: _on_cluster(client, function, arguments, report)
        return
    memory = config.memory or "auto"
    options = {"n_workers": config.workers, "threads_per_worker": config.threads, "memory_limit": memory}
    with LocalCluster(**options, dashboard_address=None) as cluster, Client(cluster) as client:
        log.info("Dask: %d workers of %d threads", config.workers, config.threads)
        yield lambda function, arguments, report: _on_cluster(client, function, arguments, report)


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


def _attempt(function: Callable, *arguments) -> tuple:
    """A task's result and its error: the others of its batch end before the error is raised, and leave nothing behind."""
    try:
        return function(*arguments), None
    except Exception as error:  # raised again by the caller
        return None, error


def _in_batches(function, arguments, report, threads) -> list:
    results: list = []
    size = 4 * threads
    for start in range(0, len(arguments), size):
        batch = [
            dask.delayed(_attempt, pure=False, traverse=False)(function, *a) for a in arguments[start : start + size]
        ]
        for result, error in dask.compute(*batch, scheduler="threads", num_workers=threads):
            if error is not None:
                raise error
            results.append(result)
        report(len(results))
    return results


def _on_cluster(client, function, arguments, report) -> list:
    """A bounded number of tasks are on their way at a time, so that a million of them need no memory here."""
    from distributed import as_completed, wait

    results: list = [None] * len(arguments)
    waiting = iter(enumerate(arguments))
    ahead = 4 * max(1, sum(client.nthreads().values()))
    queue, running = as_completed(), {}

    def submit() -> None:
        for index, task in waiting:
            future = client.submit(function, *task, pure=False)
            running[future.key] = index, future
            queue.add(future)
            return

    for _ in range(ahead):
        submit()
    for done, future in enumerate(queue, start=1):
        index, _ = running.pop(future.key)
        if future.status == "error":
            wait([other for _, other in running.values()])
        results[index] = future.result()
        report(done)
        submit()
    return results
