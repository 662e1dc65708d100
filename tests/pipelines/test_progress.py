"""Progress lines: what is left is the stage's own word, or the pace of what this start has done."""

import pytest

from pipelines import progress as module
from pipelines.progress import progress


@pytest.fixture
def clock(monkeypatch):
    """The time that the module sees, in a list of one."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_the_pace_is_that_of_this_start(clock, caplog):
    caplog.set_level("INFO", "pipelines.progress")
    with progress("stage", 100, start=50) as report:
        clock[0] += 3000  # the first step compiles; it is no measure of the others
        report(51)
        clock[0] += 18
        report(60)
        clock[0] += 20
        report(90, "nearly", left=7)
        report(100)
    assert [r.message for r in caplog.records] == [
        "stage 51 of 100",
        "stage 60 of 100, about 80 s left",
        "stage 90 of 100, about 7 s left; nearly",
        "stage 100 of 100",
    ]


def test_a_bar_for_a_person_tells_the_same(clock, monkeypatch, capsys):
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True, raising=False)
    with progress("stage", 100) as report:
        report(1)
        clock[0] += 18
        report(10, "text")
        clock[0] += 20
        report(20, "text", left=3700)
    assert "left 1:01:40" in capsys.readouterr().err
