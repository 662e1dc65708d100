"""Rollout: ensembles, thinning, parts, restarts inside a forecast, failed writes, and other formats read back."""

import json
import shutil

import numpy as np
import pytest
import torch
import xarray as xr

from emulator.data.forcing import Forcing
from emulator.forecasting import forecaster, writing
from emulator.forecasting.forecaster import Forecaster
from emulator.forecasting.position import Position
from emulator.model.saved_model import load_model
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast
from pipelines import rollout
from pipelines.cli import main
from pipelines.config import RolloutConfig
from pipelines.load import load_stage


def config(finished, output, **options) -> RolloutConfig:
    base = json.loads(load_stage("rollout", finished).model_dump_json())
    alone = {"uncorrected_inits": 0, "long_run_days": 0, "maximum_inits": 3, "lead_days": 1}
    return RolloutConfig(**(base | alone | {"output": output} | options))


def run(finished, output, **options) -> xr.Dataset:
    rollout.rollout(config(finished, output, **options))
    return open_forecast(output).load()


def assert_equal(one: xr.Dataset, other: xr.Dataset):
    """Bit for bit."""
    assert set(one.variables) == set(other.variables)
    for name in one.variables:
        np.testing.assert_array_equal(one[name].values, other[name].values, err_msg=name)


@pytest.fixture(scope="module")
def plain(finished, tmp_path_factory):
    return run(finished, tmp_path_factory.mktemp("plain") / "forecast.zarr")


def test_a_forecast_names_what_it_was_told_of_its_valid_times(finished, plain):
    truth = open_analysis(finished.parent / "run" / "analysis.zarr")
    forcing = {name for name, field in truth.data_vars.items() if field.attrs.get("role") == "forcing"}
    assert forcing and set(plain.attrs["prescribed"].split(", ")) == forcing


def test_everything_in_a_forecast_store_has_units(finished, plain):
    truth = open_analysis(finished.parent / "run" / "analysis.zarr")
    for name, field in plain.data_vars.items():
        if name.startswith("correction_rms_"):
            assert field.attrs["units"] == truth[name.removeprefix("correction_rms_")].attrs["units"], name
        elif name.startswith(("correction_share_", "residual_", "saturation_")):
            assert field.attrs["units"] == "1", name
        else:
            assert field.attrs["units"] == truth[name].attrs["units"], name
    assert plain["correction_rms_temperature"].attrs["units"] == "K"
    assert plain["correction_rms_mean_total_precipitation_rate"].attrs["units"] == "kg m-2 s-1"


def test_where_a_group_stands_is_whole_or_not_there(disk):
    """On a full disk the sentence names the file, and nothing of it stays."""
    folder = disk("size=64k")
    stand = Position(3, [torch.zeros(1000)], [None])
    stand.save(folder / "restart")
    big = Position(4, [torch.zeros(100_000)], [None])
    with pytest.raises(OSError, match="restart"):
        big.save(folder / "restart")
    assert [path.name for path in folder.iterdir()] == ["restart"]
    assert Position.load(folder / "restart").number == 3


NOISE = {"members": 4, "kind": "noise", "amplitude": 0.5, "seed": 3}


@pytest.fixture(scope="module")
def noisy(finished, tmp_path_factory):
    return run(finished, tmp_path_factory.mktemp("noisy") / "forecast.zarr", ensemble=NOISE | {"control": True})


def test_members_differ_the_control_is_the_single_forecast_and_budgets_are_closed(plain, noisy):
    assert noisy["temperature"].dims[:3] == ("init_time", "lead_time", "member") and noisy.sizes["member"] == 4
    control = noisy.isel(member=0)
    for name in ("temperature", "surface_pressure", "mean_total_precipitation_rate"):
        np.testing.assert_allclose(control[name], plain[name], rtol=2e-5, atol=1e-9, err_msg=name)
    spread = noisy["temperature"].isel(member=slice(1, None)).std("member").mean(("level", "latitude", "longitude"))
    assert (spread > 0).all()
    for budget in ("dry_air", "water", "energy"):
        left = noisy[f"residual_after_{budget}"]
        assert left.dims == ("init_time", "lead_time", "member") and float(np.abs(left).max()) < 1e-6


