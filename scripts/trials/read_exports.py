"""Exports of a small planet, read back with the packages that they are for.

    python scripts/trials/read_exports.py make FOLDER       # with emulator
    python scripts/trials/read_exports.py read FOLDER       # in an environment with anemoi-datasets, earthkit-data, ...

The two halves are apart since anemoi-datasets 0.5 needs zarr 2 and emulator zarr 3; names of readers after FOLDER run these
alone (`weatherbench`, whose xarray needs zarr 3, where anemoi is not). Reading compares every format with the
NetCDF files, which xarray alone opens, and says for each package how far values are from them as a share of their largest,
or that it is not there.
"""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import xarray as xr

LEVELS = [300.0, 500.0, 850.0]
SHORT = {"t": "temperature", "u": "u_component_of_wind", "q": "specific_humidity", "z": "geopotential"}


def make(folder: Path) -> None:
    """An analysis and an ensemble forecast in every format."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    from small_forecast import small_forecast, write_forecast
    from small_planet import small_planet
    from small_store import write_store

    import emulator as em

    folder.mkdir(parents=True)
    planet = small_planet(times=10, nlat=16, levels=8)
    stores = {"analysis": write_store(folder, planet)}
    stores["forecast"] = write_forecast(folder / "forecast.zarr", small_forecast(planet, (0,), 3, members=2))
    for name, store in stores.items():
        for target in ("netcdf", "grib", "weatherbench", "cmip6", *(["anemoi"] if name == "analysis" else [])):
            ending = ".zarr" if target in ("anemoi", "weatherbench") else ""
            print(em.export(store, target, folder / f"{name}_{target}{ending}", LEVELS))


def apart(found, expected) -> str:
    """The largest difference as a share of the largest value."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return f"{np.abs(found - expected).max() / np.abs(expected).max():.1e}"


def anemoi(folder: Path, truth: xr.Dataset):
    """The analysis by `open_dataset`: values, statistics, places, dates."""
    dataset = importlib.import_module("anemoi.datasets").open_dataset(str(folder / "analysis_anemoi.zarr"))
    index, shape = dataset.name_to_index, (-1, *dataset.field_shape)
    for short, name in SHORT.items():
        for k, level in enumerate(LEVELS):
            values = np.stack([dataset[n][index[f"{short}_{level:g}"], 0] for n in range(len(dataset))])
            yield f"{short}_{level:g}", apart(values.reshape(shape), truth[name].isel(level=k))
    rain = truth["mean_total_precipitation_rate"] * 21600 / 1000
    values = np.stack([dataset[n][index["tp"], 0] for n in range(len(dataset))])
    yield "tp", apart(values.reshape(shape), rain)
    yield "mean of t_500", apart(dataset.statistics["mean"][index["t_500"]], truth["temperature"].isel(level=1).mean())
    spread = float(truth["temperature"].isel(level=1).astype(np.float64).std())
    yield "stdev of t_500", apart(dataset.statistics["stdev"][index["t_500"]], spread)
    tendencies = dataset.statistics_tendencies()["stdev"][index["t_500"]]
    change = truth["temperature"].isel(level=1).astype(np.float64).diff("time").std()
    yield "stdev of t_500's step", apart(tendencies, change)
    yield "latitudes", apart(dataset.latitudes.reshape(dataset.field_shape)[:, 0], truth["latitude"])
    yield "dates", str(bool((dataset.dates == truth["time"].values.astype("datetime64[s]")).all()))
    yield "constant fields", ", ".join(dataset.constant_fields)


