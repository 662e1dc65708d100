"""Missing values: declared in any way, or not declared at all, none of them is stored as a value."""

import netCDF4
import numpy as np
import pytest
import xarray as xr

from emulator.sources.harmonise import pieces
from emulator.sources.open import open_source
from emulator.sources.options import SourceOptions

DEFAULT = {"f4": 9.969209968386869e36, "f8": 9.969209968386869e36, "i2": -32767, "i4": -2147483647}


def write(path, kind, hole, attributes, scale=None, form="NETCDF4"):
    """2 m temperature of 280 K with one hole, which has the value `hole`; as packed numbers where `scale` is given."""
    with netCDF4.Dataset(path, "w", format=form) as file:
        for name, values, units in (
            ("time", [0, 6], "hours since 2001-01-01"), ("lat", [60, 0, -60], "degrees_north"),
            ("lon", [0, 90, 180, 270], "degrees_east"),
        ):  # fmt: skip
            file.createDimension(name, len(values))
            variable = file.createVariable(name, "i4" if name == "time" else "f4", (name,))
            variable.units, variable[:] = units, values
        field = file.createVariable("t2m", kind, ("time", "lat", "lon"), fill_value=False)
        field.set_auto_maskandscale(False)
        field.setncatts({"units": "K", **attributes})
        values = np.full((2, 3, 4), 280 if scale is None else 30 / scale, kind)
        values[1, 2, 3] = hole
        field[:] = values
        if scale is not None:
            field.setncatts({"scale_factor": scale, "add_offset": 250.0})


def read(path):
    (piece,) = [piece for source in open_source(str(path)) for piece in pieces(source, SourceOptions())]
    return np.squeeze(piece.read([0, 1]))


CASES = [
    *[(kind, DEFAULT[kind], {}, 0.01 if kind[0] == "i" else None) for kind in DEFAULT],
    ("f4", 1e20, {"missing_value": "1e20"}, None),
    ("f4", 1e20, {"_FillValue": np.float32(1e20), "missing_value": "1.e+20"}, None),
    ("f4", 1e20, {"missing_value": np.float64(1e20)}, None),  # no value of float32
    ("f4", -9999, {"missing_value": np.int32(-9999)}, None),
    ("f4", -9999, {"missing_value": "-9999"}, None),
    ("f4", np.nan, {"missing_value": "NaN"}, None),
    ("f4", np.nan, {"missing_value": "n/a"}, None),
    ("f8", -999.9, {"missing_value": "-999.9"}, None),
    ("i2", -32768, {"missing_value": "-32768"}, 0.01),
    ("i2", -32768, {"missing_value": -32768.0}, 0.01),
    ("f4", -1e30, {"missing_value": np.array([-1e30, 1e30])}, None),
]


@pytest.mark.parametrize("form", ["NETCDF4", "NETCDF3_CLASSIC"])
@pytest.mark.parametrize(("kind", "hole", "attributes", "scale"), CASES)
def test_a_hole_is_missing_and_nothing_else(tmp_path, form, kind, hole, attributes, scale):
    write(tmp_path / "a.nc", kind, hole, attributes, scale, form)
    values = read(tmp_path / "a.nc")
    assert np.isnan(values[1, 2, 3]) and np.isnan(values).sum() == 1
    np.testing.assert_allclose(values[np.isfinite(values)], 280, rtol=1e-6)


def test_a_scale_in_words_is_refused_and_as_text_read(tmp_path):
    write(tmp_path / "a.nc", "i2", 3000, {"scale_factor": "0.01", "add_offset": "250"})
    values = read(tmp_path / "a.nc")
    assert values[1, 2, 3] == pytest.approx(280) and values[0, 0, 0] == pytest.approx(252.8)
    write(tmp_path / "b.nc", "i2", 3000, {"scale_factor": "small"})
    with pytest.raises(ValueError, match="scale_factor of t2m in .*b.nc"):
        read(tmp_path / "b.nc")


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
def test_text_in_zarr(tmp_path):
    values = np.full((1, 3, 4), 280, np.float32)
    values[0, 0, 0] = -9999
    place = {"latitude": [60.0, 0, -60], "longitude": np.arange(4) * 90.0}
    field = xr.DataArray(values, {"time": [np.datetime64("2001-01-01", "ns")], **place}, ("time", *place), "t2m")
    field.attrs = {"units": "K", "missing_value": "-9999"}
    field.to_dataset().to_zarr(tmp_path / "a.zarr", zarr_format=3)
    (piece,) = pieces(open_source(str(tmp_path / "a.zarr"))[0], SourceOptions())
    read = np.squeeze(piece.read([0]))
    assert np.isnan(read[0, 0]) and np.isnan(read).sum() == 1


def test_coordinates_keep_their_types(tmp_path):
    write(tmp_path / "a.nc", "f4", 280, {})
    dataset = open_source(str(tmp_path / "a.nc"))[0].dataset
    assert np.issubdtype(dataset["time"].dtype, np.datetime64) and "_FillValue" not in dataset["lat"].encoding
