"""What CMOR writes beside the field of a file: bounds, and a surface pressure that says nothing of its interval."""

import logging

import numpy as np
import pytest
import xarray as xr

from emulator.ingestion.options import IngestOptions
from emulator.ingestion.run import ingest
from emulator.sources.options import SourceOptions
from emulator.store.analysis import open_analysis


def stored(folder, path, **options) -> xr.Dataset:
    ingest(IngestOptions([SourceOptions(str(path))], **options), folder / "a.zarr")
    return open_analysis(folder / "a.zarr")


def monthly(folder, methods: dict) -> str:
    """Monthly means of `ta` on hybrid levels from the surface up, with `ps` of `formula_terms`, as CMOR writes them."""
    formula = {"standard_name": "atmosphere_hybrid_sigma_pressure_coordinate", "units": "1"}
    latitude = (np.arange(6) - 2.5) * 30
    coordinates = {
        "time": (
            "time",
            [15.5, 45.0, 74.5],
            {"units": "days since 1850-01-01", "bounds": "time_bnds", "calendar": "noleap"},
        ),
        "lev": ("lev", [0.75, 0.25], formula | {"bounds": "lev_bnds", "formula_terms": "ap: ap b: b ps: ps"}),
        "lat": ("lat", latitude, {"units": "degrees_north", "bounds": "lat_bnds"}),
        "lon": ("lon", np.arange(12) * 30.0, {"units": "degrees_east"}),
    }
    values = np.random.default_rng(0).random((3, 2, 6, 12))
    fields = {
        "time_bnds": (("time", "bnds"), [[0.0, 31.0], [31.0, 59.0], [59.0, 90.0]]),
        "lat_bnds": (("lat", "bnds"), np.stack([latitude - 15, latitude + 15], 1)),
        "lev_bnds": (("lev", "bnds"), [[1.0, 0.5], [0.5, 0.0]], formula | {"formula_terms": "ap: ap_bnds b: b_bnds ps: ps"}),
        "ap": ("lev", [5e3, 1e4], {"units": "Pa"}), "b": ("lev", [0.7, 0.1]),
        "ap_bnds": (("lev", "bnds"), [[0.0, 1e4], [1e4, 1e4]]), "b_bnds": (("lev", "bnds"), [[1.0, 0.4], [0.4, 0.0]]),
        "ps": (("time", "lat", "lon"), 1e5 + values[:, 0], {"units": "Pa"} | methods),
        "ta": (("time", "lev", "lat", "lon"), 250 + values, {"units": "K", "cell_methods": "area: time: mean"}),
    }  # fmt: skip
    xr.Dataset(fields, coordinates).to_netcdf(folder / "ta.nc")
    return str(folder / "ta.nc")


def test_the_surface_pressure_of_hybrid_levels_is_what_their_fields_are(tmp_path):
    store = stored(tmp_path, monthly(tmp_path, {}))
    assert store["surface_pressure"].attrs["cell_methods"] == "time: mean (interval: 1 month)"
    assert [str(t)[:10] for t in store["time"].values] == ["1850-02-01", "1850-03-01", "1850-04-01"]
    np.testing.assert_allclose(store["half_level_b"].values, [0.0, 0.4, 1.0])
    with xr.open_dataset(tmp_path / "ta.nc") as file:
        np.testing.assert_array_equal(store["surface_pressure"].values, file["ps"].values[:, ::-1].astype(np.float32))


def test_one_that_says_that_it_is_a_snapshot_stays_one(tmp_path):
    with pytest.raises(ValueError, match="Expected means of temperature whose step divides"):
        stored(tmp_path, monthly(tmp_path, {"cell_methods": "time: point"}))


def test_real_files(tmp_path, shared_data, caplog):
    """Bounds of a real file are no fields that are left out, and ozone by moles is a field of its own."""
    with caplog.at_level(logging.WARNING):
        icon = stored(tmp_path, shared_data / "climate" / "tas_Amon_ICON-ESM-LR_historical_r1i1p1f1_gn_185001.nc")
    assert icon.sizes["cell"] == 20480 and "bnds" not in caplog.text
    (tmp_path / "o3").mkdir()
    path = shared_data / "climate" / "o3_AERmon_MPI-ESM1-2-LR_historical_r1i1p1f1_gn_185001.nc"
    ozone = stored(tmp_path / "o3", path, define={"o3": {}})
    assert ozone["o3"].attrs["units"] == "mol mol-1" and str(ozone["time"].values[0])[:10] == "1850-02-01"
    with xr.open_dataset(path) as file:
        np.testing.assert_array_equal(ozone["o3"].values[0, -1], file["o3"].values[0, 0, ::-1])
