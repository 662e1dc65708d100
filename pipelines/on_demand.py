"""What a stage hands to the library: workers and a progress display that start with the first task, so that a stage with
nothing left to do starts neither."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from emulator.parallel.tasks import Over, Report
from pipelines.config import DaskConfig
from pipelines.engine import workers
from pipelines.progress import progress


@contextmanager
def reporting(title: str) -> Iterator[Report]:
    """Yields `report(done, total, remark="")`; its first call tells where the display starts."""
    with ExitStack() as stack:
        show = None

        def report(done: int, total: int, remark: str = "") -> None:
            nonlocal show
            if show is None:
                show = stack.enter_context(progress(title, total, start=done))
            else:
                show(done, remark)

        yield report


@contextmanager
def working(dask: DaskConfig, title: str) -> Iterator[tuple[Over, Report]]:
    """Yields `over`, which runs tasks where `dask` says, and `report`."""
    with ExitStack() as stack, reporting(title) as report:
        run = None

        def over(function, arguments, done) -> list:
            nonlocal run
            if not arguments:
                return []
            if run is None:
                run = stack.enter_context(workers(dask))
            return run(function, arguments, done)

        yield over, report
