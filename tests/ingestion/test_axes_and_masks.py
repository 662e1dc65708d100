"""Several vertical axes, masks and series without space, from files to a store, its statistics and its climatology."""

import numpy as np
import pytest
import xarray as xr
from source_files import LATITUDE, LONGITUDE, TIMES, truth, write_grib

from emulator.data.channels import Channels
from emulator.ingestion.options import GridOptions, IngestOptions
from emulator.ingestion.run import ingest
from emulator.ingestion.series import at_times
from emulator.sources.open import Source
from emulator.sources.options import Definition, SourceOptions
from emulator.sources.series import series
from emulator.store.analysis import AnalysisSeries, open_analysis
from emulator.store.climatology import ClimatologyOptions, write_climatology
from emulator.store.forecast import open_forecast
from emulator.store.masks import domain_of
from emulator.store.schema import grid_of
from emulator.store.statistics import write_statistics

TRUTH = truth()
THETAO, SOIL, CO2 = "sea_water_potential_temperature", "soil_temperature", "carbon_dioxide_mole_fraction"
DEPTHS = np.array([5.0, 50.0])
RANDOM = np.random.default_rng(0)
LAND = RANDOM.random((7, 12)) < 0.3
SEABED = LAND | (RANDOM.random((7, 12)) < 0.3)
EXISTS = ~np.stack([LAND, SEABED])


def ocean(times=TIMES, domain="valid", fill=np.nan) -> xr.Dataset:
    """As CMIP has it, with the deep level and the south first, and `fill` on land and below the sea floor."""
    values = (
        RANDOM_OCEAN[: len(times)]
        if len(times) <= len(RANDOM_OCEAN)
        else np.resize(RANDOM_OCEAN, (len(times), 2, 7, 12))
    )
    attributes = {"units": "degC", "standard_name": THETAO} | ({"domain": domain} if domain else {})
    lev = {"units": "m", "standard_name": "depth", "positive": "down", "axis": "Z", "bounds": "lev_bnds"}
    return xr.Dataset(
        {
            "thetao": (("time", "lev", "lat", "lon"), np.where(EXISTS, values, fill), attributes),
            "lev_bnds": (("lev", "bnds"), np.array([[0.0, 10.0], [10.0, 90.0]])),
            "sftlf": (("lat", "lon"), np.where(LAND, 100.0, 0.0), {"units": "%"}),
        },
        {"time": times, "lev": ("lev", DEPTHS, lev), "lat": LATITUDE, "lon": LONGITUDE},
    ).isel(lev=slice(None, None, -1), lat=slice(None, None, -1))


RANDOM_OCEAN = RANDOM.normal(10, 5, (8, 2, 7, 12)).astype(np.float32)


def made(folder, *sources, name="a.zarr", **options) -> xr.Dataset:
    paths = []
    for number, source in enumerate(sources):
        if isinstance(source, xr.Dataset):
            source.to_netcdf(path := folder / f"{name}-{number}.nc")
            source = path
        paths.append(source if isinstance(source, SourceOptions) else SourceOptions(str(source)))
    ingest(IngestOptions(paths, **options), folder / name)
    return open_analysis(folder / name)


def test_a_masked_ocean_on_two_depths(tmp_path):
    store = made(tmp_path, ocean())
    field = store[THETAO]
    assert field.dims == ("time", "depth", "latitude", "longitude") and field.attrs["domain"] == f"{THETAO}_mask"
    np.testing.assert_array_equal(store.depth, DEPTHS)
    np.testing.assert_array_equal(store[store.depth.attrs["bounds"]], [[0, 10], [10, 90]])
    np.testing.assert_array_equal(domain_of(store, THETAO), EXISTS)
    np.testing.assert_allclose(field.values, np.where(EXISTS, RANDOM_OCEAN, np.nan) + 273.15, rtol=1e-6)
    assert "missing" not in store and store[f"{THETAO}_mask"].attrs["role"] == "static"
    write_statistics([tmp_path / "a.zarr"], tmp_path / "s.nc")
    found = xr.load_dataset(tmp_path / "s.nc")[THETAO]
    assert found.dims == ("statistic", "depth")
    area = grid_of(store).area * np.ones((8, 1, 1))
    for level in range(2):
        inside = np.broadcast_to(EXISTS[level], area.shape)
        values = field.values[:, level].astype(np.float64)[inside]
        mean = np.average(values, weights=area[inside])
        std = np.sqrt(np.average((values - mean) ** 2, weights=area[inside]))
        np.testing.assert_allclose(found.sel(statistic=["mean", "std"])[:, level], [mean, std], rtol=1e-10)
        change = np.diff(field.values[:, level].astype(np.float64), axis=0)[inside[1:]]
        np.testing.assert_allclose(
            found.sel(statistic="difference_mean")[level], np.average(change, weights=area[1:][inside[1:]])
        )


