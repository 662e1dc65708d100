"""One known state written in every format, order, unit and naming scheme comes back the same."""

import shutil

import fsspec
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from source_files import LATITUDE, LEVELS, LONGITUDE, TIMES, truth, write_grib

from emulator.sources.foreign import open_truth
from emulator.sources.harmonise import pieces
from emulator.sources.open import Source, find, identity, open_source
from emulator.sources.options import SourceOptions

TRUTH = truth()


def read(piece, times=None):
    """A piece as the convention has it, without axes of one."""
    times = range(len(piece.coordinates["time"])) if times is None else times
    return np.squeeze(piece.read(list(times)))


def check(path, tolerance=1e-6):
    found = {p.name: p for source in open_source(str(path)) for p in pieces(source, SourceOptions())}
    for name in ("temperature", "mean_sea_level_pressure"):
        piece = found[name]
        np.testing.assert_allclose(read(piece), TRUTH[name].values, rtol=tolerance)
        np.testing.assert_array_equal(piece.coordinates["latitude"], LATITUDE)
        np.testing.assert_allclose(piece.coordinates["longitude"], LONGITUDE)
        np.testing.assert_array_equal(piece.coordinates["time"], TIMES)
    np.testing.assert_array_equal(found["temperature"].coordinates["level"], LEVELS)
    return found


# --- formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF4", "NETCDF4_CLASSIC"])
def test_netcdf(tmp_path, form):
    TRUTH.to_netcdf(tmp_path / "a.nc", format=form)
    check(tmp_path / "a.nc")


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("consolidated", [True, False])
def test_zarr(tmp_path, version, consolidated):
    TRUTH.to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=consolidated)
    check(tmp_path / "a.zarr")
    shutil.move(tmp_path / "a.zarr", tmp_path / "folder")  # recognised by what is in it
    check(tmp_path / "folder")


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("where", ["disk", "URL"])
def test_zarr_that_was_appended_to(tmp_path, caplog, version, where):
    """Consolidated metadata of half of the times, or without a variable, are not believed."""
    path = str(tmp_path / "a.zarr") if where == "disk" else f"memory://{tmp_path}/a.zarr"
    TRUTH.isel(time=slice(0, 4)).to_zarr(path, zarr_format=version, consolidated=True)
    assert len(open_source(path)[0].dataset.time) == 4 and not caplog.records
    system, folder = fsspec.core.url_to_fs(path)
    metadata = f"{folder}/{'zarr.json' if version == 3 else '.zmetadata'}"
    before = system.cat_file(metadata)
    rest = TRUTH.isel(time=slice(4, 8)).drop_vars("geopotential_at_surface")
    rest.to_zarr(path, append_dim="time", consolidated=False)
    system.pipe_file(metadata, before)
    check(path)
    assert "out of date" in caplog.text and "a.zarr" in caplog.text
    assert open_truth(path).sizes["time"] == 8
    if where == "disk":
        other = str(tmp_path / "b.zarr")
        TRUTH.drop_vars("temperature").to_zarr(other, zarr_format=version, consolidated=True)
        file = tmp_path / "b.zarr" / metadata.rsplit("/", 1)[1]
        before = file.read_bytes()
        TRUTH[["temperature"]].to_zarr(other, mode="a", consolidated=False)
        file.write_bytes(before)
        check(other)


def test_urls():
    system = fsspec.filesystem("memory")
    TRUTH.to_zarr(system.get_mapper("/stores/a.zarr"), zarr_format=2)
    check("memory://stores/a.zarr")
    with system.open("/files/a.nc", "wb") as file:
        file.write(bytes(TRUTH.to_netcdf()))
    check("memory://files/a.nc")
    assert find("memory://files/*.nc") == ["memory:///files/a.nc"] or find("memory://files/*.nc") == [
        "memory://files/a.nc"
    ]
    before = identity("memory://files/a.nc")
    with system.open("/files/a.nc", "wb") as file:
        file.write(b"other")
    assert identity("memory://files/a.nc") != before


