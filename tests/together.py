"""Functions of tests in several processes that hold one state together (gloo), one thread each."""

import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

TESTS = Path(__file__).resolve().parent


def together(size: int, function, *arguments, timeout: float = 240) -> list:
    """What `function(space, *arguments)` gives in each of `size` processes, in order of rank.

    The function stands in a module of the tests under a name, whose `in_every_process`, if it has one, is called first;
    arguments and results are what torch can save. Raises `AssertionError` with what a process that failed wrote.
    """
    module = Path(sys.modules[function.__module__].__file__)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(arguments, Path(folder) / "arguments")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [sys.executable, __file__, folder, str(size), str(module), function.__name__]
        started = [
            subprocess.Popen(
                [*command, str(rank)], env=environment, cwd=TESTS.parent, stderr=subprocess.PIPE, text=True
            )
            for rank in range(size)
        ]
        try:
            errors = [process.communicate(timeout=timeout)[1] for process in started]
        finally:
            for process in started:
                process.kill()
        assert not any(process.returncode for process in started), "\n".join(errors)
        return [torch.load(Path(folder) / f"result-{rank}", weights_only=False) for rank in range(size)]


def main() -> None:
    folder, size, module, name, rank = sys.argv[1:]
    sys.path[:0] = [str(TESTS.parent), str(TESTS), str(Path(module).parent)]
    import torch.distributed as dist

    from emulator.parallel.space import Space

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=int(rank), world_size=int(size))
    arguments = torch.load(Path(folder) / "arguments", weights_only=False)
    tests = importlib.import_module(Path(module).stem)
    getattr(tests, "in_every_process", lambda: None)()
    result = getattr(tests, name)(Space(dist.group.WORLD), *arguments)
    torch.save(result, Path(folder) / f"result-{rank}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