def with_sea_floor() -> xr.Dataset:
    """The ocean with a mask of its own, in which half and more of a cell is water, and anything under it."""
    there = np.where(EXISTS, 0.5 + 0.5 * RANDOM.random(EXISTS.shape), 0.49)
    floor = xr.DataArray(there, dims=("lev", "lat", "lon"), attrs={"units": "1", "standard_name": "water_share"})
    source = ocean(domain=None, fill=1e6).isel(lev=slice(None, None, -1), lat=slice(None, None, -1))
    return source.assign(sea_floor=floor)


@pytest.mark.parametrize("grid", [None, GridOptions(5)])
def test_a_mask_of_the_source_s_own_differs_by_level(tmp_path, grid):
    define = {THETAO: Definition(domain="sea_floor")}
    source = with_sea_floor()
    store = made(tmp_path, source, define=define, grid=grid)
    mask = store.sea_floor
    assert mask.dims == ("depth", "latitude", "longitude") and mask.attrs["role"] == "static"
    np.testing.assert_array_equal(np.isfinite(store[THETAO]), np.broadcast_to(mask >= 0.5, store[THETAO].shape))
    np.testing.assert_array_equal(domain_of(store, THETAO), mask >= 0.5)
    assert float(store[THETAO].max()) < 330  # nothing of what lies under it
    if grid is None:
        np.testing.assert_array_equal(mask, source.sea_floor.astype(np.float32))


@pytest.mark.parametrize("grid", [None, GridOptions(5), GridOptions(5, method="bilinear")])
def test_what_lies_under_a_mask_changes_nothing(tmp_path, grid):
    """By the land-sea mask, whatever a file has on land; on another grid the cells that are mostly sea are all there."""
    kept = []
    for number, fill in enumerate((np.nan, 7.0, -1e6)):
        source = ocean(domain="ocean", fill=fill)
        bilinear = {"bilinear": ("land_sea_mask", THETAO)} if grid and grid.method == "bilinear" else {}
        asked = GridOptions(5, **bilinear) if grid else None
        store = made(tmp_path, source.isel(lev=[1]), name=f"{number}.zarr", grid=asked)
        kept.append(store[THETAO].values)
        sea = domain_of(store, THETAO)
        np.testing.assert_array_equal(np.isfinite(kept[-1]), np.broadcast_to(sea, kept[-1].shape))
        np.testing.assert_array_equal(sea[0], store.land_sea_mask.values < 0.5)
    for other in kept[1:]:
        np.testing.assert_array_equal(other, kept[0])


def test_a_mask_per_level_in_a_climatology(tmp_path):
    """Inside it is the mean that the values have; outside there is none."""
    times = np.datetime64("2001-01-01", "ns") + np.arange(366) * np.timedelta64(1, "D")
    field = ocean(times)
    field["thetao"] = field.thetao.isel(time=0, drop=True).expand_dims(time=times).transpose(*field.thetao.dims)
    made(tmp_path, field)
    write_climatology([tmp_path / "a.zarr"], tmp_path / "c.zarr", ClimatologyOptions())
    climatology = xr.open_zarr(tmp_path / "c.zarr")[THETAO]
    assert climatology.dims == ("hour", "dayofyear", "depth", "latitude", "longitude")
    expected = np.broadcast_to(np.where(EXISTS, RANDOM_OCEAN[0] + 273.15, np.nan), climatology.shape)
    np.testing.assert_allclose(climatology.values, expected, rtol=1e-6)


