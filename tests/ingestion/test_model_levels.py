"""Hybrid levels as CESM and ECMWF record them: columns equal an independent sum, pressures are where they are."""

import numpy as np
import pytest
import xarray as xr
from source_files import TIMES, truth, write_grib

from emulator.ingestion.options import IngestOptions, VerticalOptions
from emulator.ingestion.run import ingest
from emulator.sources.harmonise import matches, pieces
from emulator.sources.open import Source
from emulator.sources.options import SourceOptions
from emulator.store.analysis import open_analysis
from emulator.store.schema import levels_of

TRUTH = truth().isel(time=slice(0, 3))
GRAVITY = 9.80665
COUNT = 6
A = np.array([200.0, 3000, 9000, 15000, 12000, 5000, 0])  # Pa
B = np.array([0.0, 0, 0.02, 0.1, 0.4, 0.75, 1])
PS = (
    1e5
    - 45_000
    * np.exp(-((TRUTH.longitude.values - 90) ** 2) / 2000)
    * np.cos(np.radians(TRUTH.latitude.values))[:, None] ** 4
)
PS = PS + np.array([0.0, 200, -300])[:, None, None]  # high ground of some 550 hPa
HALF = A[:, None, None] + B[:, None, None] * PS[:, None]  # (time, interface, latitude, longitude)
FULL = (HALF[:, 1:] + HALF[:, :-1]) / 2
T = 60 + 20 * np.log(FULL)  # linear in the logarithm of pressure, so that interpolation is exact
Q = 1e-2 * (FULL / 1e5) ** 3
OROGRAPHY = GRAVITY * 5000 * (1 - PS[0] / 1e5)
SPACE = ("latitude", "longitude")
PLACE = {"latitude": TRUTH.latitude.values, "longitude": TRUTH.longitude.values}


def cesm(**lev) -> xr.Dataset:
    attributes = {
        "units": "hPa",
        "positive": "down",
        "long_name": "hybrid level at midpoints (1000*(A+B))",
        "standard_name": "atmosphere_hybrid_sigma_pressure_coordinate",
        "formula_terms": "a: hyam b: hybm p0: P0 ps: PS",
    }
    full = ((A[1:] + A[:-1]) / 2 / 1e5, (B[1:] + B[:-1]) / 2)
    return xr.Dataset(
        {
            "T": (("time", "lev", "lat", "lon"), T, {"units": "K"}),
            "Q": (("time", "lev", "lat", "lon"), Q, {"units": "kg/kg"}),
            "PS": (("time", "lat", "lon"), PS, {"units": "Pa"}),
            "hyam": ("lev", full[0]),
            "hybm": ("lev", full[1]),
            "hyai": ("ilev", A / 1e5),
            "hybi": ("ilev", B),
            "P0": ((), 1e5, {"units": "Pa"}),
        },
        {
            "time": TRUTH.time.values,
            "lev": ("lev", 1000 * (full[0] + full[1]), attributes | lev),
            "lat": PLACE["latitude"],
            "lon": PLACE["longitude"],
        },
    )


def ifs_grib(path, surface: str) -> None:
    """t and q on all levels, z and lnsp on the first: all that MARS gives of model levels."""
    pv = {"PVPresent": 1, "pv": np.concatenate([A, B])}
    for time in range(3):
        for short, values in (("t", T), ("q", Q)):
            for level in range(COUNT):
                field = xr.DataArray(values[time, level], PLACE, SPACE).assign_coords(time=TIMES[time])
                write_grib(path, field, short, 2, typeOfLevel="hybrid", level=level + 1, **pv)
        for short, values in (("z", OROGRAPHY), ("lnsp", np.log(PS[time]))):
            field = xr.DataArray(values, PLACE, SPACE).assign_coords(time=TIMES[time])
            name = "sp" if surface == "sp" and short == "lnsp" else short
            level = (
                {"typeOfLevel": "surface", "level": 0} if name == "sp" else {"typeOfLevel": "hybrid", "level": 1, **pv}
            )
            write_grib(path, np.exp(field) if name == "sp" else field, name, 2, **level)


