"""The stage `observe`: the same file each time, from the command line too, and bad input said in a sentence."""

import sys

import numpy as np
import pytest
import yaml
from small_planet import small_planet
from small_store import write_store

from emulator.assimilation.feedback import write_feedback
from emulator.assimilation.observations import Observations
from emulator.verify.assemble import open_scores
from pipelines.cli import main
from pipelines.load import load_experiment

NETWORKS = [
    {"name": "synop", "kind": "stations", "share": 0.1, "errors": {"surface_pressure": 100.0}},
    {"name": "sounder", "kind": "swath", "share": 0.3, "errors": {"temperature": 0.5}, "levels": [0.4]},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("observe")
    write_store(folder, small_planet(times=6, nlat=8))
    (folder / "stations.csv").write_text(
        "time,station,latitude,longitude,surface_pressure [hPa]\n"
        "2001-01-01T05:00Z,A,50,10,1000\n2001-01-03T00:00Z,A,50,10,1001\n"
    )
    return folder


def configuration(folder, **observe):
    path = folder / "observe.yaml"
    section = {"networks": NETWORKS, **observe}
    path.write_text(yaml.safe_dump({"directory": str(folder), "observe": section}))
    return path


def test_a_file_of_observations_is_the_same_when_it_is_made_again(folder):
    tables = [{"path": str(folder / "stations.csv"), "errors": {"surface_pressure": 50.0}, "system": "csv"}]
    path = configuration(folder, tables=tables, period={"end": "2001-01-02T00:00"}, cut_off_hours=3)
    assert main(["observe", str(path), "--check"]) == 0
    found = []
    for _ in range(2):
        assert main(["observe", str(path)]) == 0
        found.append(Observations.read(folder / "observations.parquet"))
    for name, column in found[0].columns().items():
        np.testing.assert_array_equal(getattr(found[1], name), column, err_msg=name)
    assert set(found[0].system) == {"synop", "sounder", "csv"} and (found[0].system == "csv").sum() == 1
    assert (np.diff(found[0].time) >= np.timedelta64(0)).all() and found[0].time[-1] == np.datetime64("2001-01-02")
    assert main(["run", str(path)]) == 0
    done = (folder / "observations.parquet").stat().st_mtime_ns
    assert main(["run", str(path)]) == 0 and (folder / "observations.parquet").stat().st_mtime_ns == done


def test_bad_input_is_said_in_a_sentence(folder, capsys):
    cases = {
        "observe.networks.0.kind": {"networks": [NETWORKS[0] | {"kind": "ships"}]},
        "greater than 0": {"networks": [NETWORKS[0] | {"errors": {"surface_pressure": -1.0}}]},
        "Expected networks or tables to observe with, got neither": {"networks": []},
        "variables of the store, it has no salinity": {"networks": [NETWORKS[0] | {"errors": {"salinity": 1.0}}]},
        "Expected times from 2005-01-01 to the end": {"period": {"start": "2005-01-01"}},
        "Expected a table of observe.tables at": {"tables": [{"path": str(folder / "absent.csv"), "errors": {"a": 1}}]},
    }
    for message, changed in cases.items():
        path = configuration(folder, **changed)
        check = [] if "Expected times" in message else ["--check"]
        assert main(["observe", str(path), *check]) == 1, message
        said = capsys.readouterr().err.strip()
        assert message in said and "Traceback" not in said, said


def test_a_check_needs_what_the_file_is_written_with(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["observe", str(configuration(folder)), "--check"]) == 1
    assert "Expected pyarrow for the table" in capsys.readouterr().err


def test_tables_alone_need_no_nature_run(folder, tmp_path):
    path = tmp_path / "tables.yaml"
    table = {"path": str(folder / "stations.csv"), "errors": {"surface_pressure": 50.0}}
    path.write_text(yaml.safe_dump({"directory": str(tmp_path), "observe": {"tables": [table]}}))
    assert main(["observe", str(path), "--check"]) == 0 and main(["observe", str(path)]) == 0
    found = Observations.read(tmp_path / "observations.parquet")
    assert found.value.tolist() == [100000.0, 100100.0] and set(found.system) == {"stations"}


def test_an_experiment_without_the_stage_is_recorded_as_before(folder):
    path = folder / "plain.yaml"
    path.write_text(yaml.safe_dump({"directory": str(folder), "stats": {}}))
    assert "observe" not in load_experiment(path).model_dump()


def test_feedback_of_a_cycle_is_among_the_scores(folder):
    found = Observations.concat(
        [Observations(["point"], ["temperature"], ["2001-01-01"], [1], [2], [270.0], [1.0], [0.6])]
    )
    one = np.array([269.0])
    write_feedback(folder / "feedback" / "0.parquet", "2001-01-01", found, np.array([""]), one, one + 0.5)
    config = folder / "verify.yaml"
    section = {
        "truth": str(folder / "analysis.zarr"),
        "feedback": str(folder / "feedback"),
        "persistence_lead_hours": [6],
    }
    config.write_text(yaml.safe_dump({"directory": str(folder), "verify": section}))
    assert main(["verify", str(config), "--check"]) == 0 and main(["verify", str(config)]) == 0
    scores = open_scores(folder / "scores.nc")
    assert float(scores["feedback_background_mean"][0]) == 1.0 and float(scores["feedback_analysis_mean"][0]) == 0.5
    assert main(["verify", str(config), "--check", f"feedback={folder}/absent"]) == 1
