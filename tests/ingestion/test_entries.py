"""Fields that the variable table does not know: by their CF metadata, by a definition, and what contradicts what."""

import logging

import numpy as np
import pytest
import xarray as xr
from source_files import LATITUDE, LONGITUDE, TIMES, truth, write_grib

from emulator.data.channels import Layout
from emulator.exports.cf import to_cf
from emulator.ingestion.options import IngestOptions
from emulator.ingestion.run import ingest
from emulator.options import as_before
from emulator.sources.options import Definition, SourceOptions
from emulator.store.analysis import open_analysis
from emulator.store.schema import entry, variables_by_role

TRUTH = truth()
WAVES = "significant_height_of_combined_wind_waves_and_swell"


def chlorophyll(**attributes) -> xr.DataArray:
    """`(time, latitude, longitude)`, in milligrams, of a name that no table knows."""
    t, north, east = np.meshgrid(np.arange(8.0), np.cos(np.radians(LATITUDE)), np.radians(LONGITUDE), indexing="ij")
    values = (2 + north * np.sin(east + 0.3 * t)).astype(np.float32)
    given = {"units": "mg m-3", "standard_name": "mass_concentration_of_chlorophyll_in_sea_water"} | attributes
    given = {key: value for key, value in given.items() if value is not None}
    place = {"time": TIMES, "latitude": LATITUDE, "longitude": LONGITUDE}
    return xr.DataArray(values, place, ("time", "latitude", "longitude"), "chl", given)


def made(folder, *sources, source=None, **options) -> xr.Dataset:
    """The store of sources written as NetCDF files; `source`: options of all of them."""
    files = []
    for number, dataset in enumerate(sources):
        files.append(SourceOptions(str(folder / f"{number}.nc"), **source or {}))
        dataset.to_netcdf(folder / f"{number}.nc")
    ingest(IngestOptions(files, **options), folder / "a.zarr")
    return open_analysis(folder / "a.zarr")


def with_field(**attributes) -> xr.Dataset:
    return TRUTH.assign(chl=chlorophyll(**attributes))


def test_a_field_enters_by_its_metadata_when_it_is_selected(tmp_path, caplog):
    store = made(tmp_path, with_field(long_name="chlorophyll", cell_methods="time: mean (interval: 6 hours)"),
                 variables=["chl", "mean_sea_level_pressure"])  # fmt: skip
    assert {*variables_by_role(store)["diagnostic"], *variables_by_role(store)["prognostic"]} == {
        "chl", "mean_sea_level_pressure"
    }  # fmt: skip
    np.testing.assert_array_equal(store.chl.values, chlorophyll().values)
    found = entry(store, "chl")
    assert (found.units, found.cell, found.role, found.vertical) == ("mg m-3", "mean", "diagnostic", None)
    assert found.standard_name == "mass_concentration_of_chlorophyll_in_sea_water"
    assert found.long_name == "chlorophyll"