def ifs_netcdf() -> xr.Dataset:
    """The same as CDO writes it, with the surface's fields on a level of their own and the coefficients in Pa."""
    level = {"standard_name": "hybrid_sigma_pressure", "long_name": "hybrid level at layer midpoints", "units": "1"}
    surface = ("time", "lev_2", *SPACE)
    return xr.Dataset(
        {
            "t": (("time", "lev", *SPACE), T, {"units": "K"}),
            "q": (("time", "lev", *SPACE), Q, {"units": "kg kg**-1"}),
            "z": (surface, np.broadcast_to(OROGRAPHY, (3, 1, *OROGRAPHY.shape)), {"units": "m**2 s**-2"}),
            "lnsp": (surface, np.log(PS)[:, None], {"units": "1"}),
            "hyai": ("nhyi", A, {"units": "Pa"}),
            "hybi": ("nhyi", B, {"units": "1"}),
        },
        {
            "time": TRUTH.time.values,
            "lev": ("lev", np.arange(1.0, COUNT + 1), level),
            "lev_2": ("lev_2", [1.0], level),
            **PLACE,
        },
    )


def write(folder, kind: str) -> str:
    path = str(folder / f"a.{'grib' if 'GRIB' in kind else 'nc'}")
    if kind == "CESM":
        cesm().to_netcdf(path)
    elif kind == "CESM without standard names":
        cesm(standard_name="").to_netcdf(path)
    elif kind == "IFS NetCDF":
        ifs_netcdf().to_netcdf(path)
    else:
        ifs_grib(path, "sp" if "sp" in kind else "lnsp")
    return path


KINDS = ("CESM", "CESM without standard names", "IFS NetCDF", "IFS GRIB", "IFS GRIB with sp")


@pytest.mark.parametrize("kind", KINDS)
def test_columns_are_those_of_an_independent_sum(tmp_path, kind):
    path = write(tmp_path, kind)
    ingest(IngestOptions(path, derive=["total_column_water_vapour"]), tmp_path / "a.zarr")
    store = open_analysis(tmp_path / "a.zarr")
    assert store.attrs["vertical_coordinate"] == "hybrid"
    np.testing.assert_allclose(store["surface_pressure"].values, PS, rtol=1e-6)
    water = (Q * np.diff(HALF, axis=1)).sum(axis=1) / GRAVITY
    np.testing.assert_allclose(store["total_column_water_vapour"].values, water, rtol=1e-6)
    mass = sum(levels_of(store).thickness(store["surface_pressure"].values.astype(np.float64))) / GRAVITY
    np.testing.assert_allclose(mass, (PS - A[0]) / GRAVITY, rtol=1e-6)
    if "IFS" in kind:
        assert store["geopotential_at_surface"].dims == SPACE and "geopotential" not in store
        tolerance = 1e-6 * OROGRAPHY.max()
        np.testing.assert_allclose(store["geopotential_at_surface"].values, OROGRAPHY, rtol=1e-6, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_pressure_levels_lie_where_the_pressure_is(tmp_path, kind):
    """The profile is linear in log pressure: exact between the full levels of every column, over high ground too."""
    path = write(tmp_path, kind)
    ingest(IngestOptions(path, vertical=VerticalOptions(pressure=(200.0, 300.0, 500.0))), tmp_path / "a.zarr")
    found = open_analysis(tmp_path / "a.zarr")["temperature"].values
    for n, pressure in enumerate((2e4, 3e4, 5e4)):
        between = (FULL[:, 0] < pressure) & (FULL[:, -1] > pressure)
        assert between.mean() > 0.9
        np.testing.assert_allclose(found[:, n][between], 60 + 20 * np.log(pressure), rtol=1e-6)


def test_geopotential_on_all_levels_is_no_surface(tmp_path):
    """And a pressure level of 1 hPa is none either."""
    data = ifs_netcdf()
    data["z"] = (("time", "lev", *SPACE), 1e4 + T, {"units": "m2 s-2"})
    (piece,) = pieces(Source("a.nc", data[["z", "hyai", "hybi"]]), SourceOptions())
    assert piece.name == "geopotential" and len(piece.coordinates["level"]) == COUNT
    top = data[["z"]].isel(lev=[0]).assign_coords(lev=("lev", [1.0], {"units": "hPa"}))
    assert [match.name for match in matches("z", top["z"])] == ["geopotential"]
