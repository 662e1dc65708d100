"""Bad input through the command line, as a user gives it: exit code 1, one sentence that names the fault, no output."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml
from anemoi_stores import mesh, values_of, write_anemoi
from source_files import truth

from pipelines.cli import main

TRUTH = truth()  # six-hourly from 2001-02-27T00


def emulator(*arguments) -> tuple[int, list[str]]:
    """Exit code and lines of standard error of the command, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    command = [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    return ended.returncode, ended.stderr.strip().splitlines()


def only_sentence(code: int, said: list[str], stage: str) -> str:
    assert code == 1
    assert said[-1].startswith(f"error: {stage}: Expected ") and "Traceback" not in "".join(said), said
    return said[-1]


def ingest_of(dataset: xr.Dataset, folder: Path) -> str:
    dataset.to_netcdf(folder / "source.nc")
    raw = {"sources": [{"path": str(folder / "source.nc")}], "output": str(folder / "analysis.zarr")}
    (folder / "ingest.yaml").write_text(yaml.safe_dump(raw))
    before = sorted(folder.rglob("*"))
    said = only_sentence(*emulator("ingest", folder / "ingest.yaml"), "ingest")
    assert sorted(folder.rglob("*")) == before
    return said


def test_a_unit_that_is_not_one_of_the_variable(tmp_path):
    wrong = TRUTH.copy()
    wrong["temperature"] = wrong["temperature"].assign_attrs(units="m s-1")
    said = ingest_of(wrong, tmp_path)
    assert "temperature" in said and "'K'" in said and "m s-1" in said and "source.nc" in said


def test_values_that_belie_their_unit(tmp_path):
    """Celsius that is called Kelvin."""
    wrong = TRUTH.copy()
    wrong["temperature"] = (wrong["temperature"] - 273.15).assign_attrs(units="K")
    said = ingest_of(wrong, tmp_path)
    assert "temperature" in said and "between 50 and 400" in said and "source.nc" in said


def test_a_time_axis_that_is_not_uniform(tmp_path):
    times = TRUTH["time"].values.copy()
    times[5:] += np.timedelta64(2, "h")
    said = ingest_of(TRUTH.assign_coords(time=times), tmp_path)
    assert "uniform time axis" in said and "6 h" in said and "8 h" in said and "source.nc" in said


def test_a_time_that_is_absent(tmp_path):
    said = ingest_of(TRUTH.drop_isel(time=5), tmp_path)
    assert "2001-02-28T00" in said and "2001-02-28T12" in said and "source.nc" in said, said


def test_missing_values_of_a_prognostic_field(tmp_path):
    wrong = TRUTH.copy(deep=True)
    wrong["temperature"][3, 1, 2, 4:9] = np.nan
    said = ingest_of(wrong, tmp_path)
    assert all(word in said for word in ("temperature", "5 missing", "2001-02-27T18", "source.nc")), said


@pytest.fixture
def turned(finished, tmp_path) -> Path:
    """The tiny experiment's store with south first, every field in step with its coordinate."""
    store = xr.open_zarr(finished.parent / "run" / "analysis.zarr").load().isel(latitude=slice(None, None, -1))
    for variable in store.variables.values():
        variable.encoding = {}
    store.to_zarr(tmp_path / "turned.zarr", zarr_format=3)
    return tmp_path / "turned.zarr"


@pytest.mark.parametrize("stage", ["stats", "train", "rollout", "verify"])
def test_a_store_with_south_first_is_refused_by_every_stage_that_reads_one(finished, turned, tmp_path, stage, capsys):
    key, output = "truth" if stage == "verify" else "store", tmp_path / "out"
    code = main([stage, str(finished), f"{key}={turned}", f"output={output}"])
    said = only_sentence(code, capsys.readouterr().err.strip().splitlines(), stage)
    assert not output.exists()
    assert "latitude" in said and "decreas" in said and str(turned) in said, said


def test_a_source_with_south_first_is_put_in_order(tmp_path):
    TRUTH.isel(latitude=slice(None, None, -1)).to_netcdf(tmp_path / "source.nc")
    raw = {"sources": [{"path": str(tmp_path / "source.nc")}], "output": str(tmp_path / "analysis.zarr")}
    (tmp_path / "ingest.yaml").write_text(yaml.safe_dump(raw))
    assert emulator("ingest", tmp_path / "ingest.yaml")[0] == 0
    with xr.open_zarr(tmp_path / "analysis.zarr") as store:
        np.testing.assert_array_equal(store["latitude"], TRUTH["latitude"])
        np.testing.assert_array_equal(store["temperature"], TRUTH["temperature"])


@pytest.mark.parametrize("stage", ["stats", "train", "rollout", "verify", "inspect"])
def test_a_store_of_anemoi_where_ours_has_to_be_is_told_how_to_become_one(tmp_path, stage, capsys):
    """By a command that does it: the experiment that it writes loads."""
    store = tmp_path / "era.zarr"
    write_anemoi(store, values_of(("2t", "t_500"), 84), mesh(), (7, 12))
    raw = {
        "directory": str(tmp_path / "run"),
        "stats": {"store": str(store)},
        "train": {"store": str(store), "statistics": str(tmp_path / "none.nc")},
        "rollout": {"store": str(store), "checkpoint": str(tmp_path)},
        "verify": {"truth": str(store), "forecasts": {"a": "none.zarr"}},
    }
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(raw))
    assert main([stage, str(store if stage == "inspect" else tmp_path / "e.yaml")]) == 1
    (said,) = capsys.readouterr().err.strip().splitlines()
    wanted = "an analysis or forecast store" if stage == "inspect" else "an analysis store"
    assert said.startswith(f"error: {stage}: Expected {wanted} at {store}, got a ") and "ingest" in said
    if stage != "inspect":  # once will do
        return
    words = said.split(": emulator ")[1].split(" writes")[0].replace("FILE.yaml", str(tmp_path / "made.yaml"))
    assert main(words.split()) == 0 and main(["run", str(tmp_path / "made.yaml"), "--check"]) == 0
