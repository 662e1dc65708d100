"""What analyses add, from a cycle's records to scores and page."""

import json
import types

import numpy as np
import pytest

from emulator.report.panels.increments import increments
from emulator.verify.increments import increment_scores


def recorded(folder, *records):
    (folder / "windows.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder / "feedback"


def test_sums_over_a_day_are_those_of_its_analyses(tmp_path):
    times = [f"2001-01-01T{hour:02d}:00" for hour in (0, 6, 12, 18)]
    records = [
        {"time": time, "added_water": water, "added_energy": 1e6, "clipped_water": 0.0, "added_pressure": -1.0}
        for time, water in zip(times, (0.1, 0.2, -0.1, 0.2), strict=True)
    ]
    scores = increment_scores(recorded(tmp_path, *records))
    np.testing.assert_allclose(scores["increment_added_water"], [0.1, 0.2, -0.1, 0.2])
    page = increments(types.SimpleNamespace(scores=scores))
    water, energy = page.split("<tr>")[2:4]
    numbers = [[float(part.split("</td>")[0]) for part in row.split("<td>")[1:]] for row in (water, energy)]
    np.testing.assert_allclose(numbers, [[0.1, 0.158, 0.4], [1, 1, 4]])


def test_windows_without_observations_add_nothing_and_no_records_are_no_scores(tmp_path):
    assert not increment_scores(tmp_path / "feedback").data_vars
    assert not increment_scores(recorded(tmp_path, {"time": "2001-01-01T00:00"})).data_vars
    some = increment_scores(recorded(tmp_path, {"time": "2001-01-01"}, {"time": "2001-01-02", "added_water": 1.0}))
    assert some["increment_added_water"].values.tolist() == [0, 1]


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Expected records of a cycle's windows"):
        increment_scores(recorded(tmp_path, ["no record"]))
