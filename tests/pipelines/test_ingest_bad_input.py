"""Sources that are broken in ways that only reading shows: one sentence that names the file, and nothing finished."""

import shutil

import numpy as np
import pytest
import xarray as xr
import zarr
from source_files import TIMES, truth

from emulator.store.analysis import open_analysis
from pipelines.config import IngestConfig
from pipelines.ingest import ingest

TRUTH = truth()
CHUNKS = {name: {"chunks": (1, *TRUTH[name].shape[1:])} for name in ("temperature", "mean_sea_level_pressure")}


def refused(tmp_path, sources, message, name, **settings):
    sources = [{"path": str(path)} for path in (sources if isinstance(sources, list) else [sources])]
    with pytest.raises(ValueError, match=message) as caught:
        ingest(IngestConfig(sources=sources, output=tmp_path / "out.zarr", **settings))
    assert name in str(caught.value) and "\n" not in str(caught.value), str(caught.value)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith("out.zarr")]


@pytest.mark.parametrize("form", ["NETCDF3_64BIT", "NETCDF4"])
@pytest.mark.parametrize("share", [0.03, 0.5, 0.97])
def test_a_truncated_netcdf(tmp_path, form, share):
    encoding = {} if form != "NETCDF4" else {name: {"zlib": True} for name in TRUTH.data_vars}
    TRUTH.to_netcdf(tmp_path / "a.nc", format=form, encoding=encoding)
    whole = (tmp_path / "a.nc").read_bytes()
    (tmp_path / "a.nc").write_bytes(whole[: int(share * len(whole))])
    refused(tmp_path, tmp_path / "a.nc", "Expected", "a.nc")


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("fault", ["missing", "corrupt", "short", "empty"])
def test_a_zarr_with_a_bad_chunk(tmp_path, version, fault):
    TRUTH.to_zarr(tmp_path / "a.zarr", zarr_format=version, encoding=CHUNKS)
    chunk = tmp_path / "a.zarr" / "temperature" / ("4.0.0.0" if version == 2 else "c/4/0/0/0")
    data = chunk.read_bytes()
    if fault == "missing":
        chunk.unlink()
    else:
        chunk.write_bytes({"corrupt": data[:20] + bytes(len(data) - 20), "short": data[:30], "empty": b""}[fault])
    message = "missing ones at 2001-02-28T00" if fault == "missing" else "Expected to read temperature from"
    refused(tmp_path, tmp_path / "a.zarr", message, "a.zarr")


def test_a_missing_chunk_that_reads_as_zeros(tmp_path):
    """The fill value of Zarr 3 itself is 0; wind may be 0 somewhere, but not everywhere at one time."""
    wind = TRUTH.rename(temperature="u_component_of_wind")[["u_component_of_wind"]] - 250
    wind["u_component_of_wind"].attrs["units"] = "m s-1"
    wind.to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    shutil.rmtree(tmp_path / "a.zarr" / "u_component_of_wind")
    array = zarr.open_group(tmp_path / "a.zarr").create_array(
        "u_component_of_wind",
        shape=(8, 3, 7, 12),
        chunks=(1, 3, 7, 12),
        dtype="f4",
        dimension_names=("time", "level", "latitude", "longitude"),
        attributes={"units": "m s-1"},
    )
    array[:] = wind.u_component_of_wind.values
    shutil.rmtree(tmp_path / "a.zarr" / "u_component_of_wind" / "c" / "5")
    refused(
        tmp_path, tmp_path / "a.zarr", "nothing but zeros at 2001-02-28T06.* is a part of the source missing", "a.zarr"
    )