def test_amplitude_is_in_units_of_a_steps_change(finished, plain, noisy):
    statistics = xr.open_dataset(finished.parent / "run" / "statistics.nc")
    moved = (
        noisy["temperature"].isel(lead_time=0, member=slice(1, None)) - plain["temperature"].isel(lead_time=0)
    ).values
    change = statistics["temperature"].sel(statistic="difference_std").values
    np.testing.assert_allclose(np.sqrt((moved**2).mean((0, 1, 3, 4))) / change, 0.5, rtol=0.25)


def test_members_do_not_depend_on_what_is_computed_with_them(finished, noisy, tmp_path):
    later = run(finished, tmp_path / "f.zarr", ensemble=NOISE | {"control": True}, batch_size=2, maximum_inits=2)
    start = noisy.isel(init_time=slice(0, 2), lead_time=0)
    np.testing.assert_array_equal(later["temperature"].isel(lead_time=0), start["temperature"])
    np.testing.assert_allclose(later["temperature"], noisy["temperature"].isel(init_time=slice(0, 2)), rtol=1e-5)


def test_lagged_members_are_older_forecasts(finished, tmp_path):
    ensemble = {"members": 3, "kind": "lagged", "lag_hours": 12}
    lagged = run(finished, tmp_path / "lagged.zarr", ensemble=ensemble)
    truth = open_analysis(finished.parent / "run" / "analysis.zarr")
    np.testing.assert_array_equal(
        lagged["temperature"].isel(lead_time=0, member=0), truth["temperature"].sel(time=lagged["init_time"].values)
    )
    # every_hours is 12: the second initial time's member 1 is the first one's forecast, 12 h later
    singles = run(finished, tmp_path / "one.zarr")
    np.testing.assert_allclose(
        lagged["temperature"].isel(init_time=1, member=1, lead_time=0),
        singles["temperature"].isel(init_time=0, lead_time=2),
        rtol=1e-5,
    )


def test_bred_members_have_the_amplitude_and_differ(finished, tmp_path):
    ensemble = {"members": 3, "kind": "bred", "amplitude": 0.2, "cycles": 3, "cycle_hours": 6}
    found = run(finished, tmp_path / "bred.zarr", ensemble=ensemble, maximum_inits=1)
    truth = open_analysis(finished.parent / "run" / "analysis.zarr").sel(time=found["init_time"].values)
    step = forecasting_step(finished)
    layout = step.layout.prognostic

    def packed(dataset):
        return layout.pack(
            {n: torch.from_numpy(np.ascontiguousarray(dataset[n].values, np.float32)) for n in layout.names}
        )

    analysis = packed(truth)
    area = torch.as_tensor(Forcing(open_analysis(config(finished, "x").store), step.layout.forcing).grid.area)
    vectors = [packed(found.isel(lead_time=0, member=m)) - analysis for m in range(3)]
    for vector in vectors:
        from emulator.forecasting.ensembles import size_of

        assert 0.1 < float(size_of(step, vector, area)) <= 0.21  # humidity may stop at its bound
    assert not torch.allclose(vectors[0], vectors[1])


def forecasting_step(finished):
    return load_model(config(finished, "x").checkpoint)


def test_checkpoints_take_turns_among_members_and_take_over_by_lead(finished, plain, tmp_path):
    from emulator.model import checkpoint

    first = config(finished, "x").checkpoint
    tensors, saved = checkpoint.load(first)
    weights = {n: t * 0 if n.startswith("network") and t.is_floating_point() else t for n, t in tensors.items()}
    checkpoint.save(tmp_path / "still", weights, saved)
    still = run(finished, tmp_path / "still.zarr", checkpoint=tmp_path / "still")
    both = run(
        finished,
        tmp_path / "both.zarr",
        ensemble={"members": 2, "kind": "none"},
        member_checkpoints=[tmp_path / "still"],
    )
    np.testing.assert_allclose(both["temperature"].isel(member=0), plain["temperature"], rtol=1e-5)
    np.testing.assert_allclose(both["temperature"].isel(member=1), still["temperature"], rtol=1e-5)
    cascade = run(finished, tmp_path / "c.zarr", cascade=[{"checkpoint": tmp_path / "still", "from_days": 0.5}])
    np.testing.assert_array_equal(cascade["temperature"][:, :3], plain["temperature"][:, :3])
    assert not np.allclose(cascade["temperature"][:, 3], plain["temperature"][:, 3], rtol=1e-6)
    with pytest.raises(ValueError, match="at least 2 members"):
        run(finished, tmp_path / "d.zarr", member_checkpoints=[tmp_path / "still"])