def test_what_is_not_selected_stays_out_and_is_named(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        store = made(tmp_path, with_field())
    assert "chl" not in store
    (line,) = [record.message for record in caplog.records if "left out" in record.message]
    assert "chl" in line and "define: {chl: {}}" in line and "rename: {chl: NAME}" in line


def test_one_stands_for_no_units(tmp_path):
    store = made(tmp_path, with_field(units="%"), define={"chl": Definition(units=1)})
    assert store.chl.attrs["units"] == "1"
    np.testing.assert_allclose(store.chl, chlorophyll() / 100, rtol=1e-6)


def test_an_empty_definition_takes_it_beside_all_that_is_known(tmp_path, caplog):
    store = made(tmp_path, with_field(), define={"chl": Definition()})
    assert {"chl", "temperature", "mean_total_precipitation_rate"} <= set(store)
    assert store.chl.attrs["role"] == "prognostic" and "left out" not in caplog.text


def test_a_definition_says_all_and_the_store_keeps_it(tmp_path):
    given = {"units": "kg m-3", "role": "forcing", "cell": "mean", "sign": "positive", "minimum": 0.0, "maximum": 1e-4}
    given |= {"standard_name": "mass_concentration_of_phytoplankton", "long_name": "plankton", "levels": False}
    store = made(tmp_path, with_field(standard_name=None), define={"plankton": Definition(**given)},
                 source={"rename": {"chl": "plankton"}})  # fmt: skip
    np.testing.assert_allclose(store.plankton.values, 1e-6 * chlorophyll().values.astype(np.float64), rtol=1e-6)
    assert variables_by_role(store)["forcing"] == ["plankton"]
    found = entry(store, "plankton")
    assert {key: getattr(found, key) for key in given if key != "levels"} == {
        k: v for k, v in given.items() if k != "levels"
    }
    layout = Layout.of(store, {"prognostic": ["temperature"], "diagnostic": [], "forcing": ["plankton"]})
    assert layout.moments == ("end",)  # a mean over the step that ends there
    # a store is a source of its own fields
    ingest(IngestOptions(tmp_path / "a.zarr"), tmp_path / "again.zarr")
    again = open_analysis(tmp_path / "again.zarr")
    assert entry(again, "plankton") == found
    np.testing.assert_array_equal(again.plankton, store.plankton)
    # and a forecast of it leaves with CF's names alone
    one = store.isel(time=slice(0, 2)).rename(time="lead_time").assign_coords(
        lead_time=np.array([0, 6], "timedelta64[h]").astype("timedelta64[ns]"), init_time=TIMES[0]
    )  # fmt: skip
    attributes = to_cf(one)["plankton"].attrs
    assert attributes["standard_name"] == given["standard_name"] and attributes["units"] == "kg m-3"
    assert attributes["long_name"] == "plankton" and not {"role", "minimum", "maximum"} & set(attributes)


def test_levels_are_those_of_the_file(tmp_path):
    dataset = TRUTH.assign(haze=(TRUTH.temperature / 100).assign_attrs(units="1"))
    store = made(tmp_path, dataset, define={"haze": Definition(levels=True)})
    assert entry(store, "haze").vertical == "level" and store.haze.dims == store.temperature.dims


def test_values_beyond_defined_bounds_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"chl in mg m-3 between 0\.0 and 2\.0, got [23].* at .*0\.nc"):
        made(tmp_path, with_field(), define={"chl": Definition(minimum=0.0, maximum=2.0)})


def test_a_known_field_may_be_defined_further(tmp_path):
    store = made(tmp_path, TRUTH, define={"temperature": Definition(units="K", role="diagnostic", maximum=350.0)})
    found = entry(store, "temperature")
    assert (found.role, found.maximum, found.minimum) == ("diagnostic", 350.0, 50.0)


def test_a_static_field_of_ones_own(tmp_path):
    depth = chlorophyll(standard_name="sea_floor_depth_below_geoid", units="m").isel(time=0, drop=True)
    store = made(tmp_path, TRUTH.assign(chl=depth), variables=["temperature", "chl"])
    assert variables_by_role(store)["static"] == ["chl"]
    assert store.chl.attrs["units"] == "m" and store.chl.attrs["standard_name"] == "sea_floor_depth_below_geoid"


@pytest.mark.parametrize("definition", [{"role": "static"}, {"cell": "fixed"}])
@pytest.mark.parametrize("files", [[slice(0, 8)], [slice(0, 1), slice(1, 2)], [slice(0, 2), slice(2, 8)]])
def test_a_field_that_moves_is_not_static(tmp_path, definition, files):
    static = ["geopotential_at_surface"]
    sources = [with_field().isel(time=part) for part in files]
    sources = [sources[0], *(source.drop_vars(static) for source in sources[1:])]
    with pytest.raises(ValueError, match=rf"chl, which is static, .*{len(files) - 1 if files[0].stop == 1 else 0}\.nc"):
        made(tmp_path, *sources, define={"chl": Definition(**definition)})


def test_a_static_field_may_be_recorded_at_all_times(tmp_path, caplog):
    """To the rounding of its packing; where a mask of the table moves the log says that its first values are taken."""
    depth = (
        chlorophyll(units="m").isel(time=[0] * 8).assign_coords(time=TIMES) * (1 + 1e-5 * np.arange(8))[:, None, None]
    )
    mask = (chlorophyll() > 2).astype(np.float32).assign_attrs(units="1")
    source = TRUTH.assign(chl=depth.transpose("time", ...).assign_attrs(units="m").astype("f4"), land_sea_mask=mask)
    store = made(tmp_path, source, define={"chl": Definition(role="static")})
    np.testing.assert_allclose(store.chl, chlorophyll().isel(time=0), rtol=1e-6)
    np.testing.assert_array_equal(store.land_sea_mask, mask.isel(time=0))
    (line,) = {record.message for record in caplog.records if "changes in time" in record.message}
    assert "land_sea_mask" in line and "chl" not in line


