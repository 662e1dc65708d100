"""Interface coefficients: every way of recording them gives the same, and a selection of levels still fills the column."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.planet.vertical import interfaces_around
from emulator.sources.axes import interfaces

A = np.array([0.0, 2000.0, 5000.0, 3000.0, 0.0])
B = np.array([0.0, 0.0, 0.2, 0.7, 1.0])


def bounds(values):
    return ("lev", "bnds"), np.stack([values[1:], values[:-1]], axis=1)[::-1]  # surface first, lower edge first


def recorded(how):
    if how == "ours":
        return xr.Dataset({"half_level_a": ("half_level", A), "half_level_b": ("half_level", B)})
    if how == "CESM":
        return xr.Dataset({"hyai": ("ilev", A / 9e4), "hybi": ("ilev", B), "P0": 9e4})
    if how == "surface first":
        return xr.Dataset({"a_half": ("half_level", A[::-1]), "b_half": ("half_level", B[::-1])})
    level = xr.DataArray([0.9, 0.5, 0.1, 0.01], dims="lev", attrs={"bounds": "lev_bnds"})
    if how == "CF ap":
        terms = {"formula_terms": "ap: ap_bnds b: b_bnds ps: ps"}
        extra = {"ap_bnds": bounds(A), "b_bnds": bounds(B)}
    else:
        terms = {"formula_terms": "p0: p0 a: a_bnds b: b_bnds ps: ps"}
        extra = {"a_bnds": bounds(A / 1e5), "b_bnds": bounds(B), "p0": ((), 1e5)}
    return xr.Dataset({"lev_bnds": (("lev", "bnds"), np.zeros((4, 2)), terms), **extra}, {"lev": level})


@pytest.mark.parametrize("how", ["ours", "CESM", "surface first", "CF ap", "CF a p0"])
def test_every_way_of_recording(how):
    half_a, half_b = interfaces(recorded(how))
    np.testing.assert_allclose(half_a, A, rtol=1e-12)
    np.testing.assert_allclose(half_b, B, rtol=1e-12)


def test_none_recorded():
    assert interfaces(xr.Dataset({"hyam": ("lev", A)})) is None


@settings(deadline=None)
@given(st.sets(st.integers(1, 20), min_size=1))
def test_a_selection_fills_the_column_and_encloses_its_levels(numbers):
    half_a, half_b = np.linspace(0, 5e3, 21) * np.linspace(1, 0, 21), np.linspace(0, 1, 21) ** 2
    numbers = np.array(sorted(numbers), float)
    some_a, some_b = interfaces_around(half_a, half_b, numbers)
    assert (some_a[0], some_b[0], some_a[-1], some_b[-1]) == (half_a[0], half_b[0], half_a[-1], half_b[-1])
    pressure, all_pressure = some_a + some_b * 1e5, half_a + half_b * 1e5
    for index, number in enumerate(numbers.astype(int)):
        assert pressure[index] <= all_pressure[number - 1] < all_pressure[number] <= pressure[index + 1]
    if len(numbers) == 20:
        np.testing.assert_array_equal(some_b, half_b)


def test_numbers_beyond_the_coefficients():
    with pytest.raises(ValueError, match="within 1 to 4.*7"):
        interfaces_around(A, B, [1.0, 7.0])
    np.testing.assert_array_equal(interfaces_around(A, B, [0.1, 0.2, 0.5, 0.9])[0], A)  # all levels, numbered otherwise


def test_real_tables(shared_data):
    half_a, half_b = interfaces(xr.open_dataset(shared_data / "era5" / "ERA5_Lev_Info.nc", decode_times=False))
    assert len(half_a) == 138 and half_b[-1] == 1 and half_a[-1] == 0
    name = "o3_AERmon_MPI-ESM1-2-LR_historical_r1i1p1f1_gn_185001.nc"
    with xr.open_dataset(shared_data / "climate" / name, decode_times=False) as dataset:
        half_a, half_b = interfaces(dataset)
        middle = (half_a[1:] + half_a[:-1]) / 2 + (half_b[1:] + half_b[:-1]) / 2 * 1e5
        np.testing.assert_allclose(middle[::-1], dataset["ap"] + dataset["b"] * 1e5, rtol=1e-4)