def soil() -> xr.Dataset:
    """Four layers measured in cm, the lowest first, as a land model may have them."""
    edges = np.array([0.0, 7, 28, 100, 289])
    values = 280 + np.arange(8.0)[:, None, None, None] + np.arange(4.0)[:, None, None] + np.zeros((7, 12))
    depth = {"units": "cm", "standard_name": "depth", "positive": "down", "bounds": "depth_bnds"}
    tsl = {"units": "K", "standard_name": "soil_temperature", "long_name": "Temperature of Soil"}
    return xr.Dataset(
        {
            "tsl": (("time", "depth", "lat", "lon"), values, tsl),
            "depth_bnds": (("depth", "bnds"), np.stack([edges[:-1], edges[1:]], 1)),
        },
        {"time": TIMES, "depth": ("depth", (edges[1:] + edges[:-1]) / 2, depth), "lat": LATITUDE, "lon": LONGITUDE},
    ).isel(depth=slice(None, None, -1))


def yearly(folder, *rows):
    (folder / "co2.csv").write_text("# global means\ntime,co2 [ppm]\n" + "".join(f"{t},{v}\n" for t, v in rows))
    return SourceOptions(str(folder / "co2.csv"), interpolate="linear")


def test_soil_layers_pressure_levels_and_a_series(tmp_path):
    store = made(tmp_path, TRUTH, soil(), yearly(tmp_path, ("2001-01-01", 370), ("2002-01-01", 373.65)))
    np.testing.assert_array_equal(store.temperature.values, TRUTH.temperature.values)
    np.testing.assert_array_equal(store.level, TRUTH.level)
    assert store[SOIL].dims == ("time", "soil_layer", "latitude", "longitude")
    np.testing.assert_array_equal(store.soil_layer, [1, 2, 3, 4])
    np.testing.assert_allclose(store.soil_layer_bounds, [[0, 0.07], [0.07, 0.28], [0.28, 1], [1, 2.89]])
    np.testing.assert_array_equal(store[SOIL][:, :, 0, 0], 280 + np.arange(8.0)[:, None] + np.arange(4))
    days = (TIMES - np.datetime64("2001-01-01")) / np.timedelta64(1, "D")
    assert store[CO2].dims == ("time",) and store[CO2].attrs["role"] == "forcing"
    np.testing.assert_allclose(store[CO2], 1e-6 * (370 + 3.65 * days / 365), rtol=1e-6)
    assert Channels.of(store, ["temperature", SOIL, "mean_sea_level_pressure"]).levels == (3, 4, 0)
    write_statistics([tmp_path / "a.zarr"], tmp_path / "s.nc")
    found = xr.load_dataset(tmp_path / "s.nc")
    np.testing.assert_allclose(found[SOIL].sel(statistic="mean"), 283.5 + np.arange(4))
    np.testing.assert_allclose(
        found[CO2].sel(statistic=["mean", "maximum"]), [store[CO2].mean(), store[CO2].max()], rtol=1e-6
    )
    change = np.diff(store[CO2].values.astype(np.float64)).mean()
    np.testing.assert_allclose(found[CO2].sel(statistic="difference_mean"), change, rtol=1e-10)


@pytest.mark.parametrize("name", ["sdepth", "sd", "depth"])
def test_soil_on_a_dimension_of_any_name(tmp_path, name):
    """CF's `depth` of a field of the soil is enough, whatever the dimension is called."""
    store = made(tmp_path, TRUTH, soil().rename(depth=name))
    np.testing.assert_array_equal(store[SOIL][:, :, 0, 0], 280 + np.arange(8.0)[:, None] + np.arange(4))


@pytest.mark.parametrize(
    ("source", "name", "facts"),
    [
        (ocean().rename(lev="zz"), "thetao", (THETAO, "depth", "zz", "without standard_name and units")),
        (
            soil().rename(depth="zz"),
            "tsl",
            (SOIL, "soil_layer", "zz", "standard_name height and units m", "taken for height"),
        ),
        (
            TRUTH[["temperature"]].isel(level=0, drop=True).rename(temperature="ta"),
            "ta",
            ("dimension level", "ta has none"),
        ),
    ],
)
def test_a_field_left_out_for_its_vertical_axis_is_told_of_by_that(tmp_path, caplog, source, name, facts):
    for coordinate in {"zz"} & set(source.coords):
        height = {"standard_name": "height", "units": "m"} if name == "tsl" else {}
        source = source.assign_coords(zz=("zz", source.zz.values, height))
    made(tmp_path, TRUTH[["mean_sea_level_pressure"]].merge(source.drop_vars("sftlf", errors="ignore")))
    (line,) = [record.message for record in caplog.records if "left out" in record.message]
    assert line.startswith(f"{name} of ") and all(fact in line for fact in facts) and "no entry" not in line