@pytest.mark.parametrize("there", ["a file", "a folder", "a store of others"])
def test_what_lies_at_the_output_is_not_lost(tmp_path, there):
    """It would be replaced by the store: a mistyped output must not cost anyone their data."""
    TRUTH.to_netcdf(tmp_path / "a.nc")
    output = tmp_path / "mine"
    if there == "a file":
        output.write_text("precious")
    elif there == "a folder":
        (output / "inner").mkdir(parents=True)
        (output / "inner" / "thesis.txt").write_text("precious")
    else:
        TRUTH.to_zarr(output, zarr_format=3, consolidated=False)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match="store of this program or nothing at .*mine, got a f"):
        ingest(IngestConfig(sources=[{"path": str(tmp_path / "a.nc")}], output=output))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_store_does_not_replace_its_own_source(tmp_path):
    TRUTH.to_netcdf(tmp_path / "a.nc")
    ingest(IngestConfig(sources=[{"path": str(tmp_path / "a.nc")}], output=tmp_path / "a.zarr"))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    settings = {"sources": [{"path": str(tmp_path / "a.zarr")}], "variables": ["temperature"]}
    with pytest.raises(ValueError, match=r"output beside the sources, got .*a\.zarr for both"):
        ingest(IngestConfig(output=tmp_path / "a.zarr", **settings))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    (tmp_path / "b.zarr").mkdir()  # an empty folder is nobody's loss
    ingest(IngestConfig(output=tmp_path / "b.zarr", **settings))
    assert set(open_analysis(tmp_path / "b.zarr").data_vars) == {"temperature", "cell_area"}


def test_levels_that_may_be_pressures_or_numbers(tmp_path):
    """10 to 137 without units were taken as hPa, though they are model levels."""
    data = TRUTH[["temperature"]].assign_coords(level=[10.0, 60.0, 137.0])
    data.to_netcdf(tmp_path / "a.nc")
    refused(tmp_path, tmp_path / "a.nc", r"units of the levels 10 to 137 .* units: {level: hPa}", "a.nc")
    source = {"path": str(tmp_path / "a.nc"), "units": {"level": "hPa"}}
    ingest(IngestConfig(sources=[source], output=tmp_path / "a.zarr"))
    assert open_analysis(tmp_path / "a.zarr").attrs["vertical_coordinate"] == "pressure"
    source["units"] = {"level": "hybrid_sigma_pressure"}
    with pytest.raises(ValueError, match="interface coefficients of the hybrid levels"):
        ingest(IngestConfig(sources=[source], output=tmp_path / "b.zarr"))


def test_half_of_a_net_flux(tmp_path):
    flux = TRUTH[["mean_sea_level_pressure"]].rename(mean_sea_level_pressure="rsut") / 1e3
    flux["rsut"].attrs = {
        "units": "W m-2",
        "standard_name": "toa_outgoing_shortwave_flux",
        "cell_methods": "time: mean",
    }
    flux.to_netcdf(tmp_path / "a.nc")
    message = "both parts of a net flux .* got only the upward part of mean_top_net"
    net = ["mean_top_net_short_wave_radiation_flux"]
    refused(tmp_path, tmp_path / "a.nc", message, "a.nc", variables=net)


def test_times_that_are_in_two_files(tmp_path):
    for number, part in enumerate((slice(0, 5), slice(4, 8))):
        TRUTH.isel(time=part).to_netcdf(tmp_path / f"{number}.nc")
    refused(tmp_path, tmp_path / "*.nc", r"once for 2001-02-28T00.* got it in .*1\.nc and in .*0\.nc", "1.nc")


def test_grids_that_differ_between_files(tmp_path):
    TRUTH.isel(time=slice(0, 5)).to_netcdf(tmp_path / "0.nc")
    TRUTH.isel(time=slice(5, 8)).assign_coords(longitude=TRUTH.longitude + 1.0).to_netcdf(tmp_path / "1.nc")
    refused(tmp_path, tmp_path / "*.nc", "Expected one grid", "1.nc")


@pytest.mark.parametrize(("units", "message"), [("degC", "between 50 and 400|got -"), ("m s-1", "convert to 'K'")])
def test_units_that_disagree_between_files(tmp_path, units, message):
    """Kelvin that is called Celsius in one of the files does not pass, nor what cannot be a temperature at all."""
    TRUTH.isel(time=slice(0, 5)).to_netcdf(tmp_path / "0.nc")
    other = TRUTH.isel(time=slice(5, 8)).copy()
    other["temperature"] = other.temperature.assign_attrs(units=units)
    other.to_netcdf(tmp_path / "1.nc")
    refused(tmp_path, tmp_path / "*.nc", message, "1.nc", times_per_region=8)


