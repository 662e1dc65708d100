"""A masked ocean, soil layers, pressure levels and a scalar series in one store, from a configuration to one screen."""

import numpy as np
import pytest
import xarray as xr
from source_files import TIMES, truth

from emulator.store.analysis import open_analysis
from pipelines.cli import main

TRUTH = truth()
DEPTHS, EDGES = np.array([5.0, 50.0]), np.array([0.0, 0.07, 0.28, 1.0, 2.89])
EXPERIMENT = """
directory: {folder}/run
ingest:
  sources: [{{path: {folder}/*.nc}}, {{path: {folder}/co2.csv, interpolate: linear}}]
  define: {{sea_water_potential_temperature: {{domain: {domain}}}}}
stats: {{}}
"""


@pytest.fixture
def folder(tmp_path):
    """Files with the names of CMIP: the ocean has no values on land, which reaches further at depth."""
    random = np.random.default_rng(0)
    land = random.random((7, 12)) < 0.3
    there = ~np.stack([land, land | (random.random((7, 12)) < 0.2)])
    depth = {"units": "m", "standard_name": "depth", "positive": "down", "axis": "Z"}
    space = {"lat": TRUTH.latitude.values, "lon": TRUTH.longitude.values}
    thetao = np.where(there, random.normal(10, 5, (8, 2, 7, 12)), np.nan)
    attributes = {"units": "degC", "standard_name": "sea_water_potential_temperature"}
    ocean = xr.Dataset({"thetao": (("time", "lev", "lat", "lon"), thetao, attributes)}, {"time": TIMES, **space})
    ocean.assign_coords(lev=("lev", DEPTHS, depth)).to_netcdf(tmp_path / "thetao.nc")
    tsl = random.normal(280, 5, (8, 4, 7, 12))
    soil = {"tsl": (("time", "depth", "lat", "lon"), tsl, {"units": "K", "standard_name": "soil_temperature"})}
    soil = xr.Dataset(
        soil | {"depth_bnds": (("depth", "b"), np.stack([EDGES[:-1], EDGES[1:]], 1))}, {"time": TIMES, **space}
    )
    middles = ("depth", (EDGES[1:] + EDGES[:-1]) / 2, depth | {"bounds": "depth_bnds"})
    soil.assign_coords(depth=middles).to_netcdf(tmp_path / "tsl.nc")
    TRUTH.to_netcdf(tmp_path / "atmosphere.nc")
    (tmp_path / "co2.csv").write_text("time,co2 [ppm]\n2001-01-01,370\n2002-01-01,372\n")
    return tmp_path


def run(folder, domain="valid"):
    (folder / "e.yaml").write_text(EXPERIMENT.format(folder=folder, domain=domain))
    return main(["run", str(folder / "e.yaml")])


def test_from_a_configuration_to_a_store_and_its_statistics(folder, capsys):
    assert run(folder) == 0
    store = open_analysis(folder / "run" / "analysis.zarr")
    assert {"level", "depth", "soil_layer"} <= set(store.dims) and store.carbon_dioxide_mole_fraction.dims == ("time",)
    with xr.open_dataset(folder / "run" / "statistics.nc") as found:
        for name, axis in (
            ("temperature", "level"),
            ("sea_water_potential_temperature", "depth"),
            ("soil_temperature", "soil_layer"),
        ):
            assert found[name].dims == ("statistic", axis) and np.isfinite(found[name]).all()
    capsys.readouterr()
    assert main(["inspect", str(folder / "run" / "analysis.zarr"), "--plot", str(folder / "maps.png")]) == 0
    said = capsys.readouterr().out
    for words in (
        "3 pressure: 300 hPa",
        "2: 5, 50 m",
        "4: 1, 2, 3, 4",
        "sea_water_potential_temperature_mask",
        "carbon_dioxide",
    ):
        assert words in said, said


def test_a_mask_that_is_not_there_leaves_nothing(folder, capsys):
    assert run(folder, "ocean") == 1
    assert "land_sea_mask" in capsys.readouterr().err
    assert not list((folder / "run").glob("analysis.zarr*"))
