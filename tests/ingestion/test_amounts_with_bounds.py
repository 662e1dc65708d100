"""Amounts whose intervals bounds tell, of one length and of calendar months; and interfaces that differ between files."""

import cftime
import numpy as np
import pytest
import xarray as xr
from source_files import LATITUDE, LONGITUDE

from emulator.ingestion.options import IngestOptions
from emulator.ingestion.run import ingest
from emulator.sources.options import SourceOptions
from emulator.store.analysis import open_analysis

RAIN = "mean_total_precipitation_rate"
RATE = 2.5e-5  # kg m-2 s-1
PLACE = {"latitude": LATITUDE, "longitude": LONGITUDE}


def amounts(edges, units="kg m-2") -> xr.Dataset:
    """What falls at RATE between edges, `(n,)` datetime64 or cftime."""
    seconds = np.array([span / np.timedelta64(1, "s") for span in np.diff(edges)]) if edges.dtype.kind == "M" else None
    seconds = np.array([span.total_seconds() for span in np.diff(edges)]) if seconds is None else seconds
    values = np.broadcast_to((RATE * seconds)[:, None, None], (len(seconds), 7, 12)).astype(np.float32)
    field = (("time", *PLACE), values, {"units": units, "cell_methods": "time: sum"})
    dataset = xr.Dataset({"pr": field, "time_bnds": (("time", "nv"), np.stack([edges[:-1], edges[1:]], axis=1))})
    dataset = dataset.assign_coords(time=edges[1:], **PLACE)
    dataset.time.attrs["bounds"] = "time_bnds"
    for name in ("time", "time_bnds"):
        dataset[name].encoding = {"units": "hours since 2001-01-01", "dtype": "float64"}
    return dataset


def stored(folder, dataset, step=None, **options) -> xr.Dataset:
    dataset.to_netcdf(folder / "a.nc")
    ingest(IngestOptions(SourceOptions(str(folder / "a.nc")), step_hours=step, **options), folder / "a.zarr")
    return open_analysis(folder / "a.zarr")


@pytest.mark.parametrize("step", [6, 12])
@pytest.mark.parametrize("units", ["kg m-2", "mm", "m"])
def test_bounds_of_one_length_tell_what_amounts_are_over(tmp_path, units, step):
    edges = np.datetime64("2001-01-01", "ns") + np.arange(9) * np.timedelta64(6, "h")
    dataset = amounts(edges, units)
    if units == "m":
        dataset["pr"] = (dataset.pr / 1000).assign_attrs(dataset.pr.attrs)
    store = stored(tmp_path, dataset, step)
    assert store.sizes["time"] == 48 // step
    np.testing.assert_allclose(store[RAIN], RATE, rtol=1e-6)


@pytest.mark.parametrize("calendar", ["datetime64", "noleap"])
@pytest.mark.parametrize("months", [5, 2, 1])
def test_months_are_divided_by_their_own_lengths(tmp_path, calendar, months):
    """February is shorter by a tenth; the month that a period leaves alone, too."""
    if calendar == "datetime64":
        edges = (np.datetime64("2001-01") + np.arange(6)).astype("datetime64[ns]")
    else:
        edges = np.array([cftime.DatetimeNoLeap(2001, 1 + n, 1) for n in range(6)])
    store = stored(tmp_path, amounts(edges), end=f"2001-{months:02d}")
    assert store.sizes["time"] == months
    np.testing.assert_allclose(store[RAIN], RATE, rtol=1e-6)


def hybrid(first: float, times) -> xr.Dataset:
    level = {"standard_name": "atmosphere_hybrid_sigma_pressure_coordinate", "units": "1"}
    shape = (len(times), 3, 7, 12)
    fields = {
        "t": (("time", "lev", *PLACE), np.full(shape, 250.0, np.float32), {"units": "K"}),
        "hyai": ("ilev", np.array([first, 2000.0, 1000.0, 0.0]), {"units": "Pa"}),
        "hybi": ("ilev", np.array([0.0, 0.3, 0.7, 1.0])),
    }
    return xr.Dataset(fields, {"time": times, "lev": ("lev", [1.0, 2.0, 3.0], level), **PLACE})


@pytest.mark.parametrize(("other", "same"), [(100.0, True), (100.4, True), (900.0, False)])
def test_interfaces_have_to_be_those_of_all_files(tmp_path, other, same):
    times = np.datetime64("2001-01-01", "ns") + np.arange(8) * np.timedelta64(6, "h")
    hybrid(100.0, times[:4]).to_netcdf(tmp_path / "a.nc")
    hybrid(other, times[4:]).to_netcdf(tmp_path / "b.nc")
    options = IngestOptions(str(tmp_path / "?.nc"))
    if same:
        ingest(options, tmp_path / "a.zarr")
        assert float(open_analysis(tmp_path / "a.zarr").half_level_a[0]) == 100.0
        return
    with pytest.raises(ValueError, match="same interfaces .* others in .*b.nc than in .*a.nc, by up to 800 Pa"):
        ingest(options, tmp_path / "a.zarr")