def test_levels_that_disagree_between_files(tmp_path):
    TRUTH.isel(time=slice(0, 5)).to_netcdf(tmp_path / "0.nc")
    TRUTH.isel(time=slice(5, 8), level=[0, 1]).to_netcdf(tmp_path / "1.nc")
    refused(tmp_path, tmp_path / "*.nc", "temperature", "1.nc")


def test_calendars_that_disagree_between_files(tmp_path):
    TRUTH.isel(time=slice(0, 5)).to_netcdf(tmp_path / "0.nc")
    times = xr.date_range("2001-03-01", periods=3, freq="6h", calendar="noleap", use_cftime=True)
    TRUTH.isel(time=slice(5, 8)).assign_coords(time=times).to_netcdf(tmp_path / "1.nc")
    refused(tmp_path, tmp_path / "*.nc", "Expected one calendar", ".nc")


def test_an_hour_that_is_shifted_in_one_file(tmp_path):
    TRUTH.isel(time=slice(0, 5)).to_netcdf(tmp_path / "0.nc")
    TRUTH.isel(time=slice(5, 8)).assign_coords(time=TIMES[5:] + np.timedelta64(1, "h")).to_netcdf(tmp_path / "1.nc")
    refused(tmp_path, tmp_path / "*.nc", "uniform time axis, got a step of 6 h and 7 h", ".nc")


def test_a_level_with_next_to_no_humidity_may_be_dry_at_a_time(tmp_path):
    """Some models have none at all in the stratosphere now and then; zeros on a moist level are a fault."""
    humidity = (TRUTH[["temperature"]] / 3e4).rename(temperature="specific_humidity").assign_attrs(TRUTH.attrs)
    humidity["specific_humidity"] = humidity.specific_humidity * xr.DataArray([1e-6, 1, 1], dims="level")
    humidity["specific_humidity"].attrs["units"] = "kg kg-1"
    humidity.specific_humidity[3, 0] = 0
    humidity.to_netcdf(tmp_path / "a.nc")
    ingest(IngestConfig(sources=[{"path": str(tmp_path / "a.nc")}], output=tmp_path / "a.zarr"))
    assert float(open_analysis(tmp_path / "a.zarr").specific_humidity[3, 0].max()) == 0
    humidity.specific_humidity[3, 1] = 0
    humidity.to_netcdf(tmp_path / "b.nc")
    refused(tmp_path, tmp_path / "b.nc", "nothing but zeros at 2001-02-27T18", "b.nc")


@pytest.mark.parametrize("beside", [300.0, np.nan, -np.inf])
def test_infinite_values_are_refused(tmp_path, beside):
    """Also in a field that may have gaps: bounds that grow with the largest value let them pass."""
    truth = TRUTH.transpose("time", ..., "latitude", "longitude")
    water = np.full_like(truth["temperature"].isel(level=0, drop=True), 290)
    water[2, 3, 4:6] = np.inf, beside
    data = xr.Dataset(
        {"sst": (("time", "latitude", "longitude"), water, {"units": "K"})}, truth.drop_vars("level").coords
    )
    data.to_netcdf(tmp_path / "a.nc")
    refused(tmp_path, tmp_path / "a.nc", "Expected finite values of sea_surface_temperature, got .*T12", "a.nc")


def test_fields_without_places_are_told_from_unknown_ones(tmp_path):
    field = xr.DataArray(np.full((4, 12), 280.0), dims=("time", "cell"), attrs={"units": "K"})
    xr.Dataset({"t2m": field}, {"time": TIMES[:4]}).to_netcdf(tmp_path / "a.nc")
    refused(
        tmp_path, tmp_path / "a.nc", "Expected variables with latitudes and longitudes in .*, got none for t2m", "a.nc"
    )
