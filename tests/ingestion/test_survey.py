"""A look into files finds what ingest would make of them, and takes a refusal that names its remedy at its word."""

import numpy as np
import pytest
from small_planet import small_planet
from source_files import truth

from emulator.ingestion.options import IngestOptions
from emulator.ingestion.plan import prepare
from emulator.ingestion.survey import survey
from emulator.planet.quantities.registry import quantities
from emulator.sources.open import find


def test_what_is_found_is_what_ingest_plans(tmp_path):
    small_planet(times=8).to_netcdf(tmp_path / "planet.nc")
    found = survey([tmp_path / "planet.nc"])
    plan = prepare(IngestOptions(str(tmp_path / "planet.nc")), [find(str(tmp_path / "planet.nc"))], "x").plan
    assert set(found.plan.fields) == set(plan.fields) and not found.remedies and not found.said
    assert found.names["static"] == sorted(plan.static)
    assert all(not found.lacking(name) for name in ("dry_air", "water", "energy"))


def test_what_budgets_lack_is_what_was_taken_out(tmp_path):
    for name in quantities()["energy"].needed[::4]:
        small_planet(times=3).drop_vars(name).to_netcdf(tmp_path / f"{name}.nc")
        assert name in survey([tmp_path / f"{name}.nc"]).lacking("energy")
    truth().to_netcdf(tmp_path / "few.nc")
    assert {"surface_pressure", "specific_humidity"} <= set(survey([tmp_path / "few.nc"]).lacking("dry_air"))
    regional = small_planet(times=3).isel(latitude=slice(2, 9), longitude=slice(2, 9))
    regional.to_netcdf(tmp_path / "box.nc")
    assert survey([tmp_path / "box.nc"]).lacking("dry_air") == ["the whole sphere"]


def test_folders_lists_and_patterns_are_the_same_source(tmp_path):
    data = truth()
    for number in range(4):
        data.isel(time=slice(2 * number, 2 * number + 2)).to_netcdf(tmp_path / f"{number}.nc")
    (tmp_path / "notes.txt").write_text("not data")
    files = sorted(tmp_path.glob("*.nc"))
    for given in ([tmp_path], files, [tmp_path / "*.nc"]):
        found = survey(given)
        assert [source.path for source in found.options.sources] == [f"{tmp_path}/*.nc"] and len(found.plan.times) == 8
    assert survey([tmp_path]).passed_over == (str(tmp_path / "notes.txt"),)
    some = survey(files[:2])
    assert [source.path for source in some.options.sources] == list(map(str, files[:2])) and len(some.plan.times) == 4


def test_gaps_forecasts_members_and_poles_are_taken_with_what_they_need(tmp_path):
    data = truth()
    data.drop_isel(time=4).to_netcdf(tmp_path / "gap.nc")
    found = survey([tmp_path / "gap.nc"])
    assert found.options.missing == "interpolate" and set(found.remedies) == {"missing"}

    members = data["temperature"].expand_dims(number=[3, 7]).to_dataset()
    members.to_netcdf(tmp_path / "members.nc")
    found = survey([tmp_path / "members.nc"])
    assert found.options.sources[0].select == {"member": 3} and found.plan.members is None

    leads = np.array([0, 6], "timedelta64[h]").astype("timedelta64[ns]")
    forecast = data.isel(time=slice(0, 8, 2)).expand_dims(prediction_timedelta=leads)
    forecast = forecast.drop_vars(["geopotential_at_surface", "mean_total_precipitation_rate"])
    forecast.to_netcdf(tmp_path / "forecast.nc")
    found = survey([tmp_path / "forecast.nc"])
    assert (
        found.plan.leads is None and found.options.sources[0].select == {"lead_time": 0} and len(found.plan.times) == 4
    )
    forecast.isel(prediction_timedelta=[1]).to_netcdf(tmp_path / "late.nc")
    found = survey([tmp_path / "late.nc"])
    assert found.options.kind == "forecast" and found.plan.leads is not None and set(found.remedies) == {"kind"}

    data.isel(latitude=slice(1, -1)).to_netcdf(tmp_path / "cut.nc")  # without rows at the poles
    found = survey([tmp_path / "cut.nc"])
    assert found.plan.grid.mirrors_at_poles or not found.plan.grid.is_global()


def test_what_the_files_do_not_tell_is_given_and_what_nothing_helps_is_refused(tmp_path):
    data = truth()
    data["mystery"] = data["mean_sea_level_pressure"].copy()
    data["mystery"].attrs = {"units": "K"}
    data.to_netcdf(tmp_path / "a.nc")
    found = survey([tmp_path / "a.nc"])
    assert any("mystery" in text and "rename" in text for text in found.said)
    found = survey([tmp_path / "a.nc"], {"rename": {"mystery": "2m_temperature"}, "units": {"2m_temperature": "K"}})
    assert "2m_temperature" in found.plan.fields and not found.said
    with pytest.raises(ValueError, match="Expected files, folders, patterns or URLs"):
        survey([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"Expected files that ingest can read in the folder .*empty, got none"):
        survey([tmp_path / "empty"])
    times = data["time"].values.copy()
    times[4:] += np.timedelta64(1, "h")
    data.assign_coords(time=times).to_netcdf(tmp_path / "uneven.nc")
    with pytest.raises(ValueError, match=r"uneven.nc"):
        survey([tmp_path / "uneven.nc"])