@pytest.mark.parametrize("edition", [1, 2])
@pytest.mark.parametrize("north_first", [True, False])
def test_grib(tmp_path, edition, north_first):
    data = TRUTH if north_first else TRUTH.isel(latitude=slice(None, None, -1))
    write_grib(tmp_path / "a.grib", data.temperature, "t", edition)
    write_grib(tmp_path / "a.grib", data.mean_sea_level_pressure, "msl", edition, typeOfLevel="meanSea")
    check(tmp_path / "a.grib", tolerance=1e-6)


def test_what_is_no_source(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing of use")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.nc").write_text("")
    (tmp_path / "broken.nc").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))
    for name, message in (
        ("notes.txt", "GRIB, Icechunk, NetCDF or Zarr"),
        ("folder", "a folder without"),
        ("empty.nc", "GRIB, Icechunk, NetCDF or Zarr"),
        ("broken.nc", "data that opens at"),
        ("absent.nc", "No such file"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            open_source(str(tmp_path / name))
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(
        ValueError, match="among anemoi, csv, grib, icechunk, kerchunk, mllam, netcdf, zarr, got 'excel'"
    ):
        open_source(str(tmp_path / "notes.txt"), "excel")
    with pytest.raises(ValueError, match=r"Expected files at .*\*\.nc4, got none"):
        find([str(tmp_path / "*.nc4")])


# --- order, units, names --------------------------------------------------------------------------------------------

NAMES = {
    "canonical": {},
    "CDS": {"temperature": "t", "mean_sea_level_pressure": "msl", "level": "pressure_level", "time": "valid_time"},
    "CDS, old": {"temperature": "t", "mean_sea_level_pressure": "msl"},
    "CMIP": {
        "temperature": "ta",
        "mean_sea_level_pressure": "psl",
        "level": "plev",
        "latitude": "lat",
        "longitude": "lon",
    },
    "cfgrib": {"temperature": "t", "mean_sea_level_pressure": "msl", "level": "isobaricInhPa"},
}


@settings(max_examples=25, deadline=None)
@given(
    names=st.sampled_from(sorted(NAMES)),
    dims=st.permutations(["time", "level", "latitude", "longitude"]),
    flips=st.sets(st.sampled_from(["latitude", "level"])),
    roll=st.integers(0, 11),
    origin=st.sampled_from([0, -180]),
    pascal=st.booleans(),
    celsius=st.booleans(),
    member=st.booleans(),
)
def test_any_order_unit_and_name(names, dims, flips, roll, origin, pascal, celsius, member):
    data = TRUTH.isel({d: slice(None, None, -1) for d in flips}).roll(longitude=roll, roll_coords=True)
    data = data.assign_coords(longitude=(data.longitude - origin) % 360 + origin)
    if pascal:
        data = data.assign_coords(level=("level", data.level.values * 100, {"units": "Pa"}))
    elif names == "CMIP":
        data["level"].attrs["units"] = "millibar"
    if celsius:
        data["temperature"] = (data.temperature - 273.15).assign_attrs(units="degC")
    if member:
        data = data.assign_coords(number=0)
    data = data.transpose(*dims).rename(NAMES[names])
    found = {p.name: p for p in pieces(Source("a.nc", data), SourceOptions())}
    for name in ("temperature", "mean_sea_level_pressure"):
        np.testing.assert_allclose(read(found[name]), TRUTH[name].values, rtol=2e-7)
        np.testing.assert_allclose(found[name].coordinates["longitude"], LONGITUDE)
        np.testing.assert_array_equal(found[name].coordinates["latitude"], LATITUDE)
    np.testing.assert_allclose(found["temperature"].coordinates["level"], LEVELS)
    assert found["temperature"].vertical == "pressure"


def test_times_and_selections_are_read_in_the_order_asked_for(tmp_path):
    TRUTH.to_netcdf(tmp_path / "a.nc")
    options = SourceOptions(select={"level": [850, 300]})
    found = {p.name: p for source in open_source(str(tmp_path / "a.nc")) for p in pieces(source, options)}
    expected = TRUTH.temperature.sel(level=[300, 850]).values[[5, 1, 1, 6]]
    np.testing.assert_array_equal(read(found["temperature"], [5, 1, 1, 6]), expected)
    with pytest.raises(ValueError, match=r"Expected level 400, got 300, 500, 850 \(temperature in a\.nc\)"):
        pieces(Source("a.nc", TRUTH), SourceOptions(select={"level": 400}))
    for name in ("latitude", "time", "levle"):
        with pytest.raises(ValueError, match=f"select from in a.nc, got '{name}'"):
            pieces(Source("a.nc", TRUTH), SourceOptions(select={name: 3}))


def test_packed_integers_are_unpacked_by_each_file(tmp_path):
    for number, scale in enumerate((0.01, 0.002)):
        part = TRUTH.isel(time=slice(4 * number, 4 * number + 4))
        packing = {"dtype": "int16", "scale_factor": scale, "add_offset": 250.0, "_FillValue": -32767}
        part.to_netcdf(tmp_path / f"{number}.nc", encoding={"temperature": packing})
        (piece,) = (
            p
            for s in open_source(str(tmp_path / f"{number}.nc"))
            for p in pieces(s, SourceOptions(wanted=("temperature",)))
        )
        np.testing.assert_allclose(read(piece), part.temperature.values, rtol=0, atol=scale / 2 * 1.001)


def test_the_longitude_that_closes_the_circle_is_left_out():
    closed = xr.concat(
        [TRUTH, TRUTH.isel(longitude=[0]).assign_coords(longitude=[360.0])], "longitude", data_vars="minimal"
    )
    piece = next(p for p in pieces(Source("a.nc", closed), SourceOptions()) if p.name == "temperature")
    np.testing.assert_array_equal(piece.coordinates["longitude"], LONGITUDE)
    np.testing.assert_array_equal(read(piece), TRUTH.temperature.values)


def test_a_scalar_pressure_is_a_level():
    data = TRUTH.sel(level=500).rename(level="air_pressure")
    piece = next(p for p in pieces(Source("a.nc", data), SourceOptions()) if p.name == "temperature")
    np.testing.assert_array_equal(piece.coordinates["level"], [500])
    assert piece.read([0]).shape == (1, 1, 1, 1, 7, 12)


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_other_calendars(tmp_path, calendar):
    times = xr.date_range("2001-02-27", periods=8, freq="6h", calendar=calendar, use_cftime=True)
    TRUTH.assign_coords(time=times).to_netcdf(tmp_path / "a.nc")
    (source,) = open_source(str(tmp_path / "a.nc"))
    piece = next(p for p in pieces(source, SourceOptions()) if p.name == "temperature")
    assert list(piece.coordinates["time"]) == list(times)
    assert piece.coordinates["time"][0].calendar == calendar
    np.testing.assert_array_equal(read(piece), TRUTH.temperature.values)


def test_signs():
    data = TRUTH[["mean_total_precipitation_rate"]]
    up = data.rename(mean_total_precipitation_rate="hfls")
    up.hfls.attrs = {"units": "W m-2", "standard_name": "surface_upward_latent_heat_flux"}
    (piece,) = pieces(Source("a.nc", up), SourceOptions())
    assert piece.name == "mean_surface_latent_heat_flux"
    np.testing.assert_allclose(read(piece), -data.mean_total_precipitation_rate.values)
    (piece,) = pieces(Source("a.nc", up), SourceOptions(negate=("hfls",)))
    np.testing.assert_allclose(read(piece), data.mean_total_precipitation_rate.values)


def test_means_are_placed_at_the_end_of_their_interval():
    middle = TIMES + np.timedelta64(3, "h")
    bounds = np.stack([TIMES, TIMES + np.timedelta64(6, "h")], axis=1)
    data = TRUTH[["mean_total_precipitation_rate"]].assign_coords(time=("time", middle, {"bounds": "time_bnds"}))
    data["time_bnds"] = (("time", "bnds"), bounds)
    data.mean_total_precipitation_rate.attrs["cell_methods"] = "area: time: mean"
    (piece,) = pieces(Source("a.nc", data), SourceOptions())
    np.testing.assert_array_equal(piece.coordinates["time"], bounds[:, 1])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda d: d.temperature.attrs.update(units="Pa"), {}, "convert to 'K', got 'Pa'"),
        (lambda d: d.temperature.attrs.pop("units"), {}, "Expected units of temperature, got none"),
        (lambda d: d.temperature.attrs.update(units="warmth"), {}, "units that pint knows, got 'warmth'"),
        (lambda d: d, {"rename": {"t": "temprature"}}, "nearest: temperature"),
        (lambda d: d, {"forecast": True}, "Expected a forecast with lead times, got none"),
        (lambda d: d.update({"level": ("level", LEVELS * 100)}), {}, "Expected units of the levels"),
        (lambda d: d.update({"latitude": ("latitude", np.full(7, np.nan))}), {}, "finite values of latitude, got NaN"),
    ],
)
def test_what_cannot_be_understood(change, options, message):
    data = TRUTH.copy(deep=True)
    change(data)
    with pytest.raises(ValueError, match=message):
        pieces(Source("some.nc", data), SourceOptions(**options))


