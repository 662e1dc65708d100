"""Independent tasks and how far they are: what library functions are handed, so that they know no scheduler and no screen."""

from collections.abc import Callable, Sequence

# over(function, argument tuples, report) -> results in order; `report(done)` is called when a task has ended, and the first
# error of a task is raised. `function` and arguments may be sent to another process.
Over = Callable[[Callable, Sequence[tuple], Callable[[int], None]], list]

# report(done, total, remark): the first call tells how much an earlier start has done.
Report = Callable[[int, int, str], None]


def one_by_one(function: Callable, arguments: Sequence[tuple], report: Callable[[int], None]) -> list:
    """All tasks in this thread."""
    results = []
    for done, task in enumerate(arguments, start=1):
        results.append(function(*task))
        report(done)
    return results


def silent(done: int, total: int, remark: str = "") -> None:
    """Nobody watches."""
