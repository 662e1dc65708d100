"""The stage simulate: what it writes, what it refuses, and that it ends the same however it was stopped."""

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from datetime import date

import numpy as np
import pytest
import xarray as xr
import yaml

from emulator.embedded import MODELS, Embedded, speedy
from emulator.embedded.options import Growth, Physics, Swings
from emulator.ingestion.run import ingest
from emulator.planet.constants import Constants
from emulator.planet.grid import Grid
from emulator.planet.variables import variable
from emulator.store.analysis import open_analysis
from pipelines.cli import main
from pipelines.config import SimulateConfig
from pipelines.load import fingerprint
from pipelines.parse import parse
from pipelines.simulate import files, options, simulate, simulations

SHORT = {"days": 3, "spin_up_days": 1, "chunk_days": 2, "truncation": 21}
CHUNKS = ("speedy_20010102.nc", "speedy_20010104.nc")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    pytest.importorskip("jcm", reason="JAX-GCM is not installed: the extra emulator[gcm]")
    directory = tmp_path_factory.mktemp("simulation")
    simulate(SimulateConfig(directory=directory, **SHORT))
    return directory


@pytest.fixture
def no_model(monkeypatch):
    """The model's file cannot be imported, whether or not it was before."""
    monkeypatch.delitem(MODELS._entries, "speedy", raising=False)
    monkeypatch.setitem(sys.modules, "emulator.embedded.speedy", None)


@pytest.mark.parametrize(
    ("name", "value"), [("days", 2), ("spin_up_days", 2), ("start", "2001-02-01"), ("truncation", 31)]
)
def test_another_simulation_in_the_folder_is_refused(tmp_path, no_model, name, value):
    with pytest.raises(ImportError):  # claims the folder, then finds no model
        simulate(SimulateConfig(directory=tmp_path, **SHORT))
    with pytest.raises(ValueError, match=f"with {name} = {value}"):
        simulate(SimulateConfig(directory=tmp_path, **(SHORT | {name: value})))


def test_a_complete_folder_is_left_alone(tmp_path, no_model):
    config = SimulateConfig(directory=tmp_path, **SHORT)
    for path in files(config)[1:]:
        path.touch()
    simulate(config)
    assert sorted(tmp_path.iterdir()) == sorted(files(config))
    files(config)[-1].unlink()  # a chunk that is lost is simulated again, and all that follows it
    with pytest.raises(ImportError):
        simulate(config)


@pytest.mark.parametrize("content", ["", "[]", '{"days": 3'])
def test_a_damaged_record_ends_in_one_sentence(tmp_path, content):
    (tmp_path / "simulation.json").write_text(content)
    with pytest.raises(ValueError, match=r"simulation.json, it is damaged"):
        simulate(SimulateConfig(directory=tmp_path, **SHORT))


def test_an_unknown_model_is_refused_by_name():
    with pytest.raises(ValueError, match="one of speedy"):
        SimulateConfig(directory="x", model="spedy")


def test_keys_that_came_later_leave_old_fingerprints_as_they_are():
    """Runs of older versions stay complete: what is not said is not written."""
    plain = SimulateConfig(directory="x")
    assert plain == SimulateConfig(directory="x", model="speedy", options={})
    assert not {"model", "options"} & plain.model_dump().keys() and "model" not in plain.model_dump_json()
    assert SimulateConfig(directory="x", options={"layers": 4}).model_dump()["options"] == {"layers": 4}


def test_a_scenario_leaves_configurations_without_one_as_they_were():
    plain = SimulateConfig(directory="x")
    assert fingerprint(plain) == "bc26c7f7878605cd"  # as of the version before scenarios
    assert options(plain).record().keys() == {
        "days", "spin_up_days", "chunk_days", "step_hours", "start", "truncation", "time_step_minutes"
    }  # fmt: skip
    scenario = {"co2": {"start": 360.0, "yearly_rate": 0.01}, "sst_offset": 2.0, "physics": {"cloud_albedo": 0.4}}
    asked = options(SimulateConfig(directory="x", member=3, **scenario))
    assert asked.record()["member"] == 3 and asked.record()["co2"] == scenario["co2"]
    settings = speedy.Settings(**asked.settings)
    assert settings.co2 == Growth(360, 0.01) and settings.physics == Physics(cloud_albedo=0.4)
    assert settings.describe() == (
        "CO2 from 360 ppmv by +1 % a year, sea temperature +2 K, member 3, convection_hours 6, cloud_albedo 0.4, "
        "sea_exchange 0.0009"
    )