def test_an_unknown_dimension_and_a_curvilinear_grid():
    data = TRUTH.expand_dims(model=[1, 5])
    with pytest.raises(ValueError, match="model of size 2"):
        pieces(Source("a.nc", data), SourceOptions())
    found = pieces(Source("a.nc", data), SourceOptions(select={"model": 5}))
    np.testing.assert_array_equal(read(next(p for p in found if p.name == "temperature")), TRUTH.temperature.values)
    curved = TRUTH.rename(latitude="y", longitude="x").drop_vars(["x", "y"])
    curved = curved.assign_coords(latitude=(("y", "x"), np.zeros((7, 12))), longitude=(("y", "x"), np.zeros((7, 12))))
    with pytest.raises(ValueError, match="curvilinear"):
        pieces(Source("a.nc", curved), SourceOptions())


def test_cells_of_a_point_grid_fill_the_sphere():
    """Eight octants of the sphere, as triangles."""
    corners = [(s * 90.0, 0.0, 0.0) for s in (1, -1) for _ in range(4)]
    east = [(90.0 * n + 45, 90.0 * n, 90.0 * n + 90) for _ in (1, -1) for n in range(4)]
    data = xr.Dataset(
        {
            "2m_temperature": (("time", "cell"), np.full((1, 8), 280.0), {"units": "K"}),
            "latitude_bnds": (("cell", "corner"), np.array(corners)),
            "longitude_bnds": (("cell", "corner"), np.array(east)),
        },
        {
            "time": TIMES[:1],
            "latitude": ("cell", np.repeat([35.0, -35.0], 4), {"bounds": "latitude_bnds"}),
            "longitude": ("cell", np.tile([45.0, 135.0, 225.0, 315.0], 2), {"bounds": "longitude_bnds"}),
        },
    )
    (piece,) = pieces(Source("a.nc", data), SourceOptions())
    np.testing.assert_allclose(piece.coordinates["cell_area"], np.pi / 2, rtol=1e-12)
    assert piece.read([0]).shape == (1, 1, 1, 1, 8)
    with pytest.raises(ValueError, match="cell areas or cell corners"):
        pieces(Source("a.nc", data.drop_vars(["latitude_bnds", "longitude_bnds"])), SourceOptions())


