"""Initial times and leads in every arrangement: tables with gaps that complement each other, and forecasts in a row."""

import numpy as np
import pytest
import xarray as xr
from source_files import truth

from emulator.ingestion.options import IngestOptions
from emulator.ingestion.run import ingest
from emulator.sources.options import SourceOptions
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast

TRUTH = truth()
HOUR = np.timedelta64(1, "h")
START = np.datetime64("2001-02-27T00", "ns")
PLACE = {"latitude": TRUTH.latitude, "longitude": TRUTH.longitude}
RAIN = "mean_total_precipitation_rate"
RAMP = 1 + np.arange(84).reshape(7, 12) / 84


def day_of_fluxes(day: int) -> xr.Dataset:
    """What cfgrib makes of one day of ERA5's hourly fluxes: three initial times, twelve steps, NaN for other days."""
    inits, steps = START + 24 * day * HOUR + np.array([-6, 6, 18]) * HOUR, np.arange(1, 13) * HOUR
    values = np.full((3, 12, 7, 12), np.nan, np.float32)
    for where in np.ndindex(3, 12):
        valid = inits[where[0]] + steps[where[1]]
        if START + 24 * day * HOUR <= valid < START + 24 * (day + 1) * HOUR:
            values[where] = (1 + (valid - START) / HOUR) * 1e-4 * RAMP
    values[..., 0, 0] = np.nan  # a place without values is no gap of the table
    field = (("time", "step", *PLACE), values, {"units": "m", "GRIB_shortName": "tp"})
    return xr.Dataset({"tp": field}, {"time": inits, "step": steps, **PLACE})


def test_days_whose_tables_complement_each_other_are_merged(tmp_path):
    for day in range(2):
        day_of_fluxes(day).to_netcdf(tmp_path / f"{day}.nc")
    ingest(IngestOptions(SourceOptions(str(tmp_path / "?.nc"), interval_hours=1)), tmp_path / "a.zarr")
    store = open_analysis(tmp_path / "a.zarr")
    np.testing.assert_array_equal(store.time.values, START + np.arange(48) * HOUR)
    expected = (1 + np.arange(48))[:, None, None] * 1e-4 * RAMP * 1000 / 3600
    expected[:, 0, 0] = np.nan
    np.testing.assert_allclose(store[RAIN].values, expected, rtol=1e-6)


def hindcast(inits: int, reference: bool) -> xr.Dataset:
    """Forecasts of three days each, one after the other along their valid times, with leads along these."""
    leads = np.tile(np.arange(4) * 24.0, inits)
    starts = np.repeat(START + np.arange(inits) * 10 * 24 * HOUR, 4)
    values = 250 + np.arange(4.0 * inits)[:, None, None] + RAMP
    data = xr.Dataset(
        {"t2m": (("time", *PLACE), values, {"units": "K"})},
        {
            "time": starts + leads.astype(int) * HOUR,
            "forecast_period": ("time", leads, {"units": "hours", "standard_name": "forecast_period"}),
            **PLACE,
        },
    )
    if reference:
        place = ((), starts[0]) if inits == 1 else ("time", starts)
        data = data.assign_coords(forecast_reference_time=(*place, {"standard_name": "forecast_reference_time"}))
    return data


@pytest.mark.parametrize("reference", [True, False])
@pytest.mark.parametrize("inits", [1, 2])
def test_forecasts_along_their_valid_times(tmp_path, inits, reference):
    """The advice is what works: a forecast store, or the initial states alone."""
    data = hindcast(inits, reference)
    data.to_netcdf(tmp_path / "h.nc")
    with pytest.raises(ValueError, match=r"forecast up to 72 h; set kind: forecast, or select: \{lead_time: 0\}"):
        ingest(IngestOptions(str(tmp_path / "h.nc")), tmp_path / "a.zarr")
    ingest(IngestOptions(str(tmp_path / "h.nc"), kind="forecast"), tmp_path / "f.zarr")
    store = open_forecast(tmp_path / "f.zarr")
    assert list(store.lead_time.values / HOUR) == [0, 24, 48, 72] and store.sizes["init_time"] == inits
    found = store["2m_temperature"].values.reshape(data.t2m.shape)
    np.testing.assert_allclose(found, data.t2m.values, rtol=1e-7)
    ingest(IngestOptions(SourceOptions(str(tmp_path / "h.nc"), select={"lead_time": 0})), tmp_path / "b.zarr")
    np.testing.assert_allclose(
        open_analysis(tmp_path / "b.zarr")["2m_temperature"].values, data.t2m.values[::4], rtol=1e-7
    )
