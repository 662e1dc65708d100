"""Lead times as the tools of the field write them, read alike by every way into the library."""

import numpy as np
import pytest
import xarray as xr

from emulator.planet.lead_times import as_timedelta
from emulator.sources.foreign import open_any_forecast
from emulator.sources.harmonise import pieces
from emulator.sources.open import open_source
from emulator.sources.options import SourceOptions
from emulator.store.forecast import open_forecast

HOURS = np.array([0, 6, 120, 240])
SPANS = {"D": 24.0, "h": 1.0, "m": 1 / 60, "s": 1 / 3600, "ms": 1 / 3.6e6, "us": 1 / 3.6e9, "ns": 1 / 3.6e12}
# name of the dimension, type and units on disk, and hours of a unit; None: a timedelta that xarray encodes
WRITTEN = [
    ("prediction_timedelta", "timedelta64[ns]", None, 1.0),  # WeatherBench 2, earth2studio
    ("prediction_timedelta", "timedelta64[s]", None, 1.0),
    ("prediction_timedelta", "timedelta64[h]", None, 1.0),
    ("prediction_timedelta", "int64", "hours", 1.0),
    ("prediction_timedelta", "int64", "nanoseconds", SPANS["ns"]),
    ("lead_time", "timedelta64[ns]", None, 1.0),  # earth2studio
    ("lead_time", "int64", "nanoseconds", SPANS["ns"]),
    ("lead_time", "int32", "seconds", SPANS["s"]),
    ("lead_time", "int32", "second", SPANS["s"]),
    ("lead_time", "int32", "s", SPANS["s"]),
    ("lead_time", "int64", "milliseconds", SPANS["ms"]),
    ("lead_time", "int64", "ms", SPANS["ms"]),
    ("lead_time", "int64", "microseconds", SPANS["us"]),
    ("lead_time", "float64", "us", SPANS["us"]),
    ("lead_time", "int16", "minutes", SPANS["m"]),
    ("lead_time", "int16", "min", SPANS["m"]),
    ("step", "float64", "hours", 1.0),  # cfgrib
    ("step", "float32", "hours", 1.0),
    ("step", "int16", "hours", 1.0),
    ("step", "int16", "h", 1.0),
    ("step", "int16", "hr", 1.0),
    ("step", "uint8", "hour", 1.0),
    ("step", "float32", "days", 24.0),
    ("step", "float32", "day", 24.0),
    ("forecast_period", "float64", "days", 24.0),  # CF
    ("forecast_period", "int32", "seconds", SPANS["s"]),
    ("forecast_period", "int64", "Hours", 1.0),
]


def forecast(name: str, dtype: str, units: str | None, span: float) -> xr.Dataset:
    if units is None:
        leads, attributes = HOURS.astype("timedelta64[h]").astype(dtype), {}
    else:
        leads, attributes = np.round(HOURS / span, 9).astype(dtype), {"units": units}
    latitude, longitude = np.linspace(75, -75, 6), np.arange(12) * 30.0
    values = 280 + np.arange(4.0)[None, :, None, None] * np.ones((1, 4, 6, 12))
    dims = ("time", name, "latitude", "longitude")
    return xr.Dataset(
        {"2m_temperature": (dims, values, {"units": "K"})},
        {
            "time": np.array(["2001-02-27"], "datetime64[ns]"),
            name: (name, leads, attributes),
            "latitude": latitude,
            "longitude": longitude,
        },
    )


@pytest.mark.parametrize(("name", "dtype", "units", "span"), WRITTEN)
def test_lead_times_are_the_same_however_they_are_written(tmp_path, name, dtype, units, span):
    data = forecast(name, dtype, units, span)
    data.to_zarr(tmp_path / "a.zarr", consolidated=False)
    data.to_netcdf(tmp_path / "a.nc")
    expected = HOURS.astype("timedelta64[h]").astype("timedelta64[ns]")
    for opened in (open_forecast(tmp_path / "a.zarr"), open_any_forecast(tmp_path / "a.nc")):
        np.testing.assert_array_equal(opened["lead_time"].values, expected)
        np.testing.assert_array_equal(opened["2m_temperature"][0, :, 0, 0], [280, 281, 282, 283])
    for path in (tmp_path / "a.zarr", tmp_path / "a.nc"):
        (source,) = open_source(str(path))
        (piece,) = pieces(source, SourceOptions(forecast=True))
        np.testing.assert_array_equal(piece.coordinates["lead_time"], expected)


@pytest.mark.parametrize(
    ("values", "units", "seconds"),
    [
        (np.array([0, 126], np.int8), "hours", [0, 453600]),
        (np.array([0, 255], np.uint8), "days", [0, 22032000]),
        (np.array([-6, 0], np.int8), "hours", [-21600, 0]),  # analyses before the initial time
        (np.array([0.1, 1 / 3, 100.7], np.float32), "hours", [360, 1200, 362520]),
        (np.array([0.25], np.float32), "days", [21600]),
        (np.array([90], np.int16), "minutes", [5400]),
        (np.array([2], np.int8), "weeks", [1209600]),
        (np.array([21600], np.float32), "s", [21600]),
        (np.array([1], "timedelta64[D]"), None, [86400]),
        (np.array([], np.int8), "hours", []),
    ],
)
def test_narrow_types_are_scaled_in_wide_ones(values, units, seconds):
    found = as_timedelta(values, units)
    assert found.dtype == "timedelta64[ns]"
    np.testing.assert_array_equal(found, np.array(seconds, "timedelta64[s]"))


def test_fractions_of_a_second_stay():
    np.testing.assert_array_equal(as_timedelta([1, 250], "milliseconds").astype(int), [10**6, 250 * 10**6])
    np.testing.assert_array_equal(as_timedelta([0.5], "s").astype(int), [5 * 10**8])


@pytest.mark.parametrize(
    ("values", "units", "message"),
    [
        ([6], None, "units of time.*None"),
        ([6], "metres", "units of time.*'metres'"),
        ([1], "months", "units of time.*'months'"),
        ([np.nan], "hours", "finite numbers.*nan"),
        (["6h"], "hours", "finite numbers.*6h"),
        ([10**6], "weeks", "below 292 years"),
    ],
)
def test_what_is_no_lead_time_is_refused(values, units, message):
    with pytest.raises(ValueError, match=message):
        as_timedelta(values, units)


def test_a_refusal_names_the_file(tmp_path):
    data = forecast("step", "int16", "metres", 1.0)
    data.to_zarr(tmp_path / "a.zarr", consolidated=False)
    with pytest.raises(ValueError, match=r"in .*a\.zarr.*'metres'"):
        open_forecast(tmp_path / "a.zarr")