# --- GRIB -----------------------------------------------------------------------------------------------------------


def options_of_grib(path, **options):
    return [p for s in open_source(str(path)) for p in pieces(s, SourceOptions(**options))]


def test_grib_members_and_missing_values(tmp_path):
    field = TRUTH.temperature.expand_dims(number=[0, 1, 2]).copy()
    field += xr.DataArray([0.0, 1.0, 2.0], dims="number")
    write_grib(tmp_path / "a.grib", field, "t", productDefinitionTemplateNumber=1, number=lambda at: at["number"])
    (piece,) = options_of_grib(tmp_path / "a.grib")
    np.testing.assert_array_equal(piece.coordinates["member"], [0, 1, 2])
    np.testing.assert_allclose(np.squeeze(piece.read([2, 3]))[:, 2], TRUTH.temperature.values[2:4] + 2, rtol=1e-6)
    holes = TRUTH.temperature.isel(time=[0]).copy()
    holes[0, 0, 2, 3] = 9999
    write_grib(tmp_path / "b.grib", holes, "t", bitmapPresent=1, missingValue=9999)
    (piece,) = options_of_grib(tmp_path / "b.grib")
    assert np.argwhere(np.isnan(np.squeeze(piece.read([0])))).tolist() == [[0, 2, 3]]