def test_roles_of_names_that_are_nowhere(tmp_path, caplog):
    with pytest.raises(ValueError, match="under roles, got 'chll'; nearest: chl"):
        made(tmp_path, with_field(), define={"chl": Definition()}, roles={"chll": "forcing"})
    made(tmp_path, with_field(), define={"chl": Definition()}, roles={"chl": "forcing", "vorticity": "forcing"})
    (line,) = [record.message for record in caplog.records if "has a role" in record.message]
    assert line.startswith("vorticity ")


@pytest.mark.parametrize(
    "options", [{"define": {"swh": Definition(domain="valid")}}, {"variables": ["swh", "temperature"]}]
)
def test_a_short_name_of_the_table_that_is_defined_is_told_of(tmp_path, caplog, options):
    height = chlorophyll(units="m", standard_name=None)
    store = made(tmp_path, TRUTH.assign(swh=height).drop_vars("chl", errors="ignore"), **options)
    (line,) = [record.message for record in caplog.records if "field of its own" in record.message]
    assert "swh" in store and line.startswith("swh of ") and WAVES in line


@pytest.mark.parametrize("cells", [(None, "mean"), ("mean", "point")])
def test_snapshots_in_one_file_and_means_in_the_next(tmp_path, cells):
    parts = [with_field(cell_methods=cell and f"time: {cell}") for cell in cells]
    sources = [parts[0].isel(time=slice(0, 4)), parts[1].isel(time=slice(4, 8)).drop_vars("geopotential_at_surface")]
    with pytest.raises(ValueError, match="chl in all files, got snapshots in .* and means in "):
        made(tmp_path, *sources, define={"chl": Definition()})
    if None in cells:
        store = made(tmp_path, *sources, define={"chl": Definition(cell="mean")})
        np.testing.assert_array_equal(store.chl, chlorophyll())


def test_a_second_file_of_another_domain(tmp_path):
    early, late = with_field(domain="land").isel(time=slice(0, 4)), with_field().isel(time=slice(4, 8))
    late.chl.attrs["domain"] = "ocean"
    with pytest.raises(ValueError, match="one domain of chl, got 'land' .* and 'ocean' here .*1\\.nc"):
        made(tmp_path, early, late.drop_vars("geopotential_at_surface"), define={"chl": Definition()})