@pytest.mark.parametrize(
    ("column", "define", "message"),
    [
        ("dust", {}, r"define: \{dust: \{role: forcing\}\}"),
        ("dust", {"dust": Definition(role="prognostic")}, "forcing for the series dust, got prognostic .*co2.csv"),
        ("co2", {CO2: Definition(role="prognostic")}, f"forcing for the series {CO2}, got prognostic .*co2.csv"),
    ],
)
def test_a_series_that_nothing_tells_of(tmp_path, column, define, message):
    csv = yearly(tmp_path, ("2001-01-01", 370), ("2002-01-01", 374))
    (tmp_path / "co2.csv").write_text((tmp_path / "co2.csv").read_text().replace("co2 [ppm]", f"{column} [1e-6]"))
    with pytest.raises(ValueError, match=message):
        made(tmp_path, TRUTH, csv, define=define)


def test_a_store_is_a_source_of_itself(tmp_path):
    csv = yearly(tmp_path, ("2001-01-01", 370), ("2002-01-01", 374))
    once = made(tmp_path, TRUTH, soil(), ocean(), csv)
    again = made(tmp_path, tmp_path / "a.zarr", name="b.zarr")
    for name, field in once.variables.items():
        np.testing.assert_array_equal(field.values, again[name].values, err_msg=str(name))
        assert field.dims == again[name].dims and field.attrs == again[name].attrs, name


def test_new_times_of_masked_fields_and_series_are_appended(tmp_path):
    csv = yearly(tmp_path, ("2001-01-01", 370), ("2002-01-01", 374))
    ocean().to_netcdf(tmp_path / "o.nc")
    sources = [SourceOptions(str(tmp_path / "o.nc")), csv]
    ingest(IngestOptions(sources), tmp_path / "whole.zarr")
    ingest(IngestOptions(sources, end=TIMES[3]), tmp_path / "grown.zarr")
    ingest(IngestOptions(sources), tmp_path / "grown.zarr", append=True)
    whole, grown = (open_analysis(tmp_path / name) for name in ("whole.zarr", "grown.zarr"))
    xr.testing.assert_identical(whole.drop_attrs(), grown.drop_attrs())
    other = yearly(tmp_path, ("2001-01-01", 371), ("2002-01-01", 374))
    with pytest.raises(ValueError, match=f"{CO2} to append as it is"):
        ingest(IngestOptions([sources[0], other]), tmp_path / "grown.zarr", append=True)


def test_stores_of_other_depths_make_no_series(tmp_path):
    one, two = ocean(TIMES[:4]), ocean(TIMES[4:])
    stores = [made(tmp_path, one, name="1.zarr"), made(tmp_path, two.assign_coords(lev=two.lev * 2), name="2.zarr")]
    with pytest.raises(ValueError, match="the same levels"):
        AnalysisSeries.of(stores)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (
            [ocean(domain="no_such_mask")],
            f"static field no_such_mask in the sources for the domain 'no_such_mask' of {THETAO}",
        ),
        (
            [ocean(domain="ocean").drop_vars("sftlf")],
            f"static field land_sea_mask in the sources for the domain 'ocean' of {THETAO}",
        ),
        ([ocean(domain=None)], f"values of {THETAO} everywhere, got .* missing.*has a domain"),
        (  # below the sea floor
            [ocean(domain="ocean")],
            f"values of {THETAO} everywhere in its domain ocean, got .* missing.*domain: valid",
        ),
        (
            [ocean().assign(thetao=ocean().thetao.where(ocean().time < TIMES[3]))],
            rf"values of {THETAO} everywhere in its domain {THETAO}_mask, got .* missing ones at .*\); one with gaps",
        ),
        (
            [ocean(TIMES[:4]), ocean(TIMES[4:], domain="ocean")],
            f"one domain of {THETAO}, got '(valid|ocean)' in .* and",
        ),
        ([ocean().assign(thetao=ocean().thetao.where(ocean().time > TIMES[0]))], "first time for the domain valid"),
        (
            [ocean(), ocean().rename(thetao="so").assign_coords(lev=("lev", [51.0, 6], ocean().lev.attrs))],
            "same depths for all fields.*select",
        ),
    ],
)
def test_masks_and_axes_that_do_not_fit(tmp_path, sources, message):
    for source in sources:
        if "so" in source:
            source["so"].attrs = {"units": "g kg-1", "domain": "valid"}
    with pytest.raises(ValueError, match=message) as caught:
        made(tmp_path, *sources)
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("a.zarr*/"))


