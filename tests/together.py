"""Functions of tests in several processes that hold one state together (gloo), one thread each.

The processes are forked from one that has imported what they need, since importing it costs more than most tests.
"""

import importlib
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

TESTS = Path(__file__).resolve().parent
IMPORTED = ["emulator.training.run", "torch.distributed", "pytest"]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def together(size: int, function, *arguments, timeout: float = 240) -> list:
    """What `function(space, *arguments)` gives in each of `size` processes, in order of rank.

    The function stands in a module of the tests under a name, whose `in_every_process`, if it has one, is called first;
    arguments and results are what torch can save. Raises `AssertionError` with what a process that failed wrote.
    """
    module = str(Path(sys.modules[function.__module__].__file__))
    with tempfile.TemporaryDirectory() as folder:
        torch.save(arguments, Path(folder) / "arguments")
        ranks = [(folder, size, module, function.__name__, rank) for rank in range(size)]
        codes = forked(_member, ranks, [{}] * size, timeout)
        errors = [path.read_text() for path in sorted(Path(folder).glob("error-*"))]
        assert codes == [0] * size, "\n".join([f"exit codes {codes}", *errors])
        return [torch.load(Path(folder) / f"result-{rank}", weights_only=False) for rank in range(size)]


def forked(
    function: Callable, arguments: Sequence[tuple], environments: Sequence[Mapping[str, str]], timeout: float
) -> list[int | None]:
    """Exit codes of processes that each call a function of a module; None of one that had not ended after `timeout` s."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    started = []
    for own, environment in zip(arguments, environments, strict=True):
        whole = {**os.environ, **ONE_THREAD, **environment}
        started.append(context.Process(target=_process, args=(whole, function, own)))
    end = time.monotonic() + timeout
    try:
        for process in started:
            process.start()
        for process in started:
            process.join(max(end - time.monotonic(), 0))
        return [process.exitcode for process in started]
    finally:
        for process in started:
            process.kill()


def _process(environment, function, arguments) -> None:
    os.environ.clear()  # the process that it was forked from may know another
    os.environ.update(environment)
    os.chdir(TESTS.parent)
    torch.set_num_threads(1)
    function(*arguments)


def _member(folder, size, module, name, rank) -> None:
    import torch.distributed as dist

    from emulator.parallel.space import Space

    try:
        sys.path[:0] = [str(TESTS.parent), str(TESTS), str(Path(module).parent)]
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
        arguments = torch.load(Path(folder) / "arguments", weights_only=False)
        tests = importlib.import_module(Path(module).stem)
        getattr(tests, "in_every_process", lambda: None)()
        result = getattr(tests, name)(Space(dist.group.WORLD), *arguments)
        torch.save(result, Path(folder) / f"result-{rank}")
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        (Path(folder) / f"error-{rank}").write_text(traceback.format_exc())
        raise