def test_parts_together_are_the_whole(finished, plain, tmp_path):
    options = {"batch_size": 2}
    whole = run(finished, tmp_path / "whole.zarr", **options)
    output = tmp_path / "parts.zarr"
    rollout.rollout(config(finished, output, **options), part=(2, 2))
    assert not output.exists()
    rollout.rollout(config(finished, output, **options), part=(1, 2))
    assert_equal(open_forecast(output).load(), whole)


@pytest.mark.parametrize("block", [1, 1 << 16])
def test_a_run_that_was_stopped_anywhere_ends_bit_for_bit_the_same(finished, tmp_path, monkeypatch, block):
    """Also independent of how many leads are written at a time."""
    options = {"ensemble": NOISE, "maximum_inits": 3, "batch_size": 4}
    whole = run(finished, tmp_path / "whole.zarr", **options)
    monkeypatch.setattr(forecaster, "BLOCK_BYTES", block)
    output, stops = tmp_path / "stopped.zarr", []
    blocks = Forecaster.blocks

    def stopping(self, times, schedule, position=None):
        for number, pair in enumerate(blocks(self, times, schedule, position)):
            yield pair
            if len(schedule.ends) > 1 and len(stops) < 4 and number == 1:
                stops.append(position.number if position else 0)
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Forecaster, "blocks", stopping)
        for _ in range(10):
            try:
                rollout.rollout(config(finished, output, **options))
                break
            except KeyboardInterrupt:
                assert not output.exists()
    if block == 1:
        assert stops[0] == 0 and max(stops) > 0  # went on inside a forecast
    assert_equal(open_forecast(output).load(), whole)


def test_a_run_that_was_stopped_goes_on_in_other_batches(finished, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(forecaster, "BLOCK_BYTES", 1)
    blocks = Forecaster.blocks

    def stopping(self, times, schedule, position=None):
        for number, pair in enumerate(blocks(self, times, schedule, position)):
            yield pair
            if len(schedule.ends) > 1 and number == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Forecaster, "blocks", stopping)
        rollout.rollout(config(finished, tmp_path / "f.zarr", batch_size=2))
    assert list((tmp_path / "f.zarr.progress").glob("restart-*"))
    found = run(finished, tmp_path / "f.zarr", batch_size=3)
    assert set(found.variables) == set(plain.variables)
    for name in ("temperature", "surface_pressure"):
        np.testing.assert_allclose(found[name], plain[name], rtol=1e-5, err_msg=name)


def test_only_stores_whose_numbers_change_are_written_again(finished, tmp_path):
    """Each of the three by what decides its own numbers: not by the batches, by where things lie, or by the others."""
    names = ("f.zarr", "uncorrected.zarr", "long_run.zarr")
    inside = {"uncorrected_inits": 2, "long_run_days": 1, "maximum_inits": 2, "lead_days": 0.5}
    inside |= {"uncorrected": tmp_path / names[1], "long_run": tmp_path / names[2]}

    def changed(**options) -> set[str]:
        before = {name: (tmp_path / name).stat().st_ino for name in names if (tmp_path / name).exists()}
        rollout.rollout(config(finished, tmp_path / "f.zarr", **(inside | options)))
        return {name for name in names if (tmp_path / name).stat().st_ino != before.get(name)}

    assert changed() == set(names)
    other = tmp_path / "elsewhere"
    shutil.copytree(finished.parent / "run" / "train" / "checkpoint", other)
    assert changed(batch_size=2, checkpoint=other, also=["netcdf"]) == set()
    assert changed(long_run_days=2) == {"long_run.zarr"}
    inside["long_run_days"] = 2
    assert changed(ensemble=NOISE) == {"f.zarr"}
    assert changed(ensemble=NOISE | {"seed": 4}) == {"f.zarr"}
    assert changed(uncorrected_inits=1) == {"f.zarr", "uncorrected.zarr"}  # single forecasts again
    assert changed(uncorrected_inits=1, lead_days=0.25) == {"f.zarr", "uncorrected.zarr"}
    assert changed(uncorrected_inits=1, lead_days=0.25, thin={"variables": ["temperature"]}) == {"f.zarr"}