def test_values_that_appear_outside_of_where_the_first_time_has_some_are_counted(tmp_path, caplog):
    """As sea ice of winter does in a record that begins in summer."""
    made(tmp_path, ocean(), name="alike.zarr")
    assert "first time" not in caplog.text
    late, values = ocean(), ocean().thetao.values.copy()
    values[5:, ~EXISTS[::-1, ::-1]] = 10.0
    store = made(tmp_path, late.assign(thetao=(late.thetao.dims, values, late.thetao.attrs)), times_per_region=2)
    np.testing.assert_array_equal(np.isfinite(store[THETAO]), np.broadcast_to(EXISTS, store[THETAO].shape))
    (line,) = [record.message for record in caplog.records if "first time" in record.message]
    assert line.startswith(f"{THETAO} has {3 * (~EXISTS).sum()} values ")


def test_a_domain_of_no_mask_is_named_as_one(tmp_path):
    with pytest.raises(ValueError, match=rf"domain of {THETAO} .* land, ocean, valid or .*, got 'nomask'"):
        made(tmp_path, ocean(domain=None), define={THETAO: Definition(domain="nomask")})


def test_gaps_in_time_are_those_of_times_alone(tmp_path):
    """A time that no file has is missing; land and the sea floor are not."""
    store = made(tmp_path, ocean().isel(time=[0, 1, 3, 4]), missing="keep")
    np.testing.assert_array_equal(store.missing, [False, False, True, False, False])
    filled = made(tmp_path, ocean().isel(time=[0, 1, 3, 4]), name="b.zarr", missing="interpolate")
    middle = (RANDOM_OCEAN[1] + RANDOM_OCEAN[3]) / 2 + 273.15
    np.testing.assert_allclose(filled[THETAO][2], np.where(EXISTS, middle, np.nan), rtol=1e-6)
    assert "missing" not in filled and filled.attrs["interpolated_times"] == 1


def test_forecasts_of_masked_fields(tmp_path):
    forecasts = ocean(TIMES[:4]).rename(time="step").expand_dims(time=TIMES[:1])
    forecasts = forecasts.assign_coords(step=("step", np.arange(4) * np.timedelta64(6, "h")))
    forecasts = forecasts.transpose("time", "step", ...).drop_vars(["sftlf", "lev_bnds"])
    forecasts.to_netcdf(tmp_path / "f.nc")
    ingest(IngestOptions(tmp_path / "f.nc", kind="forecast"), tmp_path / "f.zarr")
    store = open_forecast(tmp_path / "f.zarr")
    assert store[THETAO].dims == ("init_time", "lead_time", "depth", "latitude", "longitude")
    np.testing.assert_allclose(store[THETAO][0], np.where(EXISTS, RANDOM_OCEAN[:4], np.nan) + 273.15, rtol=1e-6)
    np.testing.assert_array_equal(domain_of(store, THETAO), EXISTS)


def test_series_in_the_calendar_of_a_model():
    """Yearly means of 360 days, with bounds: between their middles, which are a year apart."""
    days = xr.date_range("2001-01-01", periods=3, freq="YS", calendar="360_day", use_cftime=True)
    ends = xr.date_range("2002-01-01", periods=3, freq="YS", calendar="360_day", use_cftime=True)
    source = xr.Dataset(
        {"co2": ("time", [370.0, 372, 374], {"units": "ppm", "cell_methods": "time: mean"})}, {"time": days}
    )
    source["time"].attrs["bounds"] = "time_bnds"
    source["time_bnds"] = ("time", "bnds"), np.stack([days, ends], 1)
    (found,) = series(Source("a.nc", source), SourceOptions(interpolate="linear"))
    wanted = xr.date_range("2001-07-01", periods=5, freq="180D", calendar="360_day", use_cftime=True).values
    np.testing.assert_allclose(at_times(found, wanted), np.linspace(370e-6, 374e-6, 5), rtol=1e-12)
    with pytest.raises(ValueError, match="calendar of the store, standard, got 360_day"):
        at_times(found, TIMES)


