"""What a field is of its quantity: statistics are other variables, instants no accumulations, signs those of the centre."""

import numpy as np
import pytest
import xarray as xr
from source_files import LATITUDE, LONGITUDE, TIMES, truth

from emulator.ingestion.plan import IngestOptions
from emulator.ingestion.run import ingest
from emulator.planet.variables import VARIABLES
from emulator.sources.conventions import TURBULENT, UPWARD, time_method
from emulator.sources.harmonise import matches, pieces
from emulator.sources.open import Request, Source, open_source
from emulator.sources.options import SourceOptions
from emulator.sources.recognise import Match, recognise
from emulator.store.analysis import open_analysis

LATENT, SENSIBLE = "mean_surface_latent_heat_flux", "mean_surface_sensible_heat_flux"
RAIN, SNOWFALL = "mean_total_precipitation_rate", "mean_snowfall_rate"

METHODS = [
    ({"cell_methods": "time: maximum"}, "maximum"),
    ({"cell_methods": "area: mean time: minimum within days time: mean over days"}, "minimum"),
    ({"cell_methods": "area: mean time: maximum (interval: 1 hour)"}, "maximum"),
    ({"cell_methods": "time: lat: lon: mean"}, "mean"),
    ({"cell_methods": "area: time: mean"}, "mean"),
    ({"cell_methods": "area: mean time: point"}, "point"),
    ({"cell_methods": "time: sum"}, "sum"),
    ({"cell_methods": "realization: standard_deviation"}, "standard_deviation"),
    ({"cell_methods": "valid_time: maximum"}, "maximum"),
    ({"cell_methods": "area: mean where land"}, None),
    ({"GRIB_stepType": "max"}, "maximum"),
    ({"GRIB_stepType": "min"}, "minimum"),
    ({"GRIB_stepType": "avg"}, "mean"),
    ({"GRIB_stepType": "avgua"}, "mean"),
    ({"GRIB_stepType": "accum"}, "sum"),
    ({"GRIB_stepType": "instant", "GRIB_edition": 2, "GRIB_centre": "ecmf"}, "point"),
    ({"GRIB_stepType": "instant", "GRIB_edition": 1, "GRIB_centre": "kwbc"}, "point"),
    ({"GRIB_stepType": "instant", "GRIB_edition": 1, "GRIB_centre": "ecmf"}, None),
    ({"GRIB_stepType": "sd"}, "standard_deviation"),
    ({"GRIB_dataType": "es", "GRIB_stepType": "instant"}, "standard_deviation"),
    ({}, None),
]


@pytest.mark.parametrize(("attributes", "method"), METHODS)
def test_what_values_are_of_their_interval(attributes, method):
    assert time_method(attributes) == method


@pytest.mark.parametrize("method", ["maximum", "minimum", "standard_deviation", "range", "variance", "median"])
@pytest.mark.parametrize("name", VARIABLES)
def test_no_statistic_of_a_variable_is_taken_for_it(name, method):
    entry = VARIABLES[name]
    for own in {name, entry.short, entry.cmip.removeprefix("-")} - {""}:
        assert recognise(own, {"cell_methods": f"time: {method}"}, entry.vertical, 2.0) == []
    short = {"maximum": "max", "minimum": "min", "standard_deviation": "sd"}.get(method, "range")
    if entry.short:
        assert recognise("", {"GRIB_shortName": entry.short, "GRIB_stepType": short}, entry.vertical) == []


@pytest.mark.parametrize(
    ("name", "standard", "height"),
    [
        *[(name, "air_temperature", 2.0) for name in
          "tasmax tasmin mx2t mn2t mx2t24 mn2t6 tmax tmin t2m_max t2m_min tmax2m tmin2m max_temperature "
          "tas_std".split()],
        *[(name, "wind_speed", 10.0) for name in "sfcWindmax wsmax wind_max sfcwindmin".split()],
        *[(name, "relative_humidity", 2.0) for name in "hursmax hursmin".split()],
        ("sst_anom", "sea_surface_temperature", None),
        *[(name, "wind_speed_of_gust", None) for name in "fg10 10fg 10fg3 wsgsmax".split()],
        ("mlotstmax", "ocean_mixed_layer_thickness_defined_by_sigma_t", None),
    ],
)  # fmt: skip
def test_names_of_extremes_without_cell_methods(name, standard, height):
    assert recognise(name, {"standard_name": standard}, None, height) == []
    assert recognise("x", {"standard_name": standard}, None, height) != []  # the same without the name
    described = {"standard_name": standard, "long_name": "Daily Maximum of Something"}
    assert recognise("x", described, None, height) == []


