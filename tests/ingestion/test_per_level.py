"""Fields of one variable a level, as ACE has them, with the coefficients of their interfaces."""

import numpy as np
import pytest
import xarray as xr
from source_files import LATITUDE, LONGITUDE, TIMES

from emulator.ingestion.options import IngestOptions
from emulator.ingestion.run import ingest
from emulator.sources.options import Definition, SourceOptions
from emulator.store.analysis import open_analysis
from emulator.store.schema import levels_of

AK = np.array([0.0, 5000, 12000, 4000, 0])
BK = np.array([0.0, 0, 0.2, 0.7, 1])
NAMES = {
    "air_temperature": ("temperature", "K", 250.0),
    "specific_total_water": ("specific_total_water", "kg/kg", 0.01),
    "eastward_wind": ("u_component_of_wind", "m/s", 3.0),
    "northward_wind": ("v_component_of_wind", "m/s", -2.0),
}
DIMS = ("time", "grid_yt", "grid_xt")
RANDOM = np.random.default_rng(1).random((len(TIMES), 4, 7, 12)).astype(np.float32)


def values(size: float) -> np.ndarray:
    return (size * (1 + 0.1 * RANDOM)).astype(np.float32)


def ace(coefficients: bool = True, first: int = 0) -> xr.Dataset:
    """`(time, lat, lon)` from the south, a variable for each level and coefficient, as ai2cm/ace's data sets have them."""
    fields = {
        f"{name}_{k + first}": (DIMS, values(size)[:, k, ::-1], {"units": units, "long_name": f"{name} level-{k}"})
        for name, (_, units, size) in NAMES.items()
        for k in range(4)
    }
    fields["PRESsfc"] = (DIMS, 1e5 + 0 * RANDOM[:, 0], {"units": "Pa"})
    if coefficients:
        fields |= {f"ak_{k}": ((), number, {"units": "Pa"}) for k, number in enumerate(AK)}
        fields |= {f"bk_{k}": ((), number) for k, number in enumerate(BK)}
    place = {"grid_yt": ("grid_yt", LATITUDE[::-1]), "grid_xt": ("grid_xt", LONGITUDE)}
    dataset = xr.Dataset(fields, {"time": TIMES} | place)
    return dataset.rename(grid_yt="lat", grid_xt="lon")


def made(folder, *sources, name="a.zarr", **options) -> xr.Dataset:
    for number, source in enumerate(sources):
        source.to_netcdf(folder / f"{number}.nc")
    ingest(
        IngestOptions([SourceOptions(str(folder / f"{n}.nc")) for n in range(len(sources))], **options), folder / name
    )
    return open_analysis(folder / name)


def check(store: xr.Dataset, names=NAMES) -> None:
    for name, _, size in (NAMES[n] for n in names):
        assert store[name].dims == ("time", "level", "latitude", "longitude")
        np.testing.assert_array_equal(store[name], values(size))
    levels = levels_of(store)
    assert levels.kind == "hybrid"
    np.testing.assert_array_equal(levels.values, [1, 2, 3, 4])
    np.testing.assert_array_equal(levels.half_a, AK)
    np.testing.assert_array_equal(levels.half_b, BK)


@pytest.mark.parametrize("first", [0, 1])
def test_a_variable_for_each_level_becomes_hybrid_levels(tmp_path, first, caplog):
    store = made(tmp_path, ace(first=first))
    check(store)
    assert "left out" not in caplog.text
    thickness = levels_of(store).thickness(store.surface_pressure.values)
    np.testing.assert_allclose(sum(thickness), 1e5)  # ak and bk fill the column


def test_times_in_several_files_and_coefficients_in_another(tmp_path):
    bare, whole = ace(coefficients=False), ace()
    numbers = whole[[n for n in whole.data_vars if n[:2] in ("ak", "bk")]]
    parts = bare.isel(time=slice(0, 5)).merge(numbers), bare.isel(time=slice(5, 8))
    check(made(tmp_path, *parts))
    check(made(tmp_path, bare, numbers, name="c.zarr"))
    store = made(tmp_path, *parts, name="b.zarr", variables=["temperature"])
    check(store, ["air_temperature"])
    assert "specific_total_water" not in store


def test_without_coefficients_they_are_no_levels(tmp_path, caplog):
    store = made(tmp_path, ace(coefficients=False))
    assert set(store.data_vars) == {"surface_pressure", "cell_area"}
    (line,) = [record.message for record in caplog.records if "levels of one field" in record.message]
    assert "air_temperature_0 to air_temperature_3" in line and "ak_0" in line


def test_one_of_them_may_still_be_a_field_of_its_own(tmp_path):
    store = made(tmp_path, ace(), define={"air_temperature_3": Definition(role="diagnostic")})
    np.testing.assert_array_equal(store.air_temperature_3, values(250.0)[:, 3])
    assert "temperature" not in store and "specific_total_water" in store


def test_a_level_too_many_for_the_coefficients(tmp_path):
    with pytest.raises(ValueError, match=r"within 1 to 3, .* coefficients"):
        made(tmp_path, ace().drop_vars(["ak_4", "bk_4"]))
    with pytest.raises(ValueError, match="as many ak_k as bk_k in .*, got 5 and 4"):
        made(tmp_path, ace().drop_vars(["bk_4"]))
    turned = ace().assign({f"{n}_{k}": values[4 - k] for n, values in (("ak", AK), ("bk", BK)) for k in range(5)})
    with pytest.raises(ValueError, match="from the top down in .*0.nc"):
        made(tmp_path, turned)