def test_a_simulation_of_swings_knows_itself_again(tmp_path):
    """From a configuration and from Python the record is what its file gives back; another course is another simulation."""
    swings = {"values": [0, 4], "days": 5, "maps": 0.5}
    asked = options(parse(SimulateConfig, {"directory": str(tmp_path), "sst_offset": swings} | SHORT, "x.yaml"))
    record = asked.record()
    assert json.loads(json.dumps(record)) == record
    assert record["sst_offset"] == {"values": [0, 4], "days": 5, "maps": 0.5, "length_km": 2000, "seed": 0}
    for given in (Swings((0, 4), 5, 0.5), {"values": (0, 4), "days": 5, "maps": 0.5}):
        settings = speedy.Settings(**(asked.settings | {"sst_offset": given}))
        assert settings == speedy.Settings(**asked.settings)
        again = dataclasses.replace(asked, settings=asked.settings | {"sst_offset": settings.sst_offset}).record()
        assert json.loads(json.dumps(again)) == record
    with pytest.raises(ValueError, match="one sst_offset for a slab ocean"):
        slab = {"kind": "slab", "depth": 5, "control": "c"}
        speedy.Settings(**options(SimulateConfig(directory="x", sst_offset=swings, ocean=slab)).settings)


def test_a_simulation_knows_a_file_by_its_content(tmp_path):
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    records = []
    for path, number in ((one, 370), (other, 370), (one, 371)):
        path.write_text(f"time,co2 [ppm]\n2000-07-01,{number}\n")
        records.append(options(SimulateConfig(directory="x", co2=path)).record())
    assert records[0] == records[1] != records[2]
    with pytest.raises(ValueError, match="can be read at .*none.csv"):
        options(SimulateConfig(directory="x", co2=tmp_path / "none.csv")).record()


def test_scenarios_outside_their_limits_are_refused():
    for section, words in [
        ({"co2": 0.5}, "co2 of at least 1 and at most 10000 ppmv, got 0.5"),
        ({"co2": {"start": 360, "yearly_rate": 2}}, "yearly_rate"),
        ({"sst_offset": 11}, "sst_offset"),
        ({"physics": {"clouds": 1}}, "physics.clouds"),
    ]:
        with pytest.raises(ValueError, match=words):
            parse(SimulateConfig, {"directory": "x", **section}, "x.yaml")


def test_scenarios_are_simulations_of_their_own_and_parts_share_them(tmp_path, monkeypatch):
    scenarios = {"control": {}, "warm": {"sst_offset": 2}, "more": {"co2": 840, "member": 5}}
    config = parse(SimulateConfig, {"directory": str(tmp_path), "member": 4, "scenarios": scenarios} | SHORT, "x.yaml")
    control, warm, more = simulations(config)
    assert control == SimulateConfig(directory=tmp_path / "control", member=4, **SHORT)
    assert warm == SimulateConfig(directory=tmp_path / "warm", member=4, sst_offset=2, **SHORT)
    assert more == SimulateConfig(directory=tmp_path / "more", member=5, co2=840, **SHORT)
    assert set(files(config)) == {path for one in (control, warm, more) for path in files(one)}
    run = []
    monkeypatch.setattr("emulator.embedded.simulation.simulate", lambda asked, report: run.append(asked.directory.name))
    for part in ((1, 2), (2, 2), (4, 4), None):
        simulate(config, part)
    assert run == ["control", "more", "warm", "control", "warm", "more"]
    with pytest.raises(ValueError, match="scenarios"):
        parse(SimulateConfig, {"directory": "x", "scenarios": {"../out": {}}}, "x.yaml")