def test_the_mean_beside_its_extremes_is_the_one_stored(tmp_path):
    data, at = truth(), np.zeros((8, 7, 12), np.float32)
    height = xr.DataArray(2.0, attrs={"standard_name": "height", "units": "m"})
    for name, value, method in (("tas", 280, "mean"), ("tasmax", 290, "maximum"), ("tasmin", 270, "minimum")):
        attributes = {"units": "K", "standard_name": "air_temperature", "cell_methods": f"area: mean time: {method}"}
        data[name] = (("time", "latitude", "longitude"), at + value, attributes)
    data = data.assign_coords(height=height)[["tas", "tasmax", "tasmin"]]
    data.to_netcdf(tmp_path / "a.nc")
    ingest(IngestOptions(tmp_path / "a.nc"), tmp_path / "store.zarr")
    store = open_analysis(tmp_path / "store.zarr")
    assert [*store.data_vars] == ["2m_temperature", "cell_area"] or (store["2m_temperature"] == 280).all()
    assert (store["2m_temperature"] == 280).all() and store["2m_temperature"].cell_methods.startswith("time: mean")
    data[["tasmax"]].to_netcdf(tmp_path / "max.nc")
    with pytest.raises(ValueError, match="tasmax"):
        ingest(IngestOptions(tmp_path / "max.nc"), tmp_path / "no.zarr")
    ingest(IngestOptions(tmp_path / "max.nc", define={"tasmax": {"cell": "mean"}}), tmp_path / "max.zarr")
    assert (open_analysis(tmp_path / "max.zarr")["tasmax"] == 290).all()


# --- GRIB ------------------------------------------------------------------------------------------------------------


def write(path, edition=2, value=1.0, **keys) -> None:
    """Appends a global message of one value with some keys."""
    eccodes = pytest.importorskip("eccodes")
    handle = eccodes.codes_grib_new_from_samples(f"regular_ll_sfc_grib{edition}")
    settings = {
        "Ni": 12, "Nj": 7, "latitudeOfFirstGridPointInDegrees": 90, "latitudeOfLastGridPointInDegrees": -90,
        "longitudeOfFirstGridPointInDegrees": 0, "longitudeOfLastGridPointInDegrees": 330,
        "iDirectionIncrementInDegrees": 30, "jDirectionIncrementInDegrees": 30, "dataDate": 20010101, "dataTime": 0,
    }  # fmt: skip
    for key, setting in (settings | keys).items():
        eccodes.codes_set(handle, key, setting)
    eccodes.codes_set_values(handle, np.full(84, value))
    with open(path, "ab") as file:
        eccodes.codes_write(handle, file)
    eccodes.codes_release(handle)


def number(category, parameter, method=None, step="0-6", centre="kwbc", surface=1, **more) -> dict:
    """Keys of a field of the atmosphere by its number in GRIB 2; `method`: of statistical processing, None: an instant."""
    keys = {"centre": centre, "productDefinitionTemplateNumber": 0 if method is None else 8, "discipline": 0}
    keys |= {"parameterCategory": category, "parameterNumber": parameter, "typeOfFirstFixedSurface": surface}
    keys |= {} if method is None else {"typeOfStatisticalProcessing": method, "stepRange": step}
    return keys | more


TWO_METRES = {"surface": 103, "scaledValueOfFirstFixedSurface": 2, "scaleFactorOfFirstFixedSurface": 0}


def found(path, **options):
    sources = open_source(str(path), "auto", Request())
    return [piece for source in sources for piece in pieces(source, SourceOptions(**options))]