def test_a_failed_write_stops_the_rollout(finished, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(writing, "write_forecast_init", full)
    with pytest.raises(OSError, match="No space left"):
        rollout.rollout(config(finished, tmp_path / "f.zarr"))
    assert not (tmp_path / "f.zarr").exists()


def test_means_over_days_and_a_region_and_levels(finished, plain, tmp_path):
    thin = {
        "mean": "every",
        "every_hours": 12,
        "variables": ["temperature", "mean_total_precipitation_rate"],
        "levels": [0.4],
        "region": "tropics",
    }
    found = run(finished, tmp_path / "f.zarr", thin=thin)
    assert found["lead_time"].values.astype("timedelta64[h]").astype(int).tolist() == [12, 24]
    assert "surface_pressure" not in found and np.abs(found["latitude"]).max() <= 20
    level = int(np.abs(plain["level"].values - 0.4).argmin())
    at = plain["temperature"].isel(level=[level]).sel(latitude=found["latitude"].values)
    for window, ends in enumerate((slice(1, 3), slice(3, 5))):
        np.testing.assert_allclose(
            found["temperature"].isel(lead_time=window), at.isel(lead_time=ends).mean("lead_time"), rtol=1e-6
        )
    assert found["temperature"].attrs["cell_methods"] == "time: mean"


def test_monthly_means_of_a_run_past_the_end_of_the_store(finished, tmp_path):
    options = {"lead_days": 22, "beyond_store": True, "maximum_inits": 1}
    monthly = run(finished, tmp_path / "m.zarr", thin={"mean": "monthly", "variables": ["temperature"]}, **options)
    every = run(finished, tmp_path / "e.zarr", thin={"variables": ["temperature"]}, **options)
    valid = monthly["init_time"].values[0] + monthly["lead_time"].values
    assert [str(v)[:10] for v in valid] == ["2001-02-01"]
    ends = every["init_time"].values[0] + every["lead_time"].values
    january = ends <= valid[0]
    january[0] = False  # the initial state ends no step
    assert january.sum() == 19 * 4
    np.testing.assert_allclose(
        monthly["temperature"].isel(lead_time=0),
        every["temperature"].isel(lead_time=january).mean("lead_time"),
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thin": {"every_hours": 4}}, "thin.every_hours as a multiple of 6"),
        ({"thin": {"variables": ["ozone"]}}, "none named ozone"),
        ({"thin": {"region": "atlantis"}}, "thin.region among"),
        ({"thin": {"mean": "monthly"}}, "whole calendar months"),
        ({"ensemble": {"members": 3, "kind": "lagged", "lag_hours": 7}}, "lag_hours as a multiple of 6"),
        ({"ensemble": {"members": 40, "kind": "lagged", "lag_hours": 24}}, "analyses before"),
        ({"ensemble": {"members": 3, "spectrum": [1.0] * 99}}, "wavenumbers"),
        ({"ensemble": {"members": 3, "variances": "ensemble"}}, "conservation.kind projection"),
        ({"ensemble": {"members": 3, "variances": "ensemble"}, "batch_size": 2}, "batch_size of 3 or more"),
    ],
)
def test_bad_options_end_in_one_sentence(finished, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        rollout.rollout(config(finished, tmp_path / "f.zarr", **options))
    assert not (tmp_path / "f.zarr").exists()


def test_netcdf_follows_cf(finished, noisy, tmp_path):
    output = tmp_path / "forecast.zarr"
    stored = run(finished, output, ensemble=NOISE | {"control": True}, maximum_inits=1, also=["netcdf"])
    (file,) = (tmp_path / "forecast_netcdf").iterdir()
    found = xr.open_dataset(file, decode_timedelta=True)
    assert found.attrs["Conventions"] == "CF-1.11"
    assert found["air_temperature" if "air_temperature" in found else "temperature"].dims[:2] == ("time", "realization")
    np.testing.assert_array_equal(found["temperature"], stored["temperature"].isel(init_time=0))
    np.testing.assert_array_equal(found["time"], stored["init_time"].values[0] + stored["lead_time"].values)
    assert found["forecast_reference_time"].values == stored["init_time"].values[0]
    assert found["temperature"].attrs["standard_name"] == "air_temperature"
    assert found["mean_total_precipitation_rate"].attrs["cell_methods"].startswith("time: mean")
    import cf_xarray  # noqa: F401

    assert found.cf["latitude"].attrs["units"] == "degrees_north" and found.cf["vertical"].name == "level"
    np.testing.assert_array_equal(found["time_bounds"][1:, 0], found["time"].values[:-1])


def test_grib_is_read_back_by_cfgrib(finished, tmp_path):
    cfgrib = pytest.importorskip("cfgrib")
    output = tmp_path / "forecast.zarr"
    thin = {"variables": ["temperature", "surface_pressure", "mean_total_precipitation_rate"]}
    stored = run(finished, output, ensemble=NOISE, maximum_inits=1, also=["grib"], thin=thin, lead_days=0.5)
    (file,) = (tmp_path / "forecast_grib").iterdir()
    parts = cfgrib.open_datasets(str(file), backend_kwargs={"indexpath": ""}, decode_timedelta=True)
    found = {str(n): part[n] for part in parts for n in part.data_vars}
    pressure = found["sp"]
    assert pressure.dims == ("number", "step", "latitude", "longitude")
    expected = stored["surface_pressure"].isel(init_time=0).transpose("member", ...)
    np.testing.assert_allclose(pressure, expected, rtol=1e-6)
    assert pressure["time"].values == stored["init_time"].values[0]
    np.testing.assert_array_equal(pressure["step"], stored["lead_time"])
    np.testing.assert_allclose(pressure["latitude"], stored["latitude"], atol=1e-5)
    np.testing.assert_allclose(pressure["longitude"], stored["longitude"], atol=1e-5)
    assert pressure.attrs["GRIB_gridType"] == "regular_gg" and pressure.attrs["GRIB_units"] == "Pa"
    rain = found["avg_tprate"]
    assert rain.attrs["GRIB_stepType"] == "avg" and rain.sizes["step"] == stored.sizes["lead_time"] - 1
    expected = stored["mean_total_precipitation_rate"].isel(init_time=0, lead_time=slice(1, None))
    np.testing.assert_allclose(rain, expected.transpose("member", ...), rtol=1e-5, atol=1e-11)
    temperature = found["t"]
    assert temperature.attrs["GRIB_typeOfLevel"] == "sigma"
    order = [d for d in temperature.dims if d not in ("number", "step", "latitude", "longitude")]
    assert temperature.sizes[order[0]] == stored.sizes["level"]
    np.testing.assert_allclose(
        temperature.transpose("number", "step", order[0], ...),
        stored["temperature"].isel(init_time=0).transpose("member", "lead_time", "level", ...),
        rtol=1e-5,
    )


def test_an_ensemble_is_verified_with_its_spread(finished, tmp_path):
    run(finished, tmp_path / "forecast.zarr", ensemble=NOISE)
    yaml = tmp_path / "verify.yaml"
    truth = finished.parent / "run" / "analysis.zarr"
    yaml.write_text(
        f"forecasts: {{ensemble: {tmp_path / 'forecast.zarr'}}}\ntruth: {truth}\noutput: {tmp_path / 'scores.nc'}\n"
    )
    assert main(["verify", str(yaml)]) == 0
    scores = xr.open_dataset(tmp_path / "scores.nc", decode_timedelta=True)
    at = scores.sel(forecast="ensemble", region="global", channel="surface_pressure").isel(lead_time=-1)
    assert at["crps"] < at["mae"] * 1.01 and at["spread"] > 0
    np.testing.assert_allclose(scores["rank_histogram"].sel(forecast="ensemble").sum("rank"), 1.0, rtol=1e-10)
