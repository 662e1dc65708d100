"""What a rollout makes of its finished stores, and where the configuration says that it lies."""

import subprocess
import sys
from pathlib import Path

import pytest
from small_forecast import small_forecast, write_forecast
from small_planet import small_planet

from emulator.store.forecast import open_forecast
from pipelines import finish_rollout as end
from pipelines import outputs
from pipelines.cli import main
from pipelines.config import RolloutConfig
from pipelines.finish_rollout import finish_rollout

KEPT = ["temperature", "surface_pressure", "geopotential_at_surface", "land_sea_mask", "half_level_a", "half_level_b"]


def config(folder: Path, **more) -> RolloutConfig:
    given = {"store": folder / "a.zarr", "checkpoint": folder / "c", "output": folder / "f.zarr"}
    return RolloutConfig.model_validate(given | more)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    planet = small_planet(times=4, nlat=4)[KEPT]
    return write_forecast(tmp_path_factory.mktemp("after") / "f.zarr", small_forecast(planet, (0,), 1))


def test_levels_are_a_store_beside_every_other(tmp_path):
    plain = config(tmp_path, long_run_days=3)
    assert "vertical" not in plain.model_dump() and not plain.pressure_stores  # finished runs keep their fingerprints
    levelled = config(tmp_path, long_run_days=3, vertical={"pressure": [500, 850]})
    beside = [tmp_path / "f-pressure.zarr", tmp_path / "long_run-pressure.zarr"]
    assert list(levelled.pressure_stores.values()) == beside
    for told in (outputs.files("rollout", levelled), outputs.written("rollout", levelled)):
        assert set(beside) <= set(told)
    with pytest.raises(ValueError, match="scenarios named otherwise"):
        config(
            tmp_path,
            vertical={"pressure": [500]},
            scenarios={"f-pressure": {"offsets": {"sea_surface_temperature": 1}}},
        )


def test_a_finished_store_is_interpolated_and_exported(store):
    finish_rollout(config(store.parent, vertical={"pressure": [500, 850]}, also=["netcdf"]))
    found = open_forecast(store.parent / "f-pressure.zarr")
    assert found["level"].values.tolist() == [500, 850] and "geopotential" in found
    assert [path.name for path in (store.parent / "f_netcdf").iterdir()] == ["20010101T0000.nc"]


HOLDS = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.lockf(file, fcntl.LOCK_EX)
print(1, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("held", ["f-pressure.zarr", "f_netcdf"])
def test_of_two_parts_that_come_together_one_makes_it(tmp_path, monkeypatch, held):
    made = []
    monkeypatch.setattr(end, "write_on_pressure", lambda store, pressures: made.append("f-pressure.zarr"))
    monkeypatch.setattr(end, "export_beside", lambda store, kind: made.append(f"f_{kind}"))
    monkeypatch.setattr(end, "PATIENCE_SECONDS", 0)
    rollout, lock = config(tmp_path, vertical={"pressure": [500]}, also=["netcdf"]), tmp_path / f"{held}.finishing"
    for folder in (tmp_path / "f.zarr", lock):
        folder.mkdir()
    command = [sys.executable, "-S", "-c", HOLDS, str(lock / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        finish_rollout(rollout)
        assert made == [name for name in ("f-pressure.zarr", "f_netcdf") if name != held]
        other.communicate()
    finish_rollout(rollout)
    assert made[1:] == ["f-pressure.zarr", "f_netcdf"] and not lock.exists()


def test_the_command_line_exports_and_says_what_is_wrong(store, capsys):
    output = store.parent / "cmor"
    assert main(["export", str(store), "--to", "cmip6", "--output", str(output), "--levels", "500,850"]) == 0
    assert capsys.readouterr().out.strip() == str(output) and list(output.glob("ta_6hrPlevPt_*.nc"))
    assert main(["export", str(store), "--to", "cmip6", "--output", str(output)]) == 1
    assert "Expected nothing at" in capsys.readouterr().err
    assert main(["export", str(store), "--to", "cimp6", "--output", str(output / "b")]) == 1
    assert "nearest: cmip6" in capsys.readouterr().err
    assert main(["export", str(store.parent / "none.zarr"), "--to", "grib", "--output", str(output / "b")]) == 1
    assert "got nothing there" in capsys.readouterr().err