@pytest.mark.parametrize(
    ("centre", "category", "parameter", "sign"),
    [
        *[("kwbc", 0, p, -1) for p in (10, 11)], *[("rjtd", 0, p, -1) for p in (10, 11)],
        *[("egrr", 0, p, -1) for p in (10, 11)], *[("ecmf", 0, p, 1) for p in (10, 11)],
        *[("edzw", 0, p, 1) for p in (10, 11)], *[("lfpw", 0, p, 1) for p in (10, 11)],
        ("kwbc", 2, 17, -1), ("kwbc", 2, 18, -1),
        ("kwbc", 1, 79, -1), ("ecmf", 1, 79, 1),
    ],
)  # fmt: skip
def test_fluxes_have_the_sign_of_their_centre(tmp_path, centre, category, parameter, sign):
    write(tmp_path / "a.grib", value=90.0, **number(category, parameter, 0, centre=centre))
    (piece,) = found(tmp_path / "a.grib")
    assert piece.name in TURBULENT
    np.testing.assert_allclose(piece.read([0]), 90.0 * sign, rtol=1e-5)


@pytest.mark.parametrize("status", [4, 6, 8])  # TIGGE, S2S, UERRA
def test_fluxes_of_shared_archives_have_ecmwfs_sign(tmp_path, status):
    keys = number(0, 10, 0, productionStatusOfProcessedData=status)
    write(tmp_path / "a.grib", value=-90.0, **keys)
    (piece,) = found(tmp_path / "a.grib")
    assert piece.name == LATENT and (piece.read([0]) < 0).all()


def test_an_unknown_centres_sign_is_a_matter_of_negate(tmp_path, caplog):
    write(tmp_path / "a.grib", value=90.0, **number(0, 10, 0, centre="cwao"))
    found(tmp_path / "a.grib")
    assert "sign of avg_slhtf from the centre cwao" in caplog.text
    (piece,) = found(tmp_path / "a.grib", negate=("mean_surface_latent_heat_flux",))
    assert (piece.read([0]) == -90).all()


@pytest.mark.parametrize(
    ("name", "attributes", "expected"),
    [
        ("hfss", {"positive": "up"}, Match(SENSIBLE, -1)),
        ("hfss", {"positive": "down"}, Match(SENSIBLE, 1)),
        ("tauu", {"positive": "down"}, Match("mean_eastward_turbulent_surface_stress", 1)),
        ("tauu", {"positive": "up"}, Match("mean_eastward_turbulent_surface_stress", -1)),
        ("rlus", {"positive": "up"}, Match("mean_surface_upward_long_wave_radiation_flux", 1)),
        ("rlds", {"positive": "down"}, Match("mean_surface_downward_long_wave_radiation_flux", 1)),
        ("rlut", {"positive": "up"}, Match("mean_top_net_long_wave_radiation_flux", -1)),
        ("evspsbl", {"positive": "up"}, Match("mean_evaporation_rate", -1)),
        ("lhtfl", {}, Match(LATENT, -1)),
        ("shtfl", {}, Match(SENSIBLE, -1)),
        ("uflx", {}, Match("mean_eastward_turbulent_surface_stress", -1)),
        ("nlwrs", {}, Match("mean_surface_net_long_wave_radiation_flux", -1)),
        ("x", {"standard_name": "surface_upward_sensible_heat_flux"}, Match(SENSIBLE, -1)),
        ("x", {"standard_name": "surface_net_upward_longwave_flux"},
         Match("mean_surface_net_long_wave_radiation_flux", -1)),
        ("x", {"standard_name": "toa_net_upward_shortwave_flux"}, Match("mean_top_net_short_wave_radiation_flux", -1)),
        ("x", {"standard_name": "lwe_water_evaporation_rate"}, Match("mean_evaporation_rate", -1)),
        ("x", {"standard_name": "surface_upward_eastward_stress"}, Match("mean_eastward_turbulent_surface_stress", -1)),
        ("x", {"GRIB_shortName": "mslhf", "GRIB_centre": "kwbc", "GRIB_stepType": "avg"}, Match(LATENT, -1)),
        ("x", {"GRIB_shortName": "slhf", "GRIB_centre": "ecmf", "GRIB_stepType": "accum"}, Match(LATENT, 1)),
    ],
)  # fmt: skip
def test_signs_by_names_and_attributes(name, attributes, expected):
    assert recognise(name, attributes, None)[0] == expected


