"""Sources on points without recorded areas: reduced Gaussian GRIB and HEALPix become stores with a dimension `cell`."""

import numpy as np
import pytest
import xarray as xr
from test_grid import healpix

from emulator.store.analysis import open_analysis
from emulator.store.schema import grid_of
from pipelines.cli import main
from pipelines.config import IngestConfig
from pipelines.ingest import ingest


def wave(latitude, longitude):
    """Of mean 280 over the sphere, and of another one over the points of most lists."""
    lat, lon = np.radians(latitude), np.radians(longitude)
    return 280 + 20 * (np.sin(lat) ** 2 - 1 / 3) + 5 * np.cos(lat) * np.sin(lon)


def write_reduced(path, edition):
    """Two times and two levels on the 48 latitudes of a sample of ecCodes; returns the values."""
    eccodes = pytest.importorskip("eccodes")
    found = []
    with open(path, "wb") as file:
        for hour in (0, 6):
            for level in (850, 500):
                handle = eccodes.codes_grib_new_from_samples(f"reduced_gg_pl_48_grib{edition}")
                place = [eccodes.codes_get_array(handle, name) for name in ("latitudes", "longitudes")]
                values = wave(*place) + hour / 6 - (level == 500)
                for key, value in {
                    "shortName": "t",
                    "level": level,
                    "dataDate": 20010101,
                    "dataTime": 100 * hour,
                }.items():
                    eccodes.codes_set(handle, key, value)
                eccodes.codes_set_values(handle, values)
                eccodes.codes_write(handle, file)
                eccodes.codes_release(handle)
                found.append(values)
    return np.stack(found).reshape(2, 2, -1)[:, ::-1]


@pytest.mark.parametrize("edition", [1, 2])
def test_reduced_gaussian_grib(tmp_path, edition, capsys):
    values = write_reduced(tmp_path / "a.grib", edition)
    config = tmp_path / "ingest.yaml"
    config.write_text(f"sources: [{{path: {tmp_path}/a.grib}}]\noutput: {tmp_path}/a.zarr\n")
    assert main(["ingest", str(config)]) == 1
    assert "got a reduced Gaussian grid" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.grib", "ingest.yaml"]
    assert main(["ingest", str(config), "sources.0.points=true"]) == 0
    store = open_analysis(tmp_path / "a.zarr")
    assert store.temperature.dims == ("time", "level", "cell") and list(store.level.values) == [500, 850]
    np.testing.assert_allclose(store.temperature.values, values, atol=0.01)
    grid = grid_of(store)
    assert grid.kind == "points"
    np.testing.assert_allclose(grid.mean(store.temperature.values[0]), [279, 280], atol=2e-3)
    assert abs(store.temperature.values[0, 1].mean() - 280) > 0.02  # the plain mean is another


@pytest.mark.parametrize("form", ["netcdf", "zarr"])
def test_healpix_without_areas(tmp_path, form):
    latitude, longitude = healpix(8)
    data = xr.Dataset(
        {"t2m": (("time", "cell"), wave(latitude, longitude)[None].astype(np.float32), {"units": "K"})},
        {
            "time": [np.datetime64("2001-01-01", "ns")],
            "lat": ("cell", latitude, {"standard_name": "latitude", "units": "degrees_north"}),
            "lon": ("cell", longitude - 180, {"standard_name": "longitude", "units": "degrees_east"}),
        },
    )
    path = tmp_path / ("a.nc" if form == "netcdf" else "in.zarr")
    data.to_netcdf(path) if form == "netcdf" else data.to_zarr(path, consolidated=False)
    ingest(IngestConfig(sources=[{"path": str(path)}], output=tmp_path / "a.zarr"))
    store = open_analysis(tmp_path / "a.zarr")
    np.testing.assert_allclose(store.cell_area, 1 / 768, rtol=1e-12)
    np.testing.assert_allclose(grid_of(store).mean(store["2m_temperature"].values), 280, atol=0.02)


def test_a_real_reduced_grid(shared_data, tmp_path):
    source = {"path": str(shared_data / "bad" / "reduced_gg.grib"), "points": True}
    ingest(IngestConfig(sources=[source], output=tmp_path / "a.zarr"))
    store = open_analysis(tmp_path / "a.zarr")
    assert store.sizes["cell"] == 13280 and abs(float(store.cell_area.sum()) - 1) < 1e-12
    # westerlies at the surface of the middle latitudes, easterlies of the tropics
    wind, latitude = store["10m_u_component_of_wind"].values[0], store.latitude.values
    assert wind[(latitude < -40) & (latitude > -60)].mean() > 3 and wind[np.abs(latitude) < 15].mean() < 0