def test_a_grib_field_that_the_table_does_not_know(tmp_path):
    pytest.importorskip("eccodes")
    write_grib(tmp_path / "a.grib", TRUTH.mean_sea_level_pressure, "vis", typeOfLevel="surface")
    sources = [SourceOptions(str(tmp_path / "a.grib"), rename={"vis": "visibility"})]
    options = IngestOptions(sources, variables=["visibility"], define={"visibility": Definition(role="diagnostic")})
    ingest(options, tmp_path / "a.zarr")
    store = open_analysis(tmp_path / "a.zarr")
    assert (store.visibility.attrs["units"], store.visibility.attrs["role"]) == ("m", "diagnostic")
    np.testing.assert_allclose(store.visibility, TRUTH.mean_sea_level_pressure, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "source", "attributes", "message"),
    [
        ({"define": {"chl": {}}}, {}, {"units": None}, r"units of chl, got none .* define: \{chl: \{units: .*0\.nc"),
        ({"variables": ["chl"]}, {}, {"units": None}, "units of chl, got none"),
        ({"variables": ["chl"]}, {}, {"units": "furlongs of plankton"}, "units that pint knows, got 'furlongs of plankton'"),
        ({"define": {"chl": {"units": "K"}}}, {}, {}, r"units of chl that convert to 'K', got 'mg m-3' .*0\.nc"),
        ({"define": {"chl": {"levels": True}}}, {}, {}, "chl on levels as it is defined, got it on none"),
        ({"define": {"chl": {"levels": "shelf"}}}, {}, {}, "levels of chl among .*depth.*, got 'shelf'"),
        ({"define": {"temperature": {"levels": "depth"}}}, {}, {}, "temperature on depth as it is defined, got it on level"),
        ({"define": {"temperature": {"units": "m"}}}, {}, {}, "temperature in K as the variable table has it, .* in m;"),
        ({"define": {"temperature": {"units": "degC"}}}, {}, {}, "temperature in K .* defined in degC; .*name of its own"),
        ({"define": {"temperature": {"cell": "mean"}}}, {}, {}, "cell of temperature to be 'point' .* defined as 'mean'"),
        ({"define": {"temperature": {"levels": False}}}, {}, {}, "temperature on levels as .*table.*, got it on none"),
        ({"define": {"chl": {"cell": "point"}}}, {}, {"cell_methods": "time: mean"}, "chl as a point .* method 'mean'"),
        ({"define": {"chl": {}}}, {}, {"cell_methods": "time: maximum"}, "snapshot or a mean of chl, .* 'maximum'"),
        ({"define": {"chl": {"role": "forcing"}}, "roles": {"chl": "prognostic"}}, {}, {}, "one role of chl, got forcing"),
        ({"define": {"chl": {}, "green": {}}}, {"rename": {"chl": "green"}}, {}, "chl of .* either defined or renamed"),
        ({"define": {"green": {}}}, {}, {}, "green, which is defined, in the sources, got none of that name"),
        ({}, {"rename": {"chl": "temprature"}}, {}, "table .*'temprature'; nearest: temperature"),
        ({"variables": ["temprature"]}, {}, {}, "table .*'temprature'; nearest: temperature"),
        *[
            ({"define": {name: {}}}, {"rename": {"chl": name}}, {}, f"a field, got '{name}', which stores use")
            for name in ("level", "missing", "cell_area", "half_level_a", "time", "interpolated", "depth_bounds", "statistic",
                         "correction_rms_temperature")
        ],
        ({"define": {"chl": {"domain": "ocean"}}}, {}, {"domain": "land"}, "chl in the domain ocean .* land in its file"),
        ({"define": {"chl": {"domain": "all"}}}, {}, {"domain": "land"}, "chl in the domain all .* land in its file"),
        ({"variables": ["missing"]}, {}, {}, "a field, got 'missing', which stores use"),
        ({"define": {"chl:mean": {}}}, {"rename": {"chl": "chl:mean"}}, {}, "without colons, .* got 'chl:mean'"),
        ({"define": {"x": {}}}, {"rename": {"chl": "x", "mean_sea_level_pressure": "x"}}, {},
         "one variable to rename to x .* got chl and mean_sea_level_pressure"),
    ],
)  # fmt: skip
def test_what_contradicts_or_says_nothing_is_refused_in_a_sentence(tmp_path, options, source, attributes, message):
    with pytest.raises(ValueError, match=message) as caught:
        made(tmp_path, with_field(**attributes), source=source, **options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("a.zarr*"))


def test_bounds_that_exclude_everything():
    with pytest.raises(ValueError, match="minimum below maximum, got 2 and 1"):
        Definition(minimum=2.0, maximum=1.0)


def test_files_of_other_units_become_the_first_one_s(tmp_path):
    early = with_field().isel(time=slice(0, 4))
    late = with_field().isel(time=slice(4, 8))
    late["chl"] = (late.chl / 1e6).assign_attrs(late.chl.attrs | {"units": "kg m-3"})
    static = ["geopotential_at_surface"]
    store = made(tmp_path, early, late.drop_vars(static), variables=["chl", "temperature"])
    np.testing.assert_allclose(store.chl, chlorophyll(), rtol=1e-6)


def test_parts_of_net_fluxes_by_their_own_names(tmp_path):
    """Both parts make the net flux; they are taken themselves when they are selected, or alone."""
    shape = TRUTH.mean_sea_level_pressure
    parts = TRUTH.assign(
        rsds=(shape / 500).assign_attrs(units="W m-2", standard_name="surface_downwelling_shortwave_flux_in_air"),
        rsus=(shape / 2000).assign_attrs(units="W m-2", standard_name="surface_upwelling_shortwave_flux_in_air"),
    )
    net, down, up = (f"mean_surface_{way}_short_wave_radiation_flux" for way in ("net", "downward", "upward"))
    (tmp_path / "both").mkdir()
    both = made(tmp_path / "both", parts)
    assert net in both and not {down, up} & set(both)
    (tmp_path / "chosen").mkdir()
    chosen = made(tmp_path / "chosen", parts, variables=["temperature", net, down, up])
    np.testing.assert_allclose(chosen[net], chosen[down] - chosen[up], rtol=1e-6)
    assert chosen[up].attrs["sign"] == "upward positive"
    (tmp_path / "one").mkdir()
    one = made(tmp_path / "one", parts.drop_vars("rsus"))
    assert down in one and net not in one


def test_options_without_definitions_are_told_by_what_they_were():
    before = as_before(IngestOptions("a.nc"))
    assert "define" not in before and "entries" not in before["sources"][0]
    assert before["sources"][0]["static"] == ("geopotential_at_surface", "land_sea_mask")