def test_cfgribs_centre_is_that_of_its_file():
    field = xr.DataArray(np.ones((1, 7, 12)), dims=("time", "latitude", "longitude"), name="mslhf", attrs={
        "units": "W m**-2", "GRIB_shortName": "mslhf", "GRIB_stepType": "avg"})  # fmt: skip
    field = field.assign_coords(time=TIMES[:1], latitude=LATITUDE, longitude=LONGITUDE)
    dataset = field.to_dataset().assign_attrs(GRIB_centre="kwbc", GRIB_edition=2)
    (piece,) = pieces(Source("a.nc", dataset), SourceOptions())
    assert (piece.read([0]) == -1).all() and "GRIB_centre" not in dataset["mslhf"].attrs


def test_snow_on_the_ground_is_no_snowfall(tmp_path):
    keys = {"centre": "kwbc", "table2Version": 2, "indicatorOfParameter": 65, "timeRangeIndicator": 10}
    write(tmp_path / "a.grib", 1, 50.0, **keys)
    write(tmp_path / "b.grib", 2, 50.0, **number(1, 13))
    write(tmp_path / "c.grib", 2, 50.0, **number(1, 60))
    for name in "abc":
        (piece,) = found(tmp_path / f"{name}.grib")
        assert piece.name == "snow_depth"
        np.testing.assert_allclose(piece.read([0]), 0.05, rtol=1e-5)


def test_an_instantaneous_amount_or_rate_is_no_mean(tmp_path, caplog):
    write(tmp_path / "a.grib", value=1e-4, **number(1, 7))
    write(tmp_path / "a.grib", value=5.0, **number(1, 8))
    write(tmp_path / "a.grib", value=1e5, **number(3, 0))
    assert [piece.name for piece in found(tmp_path / "a.grib")] == ["surface_pressure"]
    assert "prate is an instantaneous field" in caplog.text and "tp is an instantaneous field" in caplog.text


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_mean_rate_is_taken_beside_the_instantaneous_one(tmp_path, order):
    fields = [(1e-4, number(1, 7, forecastTime=6)), (2e-4, number(1, 7, 0))]
    for at in order:
        write(tmp_path / "a.grib", value=fields[at][0], **fields[at][1])
    (piece,) = found(tmp_path / "a.grib")
    assert piece.name == RAIN
    np.testing.assert_allclose(piece.read([0]), 2e-4, rtol=1e-4)


def test_the_accumulation_is_taken_beside_the_rate(tmp_path):
    write(tmp_path / "a.grib", value=2e-4, **number(1, 7, 0))
    write(tmp_path / "a.grib", value=6 * 3.6, **number(1, 8, 1))
    (piece,) = found(tmp_path / "a.grib")
    np.testing.assert_allclose(piece.read([0]), 1e-3, rtol=1e-4)


def test_the_snapshot_of_a_state_is_taken_beside_its_mean_and_extremes(tmp_path):
    for value, keys in (
        (0.2, number(6, 1, surface=10, forecastTime=6)), (0.7, number(6, 1, 0, surface=10)),
    ):  # fmt: skip
        write(tmp_path / "a.grib", value=100 * value, **keys)
    for value, method in ((280, None), (290, 2), (270, 3)):
        more = {"forecastTime": 6} if method is None else {}
        write(tmp_path / "a.grib", value=value, **number(0, 0, method, **TWO_METRES, **more))
    found_ = {piece.name: piece for piece in found(tmp_path / "a.grib", forecast=True)}
    assert {*found_} == {"total_cloud_cover", "2m_temperature"}
    np.testing.assert_allclose(found_["total_cloud_cover"].read([0], [0]), 0.2, rtol=1e-4)
    np.testing.assert_allclose(found_["2m_temperature"].read([0], [0]), 280, rtol=1e-4)


def test_fields_that_are_left_out_are_named_with_a_way_out(tmp_path, caplog):
    write(tmp_path / "a.grib", value=5.0, **number(19, 0))
    with pytest.raises(ValueError, match=r"got vis \(surface\).*define: \{vis: \{\}\}.*rename: \{vis: NAME\}"):
        open_source(str(tmp_path / "a.grib"))
    write(tmp_path / "a.grib", value=1e5, **number(3, 0))
    write(tmp_path / "a.grib", value=290.0, **number(0, 0, 2, **TWO_METRES))
    assert [piece.name for piece in found(tmp_path / "a.grib")] == ["surface_pressure"]
    assert "vis (surface)" in caplog.text and "max_2t (heightAboveGround, maximum)" in caplog.text
    renamed = {"vis": "visibility"}
    ingest(
        IngestOptions([SourceOptions(str(tmp_path / "a.grib"), rename=renamed)], define={"visibility": {}}),
        tmp_path / "store.zarr",
    )
    assert (open_analysis(tmp_path / "store.zarr")["visibility"] == 5).all()


