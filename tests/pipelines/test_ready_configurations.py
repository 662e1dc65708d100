"""The configurations in conf/ingest, each on a small twin of what it is for: its names, units, order and times."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from small_planet import small_planet
from source_files import LATITUDE, LEVELS, LONGITUDE, TIMES, truth

from emulator.planet.insolation import mean_insolation
from emulator.store.analysis import open_analysis
from emulator.store.schema import grid_of, levels_of, time_step_seconds, variables_by_role
from pipelines.ingest import ingest
from pipelines.load import load_stage

CONF = Path(__file__).resolve().parents[2] / "conf" / "ingest"
HOURS = np.datetime64("2020-06-01T00", "ns") + np.arange(25) * np.timedelta64(1, "h")


def run(name, folder, paths, *overrides):
    wanted = [f"sources.{n}.path={path}" for n, path in enumerate(paths)]
    ingest(load_stage("ingest", CONF / name, [*wanted, f"output={folder / 'a.zarr'}", "dask.workers=0", *overrides]))
    return open_analysis(folder / "a.zarr")


def fields(times=TIMES, levels=LEVELS, seed=0) -> dict[str, xr.DataArray]:
    """Plausible values of everything that the configurations name, in the convention's units and order."""
    chance, known = np.random.default_rng(seed), truth(times, levels)
    cube = (len(times), len(levels), 7, 12)
    flat = (len(times), 7, 12)
    values = {
        "geopotential": chance.normal(5e4, 100, cube),
        "temperature": known.temperature.values,
        "u_component_of_wind": chance.normal(0, 10, cube),
        "v_component_of_wind": chance.normal(0, 10, cube),
        "specific_humidity": chance.uniform(0, 0.01, cube),
        "2m_temperature": chance.normal(285, 10, flat),
        "mean_sea_level_pressure": known.mean_sea_level_pressure.values,
        "surface_pressure": chance.normal(9.8e4, 500, flat),
        "sea_surface_temperature": np.where(known.longitude < 90, np.nan, 290 + 0 * chance.normal(size=flat)),
        "sea_ice_cover": chance.uniform(0, 1, flat),
        "mean_total_precipitation_rate": chance.uniform(0, 1e-4, flat),
        "mean_evaporation_rate": -chance.uniform(0, 1e-4, flat),
        "mean_surface_latent_heat_flux": -chance.uniform(0, 200, flat),
        "mean_surface_sensible_heat_flux": chance.normal(0, 20, flat),
        "mean_surface_net_short_wave_radiation_flux": chance.uniform(0, 500, flat),
        "mean_surface_net_long_wave_radiation_flux": -chance.uniform(0, 100, flat),
        "mean_top_net_short_wave_radiation_flux": chance.uniform(0, 500, flat),
        "mean_top_net_long_wave_radiation_flux": -chance.uniform(100, 300, flat),
        "mean_top_downward_short_wave_radiation_flux": chance.uniform(0, 1000, flat),
    }
    dims = ("time", "level", "latitude", "longitude")
    place = {"time": times, "level": levels, "latitude": LATITUDE, "longitude": LONGITUDE}
    found = {}
    for name, array in values.items():
        own = dims if array.ndim == 4 else ("time", *dims[2:])
        found[name] = xr.DataArray(array.astype(np.float32), {d: place[d] for d in own}, own)
    for name in ("geopotential_at_surface", "land_sea_mask"):
        found[name] = xr.DataArray(chance.uniform(0, 1, (7, 12)).astype(np.float32), dims=dims[2:])
    return found


def with_units(array, units, **attributes):
    return array.assign_attrs(units=units, **attributes)


UNITS = {
    "geopotential": "m**2 s**-2",
    "temperature": "K",
    "u_component_of_wind": "m s**-1",
    "v_component_of_wind": "m s**-1",
    "specific_humidity": "kg kg**-1",
    "2m_temperature": "K",
    "mean_sea_level_pressure": "Pa",
    "surface_pressure": "Pa",
    "sea_surface_temperature": "K",
    "sea_ice_cover": "(0 - 1)",
    "geopotential_at_surface": "m**2 s**-2",
    "land_sea_mask": "(0 - 1)",
}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
def test_weatherbench2(tmp_path, version):
    """(time, level, longitude, latitude), south first, precipitation as metres in the six hours of its name."""
    known = fields()
    data = xr.Dataset({name: with_units(known[name], units) for name, units in UNITS.items()})
    depth = known["mean_total_precipitation_rate"] * 6 * 3600 / 1000
    data["total_precipitation_6hr"] = with_units(depth, "m")
    data = data.assign_coords(level=LEVELS.astype(int), latitude=LATITUDE, longitude=LONGITUDE)
    data = data.isel(latitude=slice(None, None, -1)).transpose(
        "time", "level", "longitude", "latitude", missing_dims="ignore"
    )
    data["level"].attrs["units"] = "hPa"
    data.to_zarr(tmp_path / "wb2.zarr", zarr_format=version)
    store = run("weatherbench2.yaml", tmp_path, [tmp_path / "wb2.zarr"], "period={start: 2001-02-27}")
    for name in (*UNITS, "mean_total_precipitation_rate"):
        np.testing.assert_allclose(store[name].values, known[name].values, rtol=1e-6)
    assert variables_by_role(store)["static"] == ["geopotential_at_surface", "land_sea_mask"]


