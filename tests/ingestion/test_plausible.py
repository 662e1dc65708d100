"""What ingest refuses or names: values that no data set holds, and global means that are none of the Earth's."""

import numpy as np
import pytest
import xarray as xr
from source_files import LATITUDE, LONGITUDE, TIMES

from emulator.ingestion.plan import IngestOptions
from emulator.ingestion.plausible import BY_NAME, BY_UNITS, GLOBAL_MEANS, PUBLISHED, limits
from emulator.ingestion.run import ingest
from emulator.planet.variables import VARIABLES, variable
from emulator.sources.options import SourceOptions
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast


def write(path, name, value, units=None, latitude=LATITUDE, role=None):
    shape = (8, len(latitude), 12)
    coordinates = {"time": TIMES, "latitude": latitude, "longitude": LONGITUDE}
    values = np.full(shape, value, np.float64)
    attributes = {"units": units or variable(name).units}
    xr.Dataset({name: (("time", "latitude", "longitude"), values, attributes)}, coordinates).to_netcdf(path)


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_has_bounds_that_hold_the_tables(name):
    entry, (low, high) = VARIABLES[name], limits(VARIABLES[name])
    assert low is not None and high is not None and low < high
    assert entry.minimum in (None, low) and entry.maximum in (None, high)
    assert not {*BY_NAME} - {*VARIABLES}
    assert low <= 0 or "K" in entry.units.split() or name in ("surface_pressure", "mean_sea_level_pressure")


FLAT = [n for n, v in VARIABLES.items() if v.vertical is None and v.role != "static" and "parts" not in n]


@pytest.mark.parametrize("fill", [9.999e20, -9.99e8, 1e15])
@pytest.mark.parametrize("name", FLAT[::9])
def test_fills_that_nobody_declared_are_refused(tmp_path, name, fill):
    write(tmp_path / "a.nc", name, fill)
    with pytest.raises(ValueError, match=f"Expected {name} in .* between .*missing values others"):
        ingest(IngestOptions(tmp_path / "a.nc", variables=[name]), tmp_path / "store.zarr")
    assert not (tmp_path / "store.zarr").exists()


def test_snow_on_the_ground_under_the_name_of_snowfall_is_refused(tmp_path):
    write(tmp_path / "a.nc", "msr", 21 * 1000 / 86400, "kg m-2 s-1")
    with pytest.raises(ValueError, match="mean_snowfall_rate"):
        ingest(IngestOptions(tmp_path / "a.nc"), tmp_path / "store.zarr")


@pytest.mark.parametrize("name", GLOBAL_MEANS)
def test_global_means_of_another_sign_are_named(tmp_path, name, caplog):
    low, high = GLOBAL_MEANS[name]
    if low < 0 < high:
        return
    middle = (low + high) / 2
    for number, value in enumerate((middle, -middle)):
        caplog.clear()
        path = tmp_path / f"{number}.nc"
        bounds = VARIABLES[name].minimum
        write(path, name, value)
        if number and bounds == 0:
            with pytest.raises(ValueError, match=f"{name}.*sign"):
                ingest(IngestOptions(path, variables=[name]), tmp_path / f"{number}.zarr")
            continue
        ingest(IngestOptions(path, variables=[name]), tmp_path / f"{number}.zarr")
        named = [record.message for record in caplog.records if f"global mean of {name}" in record.message]
        assert len(named) == number and all("opposite" in text for text in named)
    if bounds is None:
        caplog.clear()
        source = SourceOptions(str(tmp_path / "1.nc"), negate=(name,))
        ingest(IngestOptions([source], variables=[name]), tmp_path / "turned.zarr")
        assert not [r for r in caplog.records if "global mean" in r.message]
        assert (open_analysis(tmp_path / "turned.zarr")[name] > 0).all() == (middle > 0)


def test_ranges_enclose_published_means_and_none_of_the_other_sign_or_ten_times_as_large():
    assert {*PUBLISHED} <= {*GLOBAL_MEANS}
    for name, values in PUBLISHED.items():
        low, high = GLOBAL_MEANS[name]
        for value in values:
            share = 0.1 if "top_downward" in name else 0.2  # insolation is known; its year moves it by 3.4 %
            assert low < value * (1 - share) < high and low < value * (1 + share) < high, name
            assert not low <= -value <= high and not low <= 10 * value <= high and not low <= value / 24 <= high, name
    net = {n: values[0] for n, values in PUBLISHED.items()}
    surface = [net[f"mean_surface_{n}_flux"] for n in ("net_short_wave_radiation", "net_long_wave_radiation")]
    surface += [net[f"mean_surface_{n}_heat_flux"] for n in ("latent", "sensible")]
    assert 0 <= sum(surface) <= 3  # what warms the ocean
    top = net["mean_top_net_short_wave_radiation_flux"] + net["mean_top_net_long_wave_radiation_flux"]
    assert 0 <= top <= 3


def test_fluxes_of_a_real_forecast_have_our_signs_and_plausible_means(shared_data, tmp_path, caplog):
    pytest.importorskip("eccodes")
    names = ["mean_surface_latent_heat_flux", "mean_surface_sensible_heat_flux", "mean_total_precipitation_rate",
             "mean_eastward_turbulent_surface_stress", "10m_u_component_of_wind"]  # fmt: skip
    ingest(IngestOptions(str(shared_data / "nwp" / "gfs.grb"), kind="forecast", variables=names), tmp_path / "f.zarr")
    assert not [r for r in caplog.records if "global mean" in r.message]
    store = open_forecast(tmp_path / "f.zarr").isel(init_time=0, lead_time=-1)
    stress, wind = store["mean_eastward_turbulent_surface_stress"], store["10m_u_component_of_wind"]
    assert 0.7 < np.corrcoef(stress.values.ravel(), wind.values.ravel())[0, 1] < 1
    area = np.cos(np.radians(store.latitude))
    for name, value in (("latent", -83.9), ("sensible", -6.8)):
        mean = float(store[f"mean_surface_{name}_heat_flux"].weighted(area).mean())
        np.testing.assert_allclose(mean, value, atol=0.5)


def test_a_region_may_have_any_mean(tmp_path, caplog):
    write(tmp_path / "a.nc", "mean_surface_latent_heat_flux", 50.0, latitude=np.linspace(60, 40, 7))
    ingest(IngestOptions(tmp_path / "a.nc"), tmp_path / "store.zarr")
    assert not [r for r in caplog.records if "global mean" in r.message]


def test_units_of_the_table_are_all_bounded():
    assert {v.units for v in VARIABLES.values()} - {*BY_UNITS} <= {"Pa", "m", "kg m-2"}