def on_the_surface() -> xr.Dataset:
    """A field without levels beside the mask of one that has some."""
    source = with_sea_floor()
    return source.assign(zos=source.thetao.isel(lev=0, drop=True).assign_attrs(units="m", standard_name="x"))


def deeper() -> xr.Dataset:
    """The mask alone, on other depths than its field."""
    source = with_sea_floor()[["sea_floor"]]
    return source.assign_coords(lev=("lev", source.lev.values + 1, source.lev.attrs))


ELSEWHERE = with_sea_floor()[["sea_floor"]].isel(lon=slice(0, 6), lat=slice(0, 4))


@pytest.mark.parametrize("grid", [None, GridOptions(5)])
@pytest.mark.parametrize(
    ("sources", "name", "message"),
    [
        ([on_the_surface()], "sea_surface_height", r"mask sea_floor (of|on the levels of) sea_surface_height"),
        (
            [ocean(domain=None), deeper()],
            THETAO,
            f"same depths for all fields|mask sea_floor on the levels of {THETAO}",
        ),
        ([ocean(domain=None), ELSEWHERE], THETAO, "one grid|a source that covers"),
    ],
)
def test_masks_that_do_not_fit_their_field(tmp_path, sources, name, message, grid):
    with pytest.raises(ValueError, match=message) as caught:
        made(tmp_path, *sources, define={name: Definition(domain="sea_floor")}, grid=grid)
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("a.zarr*/"))


@pytest.mark.parametrize(
    ("rows", "interpolate", "message"),
    [
        (
            [("2001-02-27", 370), ("2001-03-02", 371)],
            None,
            r"every time of the store, got no value for 2001-02-27T06.*interpolate",
        ),
        (
            [("2001-01-01", 370), ("2001-02-28", 371)],
            "linear",
            r"every time of the store, got no value for 2001-02-28T06",
        ),
        ([("2001-01-01", ""), ("2001-03-28", 371)], "linear", r"got no value for 2001-02-27T00"),
        ([("2001-01-01", 370), ("2001-01-01", 371)], "linear", r"once for 2001-01-01.*twice"),
        ([("2001-01-01", -370), ("2001-03-28", -371)], "linear", r"between 0.* and .* at 2001-02-27"),
        ([("yesterday", 370)], "linear", "a time and 1 numbers in row 1 of .*co2.csv, got 'yesterday,370'"),
        ([], "linear", "rows of times and numbers in .*co2.csv"),
    ],
)
def test_series_that_do_not_fit(tmp_path, rows, interpolate, message):
    yearly(tmp_path, *rows)
    with pytest.raises(ValueError, match=message) as caught:
        made(tmp_path, TRUTH, SourceOptions(str(tmp_path / "co2.csv"), interpolate=interpolate))
    assert CO2 in str(caught.value) or "co2.csv" in str(caught.value)
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("a.zarr*/"))


@pytest.mark.parametrize(("kind", "levels"), [("soilLayer", (1, 2, 3, 4)), ("depthBelowLandLayer", (0, 7, 28, 100))])
def test_layers_of_the_soil_from_grib(tmp_path, kind, levels):
    pytest.importorskip("eccodes")
    wetness = xr.DataArray(
        0.05 * (1 + np.arange(4.0))[:, None, None] + np.zeros((2, 4, 7, 12)),
        dims=("time", "level", "latitude", "longitude"),
    )
    wetness = wetness.assign_coords(time=TIMES[:2], level=np.arange(4), latitude=LATITUDE, longitude=LONGITUDE)
    path, names = str(tmp_path / "a.grib"), ("vsw", "t")
    write_grib(path, wetness, names[0], typeOfLevel=kind, level=lambda at: levels[at["level"]])
    write_grib(path, TRUTH.temperature[:2], names[1])
    store = made(tmp_path, path)
    assert store.volumetric_soil_water.dims == ("time", "soil_layer", "latitude", "longitude")
    np.testing.assert_array_equal(store.soil_layer, [1, 2, 3, 4])
    np.testing.assert_allclose(store.volumetric_soil_water, wetness, rtol=1e-5)
    np.testing.assert_array_equal(store.level, TRUTH.level)