def test_grib_steps_of_short_forecasts_are_placed_at_their_valid_times(tmp_path):
    """ERA5's fluxes: accumulations over the hour that ends at each step of two forecasts a day."""
    rain = TRUTH.mean_total_precipitation_rate.isel(time=slice(0, 4))
    depth = rain * 3600 / 1000  # m in an hour
    for init in range(2):
        for step in (1, 2):
            field = depth.isel(time=[2 * init + step - 1]).assign_coords(time=[TIMES[2 * init]])
            keys = {"stepType": "accum", "typeOfLevel": "surface", "startStep": step - 1, "endStep": step}
            write_grib(tmp_path / "tp.grib", field, "tp", 1, **keys)
    found = options_of_grib(tmp_path / "tp.grib")
    values = {time: piece.read([n]).squeeze() for piece in found for n, time in enumerate(piece.coordinates["time"])}
    hour = np.timedelta64(1, "h")
    expected = [TIMES[0] + hour, TIMES[0] + 2 * hour, TIMES[2] + hour, TIMES[2] + 2 * hour]
    assert sorted(values) == expected
    for number, time in enumerate(expected):
        np.testing.assert_allclose(values[time], rain.values[number], rtol=1e-5)


@pytest.mark.parametrize(("edition", "unit", "size"), [(2, 0, 60), (2, 13, 1), (1, 0, 60), (1, 254, 1), (1, 13, 900)])
def test_grib_steps_are_read_in_their_own_units(tmp_path, edition, unit, size):
    """15, 75 and 135 minutes, counted in minutes, seconds or quarters of an hour, are neither 0, 1 and 2 h nor refused."""
    minutes = np.array([15, 75, 90, 135]) if unit != 254 else np.array([1, 2, 3, 4])
    field = TRUTH.temperature.isel(time=0, level=0)
    for n, step in enumerate(minutes * 60 // size):
        keys = {"unitOfTimeRange": unit, "P1": step} if edition == 1 else {"indicatorOfUnitOfTimeRange": unit}
        keys |= {} if edition == 1 else {"forecastTime": int(step)}
        write_grib(tmp_path / "a.grib", field + n, "t", edition, **{k: int(v) for k, v in keys.items()})
    (piece,) = options_of_grib(tmp_path / "a.grib", forecast=True)
    np.testing.assert_array_equal(piece.coordinates["lead_time"], minutes.astype("timedelta64[m]"))
    for n in range(4):
        np.testing.assert_allclose(piece.read([0], [n]).squeeze(), field + n, rtol=1e-6)


@pytest.mark.parametrize("along", ["rows", "columns"])
def test_grib_rows_in_alternating_directions(tmp_path, along):
    """Every second row, or column of points that are consecutive from north to south, runs the other way."""
    field = TRUTH.temperature.isel(time=0, level=0)
    turned = np.array(field.values if along == "rows" else field.values.T)
    turned[1::2] = turned[1::2, ::-1]
    order = field.copy(data=turned.reshape(field.shape))  # the values one after the other, as the message has them
    write_grib(tmp_path / "a.grib", order, "t", alternativeRowScanning=1, jPointsAreConsecutive=int(along == "columns"))
    (piece,) = options_of_grib(tmp_path / "a.grib")
    np.testing.assert_allclose(read(piece), field.values, rtol=1e-6)
    np.testing.assert_allclose(piece.coordinates["longitude"], LONGITUDE)


def test_both_editions_of_grib_in_one_file(tmp_path):
    """They describe one grid in other bytes, as do other shapes of the Earth; another grid of as many cells is refused."""
    path, field = tmp_path / "a.grib", TRUTH.temperature
    write_grib(path, field.isel(time=[0]), "t", 1)
    write_grib(path, field.isel(time=[1]), "t", 2)
    write_grib(path, field.isel(time=[2]), "t", 2, shapeOfTheEarth=0)
    (piece,) = options_of_grib(path)
    values = piece.read([0, 1, 2])
    np.testing.assert_allclose(values.squeeze(), field.values[:3], rtol=1e-4)
    write_grib(path, field.isel(time=[3], longitude=slice(None)).assign_coords(longitude=field.longitude + 10), "t", 2)
    with pytest.raises(
        ValueError, match=r"Expected one grid in .*, got 2: 7 x 12 .*T00:00 at 0 h\), 7 x 12 .*T18:00 at 0 h"
    ):
        open_source(str(path))


def test_grib_files_that_must_not_be_trusted(tmp_path):
    path = tmp_path / "a.grib"
    field = TRUTH.temperature.isel(time=[0])

    def refused(message):
        with pytest.raises(ValueError, match=message) as caught:
            open_source(str(path))
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)

    write_grib(path, field, "t", 1)
    write_grib(path, field, "t", 1, dataType="fc")
    refused(r"Expected one field for t on pressure 300 hPa from 2001-02-27T00:00 at 0 h .* two \(an and fc\)")
    path.unlink()
    write_grib(path, field, "t")
    write_grib(path, field.isel(level=[0], latitude=slice(0, 5)).assign_coords(time=TIMES[1:2]), "t")
    refused(r"Expected one grid in .*, got 2: 7 x 12 .* 5 x 12")
    path.unlink()
    write_grib(path, field, "t")
    write_grib(path, field.isel(level=[0]).assign_coords(time=TIMES[1:2]), "t")
    refused("got no t at level 500, member 0 from 2001-02-27T06:00")
    path.write_bytes(path.read_bytes()[:-40])
    refused("got a broken one after 3 good ones, near byte")
    path.write_bytes(b"GRIB" + bytes(100))
    refused("broken one|got none")
    path.unlink()
    write_grib(path, TRUTH.mean_sea_level_pressure.isel(time=[0]), "vis")
    refused("GRIB fields of the variable table .*got vis .isobaricInhPa.; .*define: .vis")