def test_a_model_that_knows_no_scenario_refuses_it_by_name(tmp_path, monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Still:
        start: date
        step_hours: int

    MODELS.names()
    monkeypatch.setitem(MODELS._entries, "still", Embedded(Still, lambda settings: None))
    with pytest.raises(ValueError, match="settings of still among start, step_hours, got co2, member"):
        simulate(SimulateConfig(directory=tmp_path, model="still", co2=400, member=2))


def test_files(finished):
    names = sorted(path.name for path in finished.iterdir())
    restarts = ["restart_000003.npz", "restart_000004.npz"]  # the last chunk is short: more days begin before it
    assert names == [*restarts, "simulation.json", *CHUNKS]
    with xr.open_mfdataset(
        sorted(finished.glob("*.nc")), data_vars="minimal", coords="minimal", compat="override"
    ) as data:
        steps = np.arange("2001-01-02T06", "2001-01-05T06", 6, "datetime64[h]")
        np.testing.assert_array_equal(data["time"].values, steps.astype("datetime64[ns]"))
        assert Constants.from_json(data.attrs["constants"]).gravity == 9.81
        assert data.attrs["vertical_coordinate"] == "sigma"
        assert data.attrs["time_step_seconds"] == 21600
        assert "jcm 3" in data.attrs["source"]
        assert Grid.from_coordinates(data["latitude"], data["longitude"]).kind == "gaussian"
        np.testing.assert_allclose(np.diff(data["half_level_b"]) / 2 + data["half_level_b"][:-1], data["level"])
        for name in set(data.data_vars) - {"half_level_a", "half_level_b"}:
            entry, field = variable(name), data[name]
            assert field.attrs["units"] == entry.units
            assert field.attrs.get("standard_name") == entry.standard_name
            method = {"mean": "time: mean (interval: 6 hours)", "point": "time: point", "fixed": None}[entry.cell]
            assert field.attrs.get("cell_methods") == method
            leading = () if entry.cell == "fixed" else ("time", "level") if entry.levels else ("time",)
            assert field.dims == (*leading, "latitude", "longitude")
            assert field.dtype == np.float32


def _assert_same(one, other):
    files = sorted(path.name for path in one.glob("*.nc"))
    assert files == sorted(path.name for path in other.glob("*.nc"))
    for name in files:
        with xr.open_dataset(one / name) as a, xr.open_dataset(other / name) as b:
            xr.testing.assert_identical(a.load(), b.load())


@pytest.mark.parametrize("days", [1, 2, 4])
def test_stopped_and_started_again_it_ends_the_same(finished, tmp_path, monkeypatch, days):
    """Stopped while day `days` is computed: in the first chunk, at its end, in the last one."""
    from emulator.embedded.speedy import ReferenceModel

    whole, done = ReferenceModel.advance_day, []

    def stop(self, state):
        done.append(1)
        if len(done) == days:
            raise KeyboardInterrupt
        return whole(self, state)

    config = SimulateConfig(directory=tmp_path, **SHORT)
    monkeypatch.setattr(ReferenceModel, "advance_day", stop)
    with pytest.raises(KeyboardInterrupt):
        simulate(config)
    monkeypatch.setattr(ReferenceModel, "advance_day", whole)
    (tmp_path / "speedy_20010102.nc.partial").write_bytes(b"half a file")
    simulate(config)
    _assert_same(finished, tmp_path)
    assert {path.name for path in tmp_path.glob("restart*")} == {path.name for path in finished.glob("restart*")}


@pytest.mark.parametrize("days", [1, 2])
def test_a_simulation_goes_on_to_more_days_as_if_it_had_been_that_long(finished, tmp_path, monkeypatch, days):
    """From the end of a whole chunk, and from inside one: not one bit differs, and no day before it is simulated again."""
    from emulator.embedded.speedy import ReferenceModel

    simulate(SimulateConfig(directory=tmp_path, **(SHORT | {"days": days})))
    whole, done = ReferenceModel.advance_day, []
    monkeypatch.setattr(ReferenceModel, "advance_day", lambda self, state: done.append(1) or whole(self, state))
    simulate(SimulateConfig(directory=tmp_path, **SHORT))
    _assert_same(finished, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in finished.iterdir()}
    assert len(done) == {1: 3, 2: 1}[days]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_forced_simulation_goes_on_as_if_it_had_not_been_stopped_and_its_store_says_what_it_is(tmp_path, monkeypatch):
    """CO2 that grows and sea temperatures of a file: closed forms at every time of the analysis, whatever was stopped."""
    pytest.importorskip("jcm", reason="JAX-GCM is not installed: the extra emulator[gcm]")
    from emulator.embedded.speedy import ReferenceModel

    times = np.array(["2000-12-15", "2001-01-15"], "datetime64[ns]")
    south = np.linspace(-87.5, 87.5, 36)
    values = np.array([290.0, 293.1])[:, None, None] * np.ones((2, 36, 72))
    coords = {"time": times, "lat": ("lat", south, {"units": "degrees_north"})}
    coords["lon"] = ("lon", np.arange(72) * 5.0, {"units": "degrees_east"})
    file = tmp_path / "sst.nc"
    xr.Dataset({"tos": (("time", "lat", "lon"), values, {"units": "K"})}, coords).to_netcdf(file)
    asked = SHORT | {"co2": {"start": 360.0, "yearly_rate": 0.5}, "sst_file": file, "sst_offset": 1.0}
    whole = SimulateConfig(directory=tmp_path / "whole", **asked)
    simulate(whole)
    plain, done = ReferenceModel.advance_day, []

    def stop(self, state):
        done.append(1)
        if len(done) == 4:
            raise KeyboardInterrupt
        return plain(self, state)

    monkeypatch.setattr(ReferenceModel, "advance_day", stop)
    parted = SimulateConfig(directory=tmp_path / "parted", **asked)
    with pytest.raises(KeyboardInterrupt):
        simulate(parted)
    monkeypatch.setattr(ReferenceModel, "advance_day", plain)
    simulate(parted)
    _assert_same(whole.directory, parted.directory)
    with pytest.raises(ValueError, match="with sst_offset = None"):
        simulate(SimulateConfig(directory=parted.directory, **(asked | {"sst_offset": 0.0})))

    ingest([f"{parted.directory}/*.nc"], tmp_path / "analysis.zarr")
    store = open_analysis(tmp_path / "analysis.zarr")
    days = (store["time"].values - np.datetime64("2001-01-01")) / np.timedelta64(1, "D")
    co2 = store["carbon_dioxide_mole_fraction"]
    assert co2.dims == ("time",) and co2.attrs["role"] == "forcing" and co2.attrs["units"] == "mol mol-1"
    np.testing.assert_allclose(co2.values, 360e-6 * 1.5 ** (days / 365.25), rtol=1e-6)
    expected = 290 + 0.1 * (days + 17) + 1
    np.testing.assert_allclose(
        store["sea_surface_temperature"].values, np.broadcast_to(expected[:, None, None], (12, 32, 64)), rtol=1e-6
    )
    assert "CO2 from 360 ppmv by +50 % a year" in store.attrs["source"] and "+1 K" in store.attrs["source"]


def test_a_damaged_restart_file_ends_in_one_sentence(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (tmp_path / "restart_000004.npz").unlink()
    restart = tmp_path / "restart_000003.npz"
    for content in (b"", restart.read_bytes()[:1000]):
        restart.write_bytes(content)
        with pytest.raises(ValueError, match="restart_000003.npz, it is damaged"):
            simulate(SimulateConfig(directory=tmp_path, **SHORT))


def test_on_a_full_disk_it_says_which_file_and_goes_on_when_there_is_room(finished, disk, tmp_path, capsys):
    """The disk is full at the claim, at the first restart file, at the first chunk and at the last restart file."""
    folder = disk("size=4k")
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(4096))
    simulation = folder / "simulation"
    path = tmp_path / "simulate.yaml"
    path.write_text(yaml.safe_dump(SHORT | {"directory": str(simulation)}))
    for size, file, before in [
        ("4k", "simulation.json", set()),
        ("100k", "restart_000001.npz", {"simulation.json"}),
        ("4m", "speedy_20010102.nc", {"simulation.json", "restart_000001.npz"}),
        ("8m", "restart_000004.npz", {"simulation.json", "restart_000003.npz", *CHUNKS}),
    ]:
        disk(f"size={size}")
        assert main(["simulate", str(path)]) == 1
        said = capsys.readouterr().err.strip().splitlines()
        assert said[-1].endswith(f"No space left on device: {simulation / file}"), said
        assert "Traceback" not in "".join(said)
        assert {path.name for path in simulation.iterdir()} == before
        ballast.unlink(missing_ok=True)
    disk("size=32m")
    assert main(["simulate", str(path)]) == 0
    _assert_same(finished, simulation)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_and_started_again_it_ends_the_same(finished, tmp_path):
    """kill -9 between two chunks, then a second process: not one bit differs."""
    config = SimulateConfig(directory=tmp_path, **SHORT)
    code = "from pipelines.config import SimulateConfig; from pipelines.simulate import simulate; "
    code += f"simulate(SimulateConfig.model_validate_json({config.model_dump_json()!r}))"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        while not (tmp_path / "restart_000001.npz").exists():
            assert process.poll() is None, "the process ended by itself"
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "restart_000004.npz").exists(), "it was too quick to be killed on the way"
    subprocess.run([sys.executable, "-c", code], check=True)
    _assert_same(finished, tmp_path)