def test_fields_on_unusual_surfaces_can_be_renamed(tmp_path):
    write(tmp_path / "a.grib", value=210.0, **number(0, 0, surface=7))
    with pytest.raises(ValueError, match=r"t \(tropopause\)"):
        open_source(str(tmp_path / "a.grib"))
    source = SourceOptions(str(tmp_path / "a.grib"), rename={"t": "tropopause_temperature"})
    options = IngestOptions([source], define={"tropopause_temperature": {}})
    ingest(options, tmp_path / "store.zarr")
    assert (open_analysis(tmp_path / "store.zarr")["tropopause_temperature"] == 210).all()


def test_signs_of_centres_are_those_of_fluxes_alone():
    assert {name for names in UPWARD.values() for name in names} <= set(TURBULENT) <= set(VARIABLES)
    assert matches("t2m", xr.DataArray(0.0, attrs={"GRIB_shortName": "2t", "GRIB_centre": "kwbc"}))[0].sign == 1


@pytest.mark.parametrize(
    ("name", "standard", "vertical"),
    [
        ("q", "humidity_mixing_ratio", "level"), ("huss", "humidity_mixing_ratio", None),
        ("o3", "mole_fraction_of_ozone_in_air", "level"),
        ("t2m", "air_temperature_anomaly", None),
        ("msl", "air_pressure_anomaly", None), ("t", "air_temperature standard_error", "level"),
        ("sst", "sea_surface_temperature_anomaly", None),
        ("sst", "sea_surface_temperature number_of_observations", None),
    ],
)  # fmt: skip
def test_a_standard_name_of_another_quantity_says_more_than_a_short_name(name, standard, vertical):
    assert recognise(name, {}, vertical) and not recognise(name, {"standard_name": standard}, vertical)


def test_the_largest_gust_since_the_last_output_is_no_gust_of_an_instant():
    described = {
        "standard_name": "wind_speed_of_gust",
        "long_name": "10 metre wind gust since previous post-processing",
    }
    assert recognise("gust", described, None) == []
    assert (
        recognise("gust", described | {"long_name": "10 metre wind gust"}, None)[0].name
        == "instantaneous_10m_wind_gust"
    )


def test_a_height_is_in_its_units():
    field = xr.DataArray(np.ones((7, 12)), dims=("latitude", "longitude"), attrs={"standard_name": "air_temperature"})
    field = field.assign_coords(latitude=LATITUDE, longitude=LONGITUDE)
    for value, units, known in ((2.0, "m", True), (200.0, "cm", True), (0.002, "km", True), (2.0, "km", False)):
        height = xr.DataArray(value, attrs={"standard_name": "height", "units": units})
        found = matches("x", field.assign_coords(height=height))
        assert [match.name for match in found] == ["2m_temperature"] * known


def test_sums_of_rates_are_refused_and_sums_of_amounts_are_not(tmp_path):
    dims = ("time", "latitude", "longitude")
    coordinates = {"time": TIMES, "latitude": LATITUDE, "longitude": LONGITUDE}
    for units, options, refused in (
        ("kg m-2 s-1", {}, True), ("mm/day", {}, True), ("kg m-2", {"interval_hours": 6}, False),
        ("kg m-2 s-1", {"units": {"pr": "kg m-2"}, "interval_hours": 6}, False),
    ):  # fmt: skip
        attributes = {"units": units, "cell_methods": "time: sum"}
        dataset = xr.Dataset({"pr": (dims, np.full((8, 7, 12), 2.16), attributes)}, coordinates)
        if refused:
            with pytest.raises(
                ValueError, match="sums over time of pr in units of an amount, got .* those of a rate; average"
            ):
                pieces(Source("a.nc", dataset), SourceOptions(**options))
        else:
            (piece,) = pieces(Source("a.nc", dataset), SourceOptions(**options))
            np.testing.assert_allclose(piece.read([0]), 1e-4, rtol=1e-6)
