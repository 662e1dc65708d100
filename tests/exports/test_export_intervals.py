"""Over which intervals means are said to be, in GRIB and NetCDF: of thinned and averaged forecasts, and of analyses."""

import numpy as np
import pytest
import xarray as xr
from small_forecast import small_forecast, write_forecast
from small_planet import small_planet
from small_store import write_store

import emulator as em
from emulator.exports.source import Source

eccodes = pytest.importorskip("eccodes")
FLUX = "mean_surface_latent_heat_flux"
PLANET = small_planet(times=6, nlat=6)[[FLUX, "surface_pressure"]]
FIXED = ["temperature", "geopotential_at_surface", "land_sea_mask", "half_level_a", "half_level_b"]
FORECAST = small_forecast(small_planet(times=6, nlat=6)[[FLUX, "surface_pressure", *FIXED]], (0,), 4)


def steps(path, parameter=235034) -> list[str]:
    """Step ranges, or dates with them, of the messages of a parameter."""
    found = []
    with open(path, "rb") as file:
        while (message := eccodes.codes_grib_new_from_file(file)) is not None:
            if eccodes.codes_get(message, "paramId") == parameter:
                date = eccodes.codes_get(message, "dataDate"), eccodes.codes_get(message, "dataTime")
                found.append((*date, eccodes.codes_get(message, "stepRange")))
            eccodes.codes_release(message)
    return found


@pytest.mark.parametrize(
    ("leads", "mean", "ranges", "hours"),
    [
        pytest.param(
            [0, 1, 2, 3, 4], False, ["0-6", "6-12", "12-18", "18-24"], [0, 6, 6, 6, 6], marks=pytest.mark.slow
        ),
        ([0, 2, 4], False, ["6-12", "18-24"], [0, 6, 6]),  # every other lead is written, of steps of 6 h
        ([2, 4], True, ["0-12", "12-24"], [12, 12]),
    ],
)
def test_of_forecasts(tmp_path, leads, mean, ranges, hours):
    thinned = FORECAST.isel(lead_time=leads).assign_attrs({"time_mean": 1} if mean else {})
    path = write_forecast(tmp_path / "f.zarr", thinned)
    (file,) = em.export(path, "grib", tmp_path / "grib").iterdir()
    assert [step for *_, step in steps(file)] == ranges
    (file,) = em.export(path, "netcdf", tmp_path / "cf").iterdir()
    with xr.open_dataset(file) as cf:
        assert (cf["time_bounds"].diff("bounds")[:, 0] / np.timedelta64(1, "h")).values.tolist() == hours


@pytest.mark.slow
def test_of_an_analysis(tmp_path):
    path = write_store(tmp_path, PLANET)
    (file,) = em.export(path, "grib", tmp_path / "grib").iterdir()
    assert steps(file)[:3] == [(20001231, 1800, "0-6"), (20010101, 0, "0-6"), (20010101, 600, "0-6")]
    assert [when for *when, _ in steps(file, 134)][1] == [20010101, 600] and len(steps(file, 134)) == 6
    starts = Source.of(path).dataset["interval_start"].values
    np.testing.assert_array_equal(starts, PLANET["time"].values - np.timedelta64(6, "h"))