def test_grib_agrees_with_cfgrib(tmp_path):
    cfgrib = pytest.importorskip("cfgrib")
    write_grib(tmp_path / "a.grib", TRUTH.temperature, "t")
    other = cfgrib.open_datasets(str(tmp_path / "a.grib"), backend_kwargs={"indexpath": ""})[0]
    (piece,) = options_of_grib(tmp_path / "a.grib")
    np.testing.assert_array_equal(read(piece), other.t.sortby("isobaricInhPa").values)


# --- real files -----------------------------------------------------------------------------------------------------


def test_one_field_by_both_routes(shared_data):
    """Half of each packing step apart at most."""
    grib, netcdf = (
        {
            p.name: p
            for s in open_source(str(shared_data / "era5" / f"test4.{kind}"))
            for p in pieces(s, SourceOptions())
        }
        for kind in ("grib", "nc")
    )
    for name, tolerance in (("temperature", 6.3e-4), ("geopotential", 0.39)):
        np.testing.assert_allclose(read(grib[name]), read(netcdf[name]), rtol=0, atol=tolerance)


def test_multi_field_messages(shared_data):
    """GFS packs u and v into one message; wind speed at 300 hPa is that of a jet, and u is not v."""
    found = {
        p.name: p
        for p in options_of_grib(shared_data / "nwp" / "gfs.grb", forecast=True, select={"level": 300})
        if p.vertical == "pressure" and p.name.endswith("component_of_wind")
    }
    u, v = (np.squeeze(found[f"{c}_component_of_wind"].read([0], [0])) for c in "uv")
    assert 60 < np.hypot(u, v).max() < 120
    assert abs(v.mean()) < 1 < u.mean()


def test_areas_of_icon_triangles(shared_data):
    path = shared_data / "climate" / "tas_Amon_ICON-ESM-LR_historical_r1i1p1f1_gn_185001.nc"
    (source,) = open_source(str(path))
    (piece,) = pieces(source, SourceOptions())
    assert piece.coordinates["cell_area"].sum() == pytest.approx(4 * np.pi, rel=1e-9)
    mean = np.average(np.squeeze(piece.read([0])), weights=piece.coordinates["cell_area"])
    assert 283 < mean < 290
