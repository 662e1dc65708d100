"""Where Dask works: threads of this process, a local cluster, Slurm jobs, or a scheduler that is already there."""

import contextlib
import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

import dask

from emulator.parallel.tasks import Over
from pipelines.config import DaskConfig
from pipelines.dask_on_slurm import slurm_workers

CONNECT_SECONDS = 20
POLL_SECONDS = 5  # between looks whether Slurm's jobs are still there, while no task ends

log = logging.getLogger(__name__)


@contextmanager
def workers(config: DaskConfig) -> Iterator[Over]:
    """Yields a `map` over independent tasks; the first one that fails raises its error here."""
    if _is_here(config):
        yield functools.partial(_in_threads, threads=config.threads)
        return
    with contextlib.ExitStack() as stack:
        more = {} if config.address is not None else {"threads": config.workers * config.threads}
        if config.address is not None:
            client = stack.enter_context(_client(config.address))
            log.info("Dask: %s", config.address)
        elif config.slurm is not None:
            client, more["alive"] = stack.enter_context(slurm_workers(config, POLL_SECONDS))
        else:
            client = stack.enter_context(_local_workers(config))
        yield functools.partial(_on_cluster, client, **more)


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


def _bounded(submit, arguments, report, ahead: int, ended: Callable[[list], Sequence]) -> list:
    """Results in order, at most `ahead` tasks on their way at a time, so that a million of them need no memory here.

    `submit(*task)` gives a future; `ended(futures)` waits for some, or for long enough.
    """
    results: list = [None] * len(arguments)
    waiting, running, done = iter(enumerate(arguments)), {}, 0
    while True:
        for index, task in itertools.islice(waiting, ahead - len(running)):
            running[submit(*task)] = index
        if not running:
            return results
        if complete := ended(list(running)):
            for future in complete:
                results[running.pop(future)] = future.result()
                done += 1
            report(done)


@contextmanager
def _local_workers(config: DaskConfig):
    from distributed import Client, LocalCluster

    options = {
        "n_workers": config.workers,
        "threads_per_worker": config.threads,
        "memory_limit": config.memory or "auto",
    }
    with LocalCluster(**options, dashboard_address=None) as cluster, Client(cluster) as client:
        log.info("Dask: %d workers of %d threads", config.workers, config.threads)
        yield client


def _in_threads(function, arguments, report, threads) -> list:
    """In threads of this process. After an error those that have begun end, and no other."""
    with ThreadPoolExecutor(threads, "worker") as pool:
        submit = functools.partial(pool.submit, function)
        try:
            return _bounded(
                submit, arguments, report, 2 * threads, lambda f: wait(f, return_when="FIRST_COMPLETED").done
            )
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _on_cluster(client, function, arguments, report, threads=0, alive: Callable[[], None] = lambda: None) -> list:
    """`threads` are those to expect: more workers may come than there are at first. `alive` raises where none can."""
    from distributed import wait

    def ended(futures: list) -> Sequence:
        try:
            complete = wait(futures, timeout=POLL_SECONDS, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            alive()
            return ()
        if any(future.status == "error" for future in complete):
            wait(futures)
        return complete

    submit = functools.partial(client.submit, function, pure=False)
    return _bounded(submit, arguments, report, 4 * max(1, threads, sum(client.nthreads().values())), ended)