def test_arco_era5(tmp_path):
    """Hourly accumulations become means over six hours, downward positive; snapshots every six hours."""
    levels = np.array([50.0, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000])
    known = fields(HOURS, np.array([1.0, *levels]))
    data = xr.Dataset({name: with_units(known[name], units) for name, units in UNITS.items()})
    data = data.assign_coords(level=known["temperature"].level.values.astype(int))
    names = {
        "total_precipitation": ("mean_total_precipitation_rate", 3.6, "m"),
        "evaporation": ("mean_evaporation_rate", 3.6, "m of water equivalent"),
        "surface_latent_heat_flux": ("mean_surface_latent_heat_flux", 3600, "J m**-2"),
        "surface_sensible_heat_flux": ("mean_surface_sensible_heat_flux", 3600, "J m**-2"),
        "surface_net_solar_radiation": ("mean_surface_net_short_wave_radiation_flux", 3600, "J m**-2"),
        "surface_net_thermal_radiation": ("mean_surface_net_long_wave_radiation_flux", 3600, "J m**-2"),
        "top_net_solar_radiation": ("mean_top_net_short_wave_radiation_flux", 3600, "J m**-2"),
        "top_net_thermal_radiation": ("mean_top_net_long_wave_radiation_flux", 3600, "J m**-2"),
        "toa_incident_solar_radiation": ("mean_top_downward_short_wave_radiation_flux", 3600, "J m**-2"),
    }
    for name, (canonical, amount, units) in names.items():
        data[name] = with_units(known[canonical] * amount, units)
    data["level"].attrs["units"] = "hPa"
    data.to_zarr(tmp_path / "arco.zarr", zarr_format=3, consolidated=False)
    store = run("arco_era5.yaml", tmp_path, [tmp_path / "arco.zarr"])
    assert time_step_seconds(store) == 21600 and levels_of(store).values.tolist() == levels.tolist()
    np.testing.assert_array_equal(store.time.values, HOURS[6::6])  # before the first there are no six hours
    np.testing.assert_array_equal(store.temperature.values, known["temperature"].values[6::6, 1:])
    for canonical, *_ in names.values():
        hourly = known[canonical].values.astype(float)
        expected = np.stack([hourly[n - 5 : n + 1].mean(axis=0) for n in range(6, 25, 6)])
        np.testing.assert_allclose(store[canonical].values, expected, rtol=1e-5, atol=1e-6 * abs(expected).max())
        assert store[canonical].attrs["cell_methods"] == "time: mean (interval: 6 hours)"


@pytest.mark.parametrize("layout", ["old", "new"])
def test_cds(tmp_path, layout):
    """Old: time, expver 1 and 5 side by side, packed. New: valid_time, pressure_level, expver as text along the time."""
    times = TIMES[0] + np.arange(13) * np.timedelta64(1, "h")
    known = fields(times)
    upper = xr.Dataset(
        {"t": with_units(known["temperature"], "K"), "q": with_units(known["specific_humidity"], "kg kg**-1")}
    )
    single = xr.Dataset({"msl": with_units(known["mean_sea_level_pressure"], "Pa")})
    rain = xr.Dataset({"tp": with_units(known["mean_total_precipitation_rate"] * 3.6, "m")})
    parts = {"pressure_levels": upper, "single_levels": single, "accumulations": rain}
    for name, data in parts.items():
        data = data.assign_coords(latitude=LATITUDE, longitude=LONGITUDE)
        encoding = {}
        if "level" in data.dims:
            data["level"].attrs["units"] = "millibars"
        if layout == "old":
            recent = data.time >= times[8]
            data = xr.concat([data.where(~recent), data.where(recent)], xr.Variable("expver", [1, 5]))
            data = data.transpose("time", "expver", ...)
            for short in data.data_vars:
                low, high = float(data[short].min()), float(data[short].max())
                scale = (high - low) / 65000
                packing = {
                    "scale_factor": scale,
                    "add_offset": (high + low) / 2,
                    "_FillValue": -32767,
                    "dtype": "int16",
                }
                encoding[short] = packing
        else:
            data = data.rename(time="valid_time", **({"level": "pressure_level"} if "level" in data.dims else {}))
            kind = np.where(data.valid_time.values < times[8], "0001", "0005")
            data = data.assign_coords(number=0, expver=("valid_time", kind))
        data.to_netcdf(tmp_path / f"{name}_1.nc", encoding=encoding)
    paths = [tmp_path / f"{name}_*.nc" for name in parts]
    store = run("cds.yaml", tmp_path, paths)
    assert time_step_seconds(store) == 21600
    np.testing.assert_allclose(store.temperature.values, known["temperature"].values[[6, 12]], atol=2e-3)
    np.testing.assert_allclose(
        store.mean_sea_level_pressure.values, known["mean_sea_level_pressure"].values[[6, 12]], atol=0.1
    )
    hourly = known["mean_total_precipitation_rate"].values
    expected = [hourly[n - 5 : n + 1].mean(axis=0) for n in (6, 12)]
    np.testing.assert_allclose(store.mean_total_precipitation_rate.values, expected, atol=1e-9)
    assert levels_of(store).values.tolist() == LEVELS.tolist()


