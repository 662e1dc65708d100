"""A table with everything that observations can have wrong, through a cycle: counted with its reason, or said."""

import json

import numpy as np
import pytest
import yaml

import emulator as em
from emulator.assimilation.observations import Observations
from emulator.store.analysis import open_analysis
from pipelines.cli import main

TIME = "2001-01-14T06:00"
BAD = {  # reason: what is changed in a good report, a hundredth of a degree away
    "no number": {"value": np.nan},
    "unknown operator": {"operator": "points"},
    "unknown variable": {"variable": "salinity"},
    "error not positive": {"error": -1.0},
    "outside the grid": {"latitude": 95.0},
    "below the ground": {"elevation": -5000.0},
    "duplicate": {},
    "gross error": {"value": 5000.0},
}


@pytest.fixture
def cycled(finished, tmp_path):
    """Runs one window of a free cycle with the observations of a table, and gives its folder."""

    def run(table: Observations, *options: str) -> int:
        run = finished.parent / "run"
        table.write(tmp_path / "observations.parquet")
        values = {
            "store": str(run / "analysis.zarr"),
            "checkpoint": str(run / "train" / "checkpoint"),
            "observations": str(tmp_path / "observations.parquet"),
            "output": str(tmp_path / "cycle"),
            "start": "2001-01-14T00:00",
            "end": TIME,
            "analysis": {"kind": "none"},
        }
        (tmp_path / "cycle.yaml").write_text(yaml.safe_dump(values))
        return main(["cycle", str(tmp_path / "cycle.yaml"), *options])

    return run


def good(finished) -> Observations:
    """Reports of one time."""
    nature = open_analysis(finished.parent / "run" / "analysis.zarr")
    network = {"name": "temp", "kind": "profiles", "errors": {"temperature": 1.0}, "share": 0.1}
    return em.observe({"networks": [network], "seed": 1}, nature, period=(TIME, TIME))


def test_each_is_counted_with_its_reason_or_said(finished, cycled, tmp_path, capsys):
    table = good(finished)
    first = table.where([0])
    bad = []
    for number, (reason, change) in enumerate(BAD.items()):
        moved = 0.0 if reason == "duplicate" else 0.01 * (number + 1)
        place = {"longitude": first.longitude[0] + moved} | change
        bad.append(first.replace(**{name: np.array([value]) for name, value in place.items()}))
    later = first.replace(time=first.time + np.timedelta64(2, "D"))
    assert cycled(Observations.concat([table, *bad, later])) == 0
    said = capsys.readouterr()
    (record,) = map(json.loads, (tmp_path / "cycle" / "windows.jsonl").read_text().splitlines())
    assert record["rejected"] == dict.fromkeys(BAD, 1)
    assert record["observations"] == len(table)
    assert f"left out 1 of {len(table) + len(BAD) + 1} observations, of no window" in said.err + said.out


def test_a_check_tells_of_observations_of_other_times(finished, cycled, capsys):
    table = good(finished)
    later = table.replace(time=table.time + np.timedelta64(2, "D"))
    assert cycled(Observations.concat([table, later]), "--check") == 0
    assert f"{len(table)} observations ({len(table)} are of other times)" in capsys.readouterr().out
    assert cycled(later, "--check") == 1
    assert "from 2001-01-14T06" in capsys.readouterr().err