def cfgrib(folder: Path, truth: xr.Dataset):
    """The analysis by cfgrib: fields on levels."""
    importlib.import_module("cfgrib")
    (path,) = (folder / "analysis_grib").glob("*.grib2")
    keys = {"typeOfLevel": "isobaricInhPa"}
    found = xr.open_dataset(path, engine="cfgrib", backend_kwargs={"filter_by_keys": keys, "indexpath": ""})
    for short, name in SHORT.items():
        yield short, apart(found[short].sortby("isobaricInhPa"), truth[name])
    keys = {"paramId": 235055}
    rain = xr.open_dataset(path, engine="cfgrib", backend_kwargs={"filter_by_keys": keys, "indexpath": ""})
    (name,) = rain.data_vars
    yield f"{name} at its valid times", apart(rain[name], truth["mean_total_precipitation_rate"])
    yield "valid times", str(bool((rain["valid_time"].values == truth["time"].values).all()))


def earthkit(folder: Path, truth: xr.Dataset):
    """The analysis by earthkit-data: single messages."""
    (path,) = (folder / "analysis_grib").glob("*.grib2")
    fields, values = importlib.import_module("earthkit.data").from_source("file", str(path)), {}
    for field in fields:
        if field.metadata("typeOfLevel") == "isobaricInhPa":
            where = (field.metadata(key) for key in ("shortName", "level", "dataDate", "dataTime"))
            values[tuple(where)] = field.to_numpy()
    for short, name in SHORT.items():
        times = truth["time"].dt
        found = np.stack(
            [
                np.stack([values[short, int(level), int(date), int(hour)] for level in LEVELS])
                for date, hour in zip(times.strftime("%Y%m%d").values, times.hour.values * 100, strict=True)
            ]
        )
        yield short, apart(found, truth[name])


def weatherbench(folder: Path, truth: xr.Dataset):
    """The analysis by xarray, as WeatherBench's loaders open it."""
    found = xr.open_zarr(folder / "analysis_weatherbench.zarr")
    for name in SHORT.values():
        yield name, apart(found[name], truth[name])
    yield (
        "total_precipitation_6hr",
        apart(found["total_precipitation_6hr"], truth["mean_total_precipitation_rate"] * 21.6),
    )


def cmip6(folder: Path, truth: xr.Dataset):
    """Names, units and signs, from the file names."""
    wanted = {
        "ta": ("temperature", 1.0),
        "zg": ("geopotential", 1 / 9.81),
        "pr": ("mean_total_precipitation_rate", 1.0),
    }
    for short, (name, factor) in (wanted | {"hfls": ("mean_surface_latent_heat_flux", -1.0)}).items():
        (path,) = (folder / "analysis_cmip6").glob(f"{short}_*.nc")
        found = xr.open_dataset(path)[short]
        found = found.isel(lat=slice(None, None, -1))
        found = found.isel(plev=slice(None, None, -1)) if "plev" in found.dims else found
        yield f"{short} [{found.attrs['units']}]", apart(found, truth[name] * factor)


def checkers(folder: Path, truth: xr.Dataset):
    """CF's checkers on files of both kinds."""
    files = [next((folder / "analysis_netcdf").glob("*.nc")), next((folder / "forecast_netcdf").glob("*.nc"))]
    files += sorted((folder / "analysis_cmip6").glob("[thp]*.nc"))[:4]
    importlib.import_module("compliance_checker")
    for file in files:
        command = [Path(sys.executable).parent / "compliance-checker", "-t", "cf:1.8", "-c", "lenient", file]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [line for line in done.stdout.splitlines() if line.strip().startswith("*")]
        yield file.name, f"exit {done.returncode}; {' '.join(lines) or 'nothing'}"


def read(folder: Path) -> None:
    """A line for every comparison."""
    (path,) = (folder / "analysis_netcdf").glob("*.nc")
    truth = xr.open_dataset(path)
    for reader in (anemoi, cfgrib, earthkit, weatherbench, cmip6, checkers):
        if len(sys.argv) > 3 and reader.__name__ not in sys.argv[3:]:
            continue
        try:
            for what, difference in reader(folder, truth):
                print(f"{reader.__name__:14}{what:32}{difference}", flush=True)
        except ImportError as error:
            print(f"{reader.__name__:14}not there ({error})")


if __name__ == "__main__":
    {"make": make, "read": read}[sys.argv[1]](Path(sys.argv[2]))