def test_cmip6(tmp_path):
    """Daily means of a noleap year, levels in Pa from the ground up, rows from the south, upward fluxes turned round."""
    days = xr.date_range("2001-02-26", periods=5, freq="D", calendar="noleap", use_cftime=True)
    known = fields(TIMES[:5])
    half = np.array([np.timedelta64(12, "h")]).astype("timedelta64[us]").astype(object)[0]

    def table(name, array, units, standard, **coordinates):
        data = xr.Dataset(
            {name: array.assign_attrs(units=units, standard_name=standard, cell_methods="area: time: mean")}
        )
        data = data.assign_coords(time=("time", [day + half for day in days], {"bounds": "time_bnds"}), **coordinates)
        data["time_bnds"] = (("time", "bnds"), [[day, day + 2 * half] for day in days])
        data = data.rename(
            {"latitude": "lat", "longitude": "lon", **({"level": "plev"} if "level" in data.dims else {})}
        )
        if "plev" in data.dims:
            data = data.assign_coords(plev=("plev", LEVELS * 100, {"units": "Pa"})).isel(plev=slice(None, None, -1))
        data = data.isel(lat=slice(None, None, -1))
        data.to_netcdf(tmp_path / f"{name}_day_M_historical_gn.nc")

    named = {"ta": "temperature", "ua": "u_component_of_wind", "va": "v_component_of_wind", "hus": "specific_humidity"}
    standard = {"ta": ("K", "air_temperature"), "ua": ("m s-1", "eastward_wind"), "va": ("m s-1", "northward_wind")}
    for short, name in named.items():
        units, cf = standard.get(short, ("1", "specific_humidity"))
        table(short, known[name], units, cf)
    table("zg", known["geopotential"] / 9.80665, "m", "geopotential_height")
    table("tas", known["2m_temperature"] - 273.15, "degC", "air_temperature", height=2.0)
    table("psl", known["mean_sea_level_pressure"] / 100, "hPa", "air_pressure_at_mean_sea_level")
    table("pr", known["mean_total_precipitation_rate"], "kg m-2 s-1", "precipitation_flux")
    orography = (
        known["geopotential_at_surface"].rename("orog").assign_attrs(units="m", standard_name="surface_altitude")
    )
    place = {"lat": LATITUDE, "lon": LONGITUDE}
    orography.rename(latitude="lat", longitude="lon").assign_coords(place).to_netcdf(tmp_path / "orog_fx_M.nc")
    upper = "[" + ", ".join(f"{tmp_path}/{short}_day_*.nc" for short in (*named, "zg")) + "]"
    surface = "[" + ", ".join(f"{tmp_path}/{short}_day_*.nc" for short in ("tas", "psl", "pr")) + "]"
    store = run("cmip6.yaml", tmp_path, [upper, surface, tmp_path / "orog_fx_*.nc"])
    assert store.time.values[0] == days[1] and time_step_seconds(store) == 86400  # means stand at the end of their day
    for name in (*named.values(), "geopotential", "2m_temperature", "mean_sea_level_pressure"):
        np.testing.assert_allclose(store[name].values, known[name].values, rtol=1e-5)
    np.testing.assert_allclose(
        store.geopotential_at_surface.values, known["geopotential_at_surface"].values * 9.80665, rtol=1e-6
    )
    assert levels_of(store).values.tolist() == LEVELS.tolist() and store.latitude.values[0] == 90


def test_the_embedded_model(tmp_path):
    """What `simulate` writes passes through unchanged, and insolation can be derived beside it."""
    planet = small_planet(times=4)
    planet.to_netcdf(tmp_path / "planet.nc")
    (tmp_path / "ingest.yaml").write_text(f"sources: [{{path: {tmp_path}/planet.nc}}]\noutput: {tmp_path}/a.zarr\n")
    name = "mean_top_downward_short_wave_radiation_flux"
    ingest(load_stage("ingest", tmp_path / "ingest.yaml", [f"derive=[{name}]"]))
    store = open_analysis(tmp_path / "a.zarr")
    for other in ("temperature", "surface_pressure", "mean_evaporation_rate"):
        np.testing.assert_array_equal(store[other].values, planet[other].values)
    assert levels_of(store).kind == "sigma" and grid_of(store).kind == "gaussian"
    mesh = grid_of(store).mesh()
    noon = np.mean([mean_insolation(1, 0.5 + h, 0.0, *mesh, samples=1) for h in range(6)], axis=0)
    np.testing.assert_allclose(store[name].values[1], noon, atol=15)


@pytest.mark.parametrize("name", sorted(path.name for path in CONF.glob("*.yaml")))
def test_every_configuration_loads(name):
    config = load_stage("ingest", CONF / name)
    assert config.sources and config.output.suffix == ".zarr"
