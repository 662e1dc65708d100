"""Accumulations and means over other intervals than the step: whatever they cover, steps have the means of one known rain."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from source_files import TIMES, truth, write_grib

from emulator.ingestion.assemble import assemble
from emulator.ingestion.options import IngestOptions
from emulator.ingestion.run import ingest
from emulator.planet.calendar import TimeStep
from emulator.sources.harmonise import pieces
from emulator.sources.open import Request, Source, open_source
from emulator.sources.options import SourceOptions
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast

HOUR = np.timedelta64(1, "h")
TRUTH = truth()
RAIN = "mean_total_precipitation_rate"
START = np.datetime64("2001-02-27T00", "ns")
SPACE = (7, 12)
PATTERN = 1 + 0.5 * np.cos(np.radians(TRUTH.latitude)).values[:, None] * np.ones(SPACE)


def fallen(hour):
    """Metres of rain from hour 0 to some hour, at a rate that changes all the time: `(..., *space)`."""
    hour = np.asarray(hour, np.float64)
    return 1e-4 * (hour + 3 * np.sin(hour / 2.5) + 0.01 * hour**2)[..., None, None] * PATTERN


def rate(first, last):
    """The mean rate in kg m-2 s-1 between two hours."""
    return 1000 * (fallen(last) - fallen(first)) / (3600 * (np.asarray(last, np.float64) - first)[..., None, None])


def field(values, time=START) -> xr.DataArray:
    place = {"latitude": TRUTH.latitude.values, "longitude": TRUTH.longitude.values}
    return xr.DataArray(values[None], dims=("time", *place), coords={"time": [time], **place})


def message(path, first, last, short="tp", kind="accum", init=START, edition=1):
    """A field over hours `first` to `last` after an initial time."""
    at = (init - START) / HOUR
    values = fallen(at + last) - fallen(at + first) if kind == "accum" else rate(at + first, at + last)
    keys = {"stepType": kind, "typeOfLevel": "surface", "startStep": first, "endStep": last}
    write_grib(path, field(values, init), short, edition, **keys)


def forecast_store(tmp_path, pattern="*.grib", **options) -> xr.DataArray:
    ingest(IngestOptions(SourceOptions(str(tmp_path / pattern), **options), kind="forecast"), tmp_path / "f.zarr")
    return open_forecast(tmp_path / "f.zarr")[RAIN]


@pytest.mark.parametrize("files", ["one", "a file for each step"])
@pytest.mark.parametrize("kind", ["accum", "avg"])
@pytest.mark.parametrize("starts", [[0, 0, 0, 0], [0, 0, 6, 6], [0, 3, 6, 9], [0, 0, 0, 6]])
def test_steps_of_a_forecast_from_any_intervals(tmp_path, files, kind, starts):
    """Running totals, GFS's 0-3 and 0-6 h in turn, single steps and what becomes of them on the way."""
    short, edition = ("tp", 1) if kind == "accum" else ("avg_tprate", 2)
    for first, last in zip(starts, (3, 6, 9, 12), strict=True):
        message(
            tmp_path / ("a.grib" if files == "one" else f"{last:02d}.grib"), first, last, short, kind, START, edition
        )
    found = forecast_store(tmp_path)
    assert list(found.lead_time.values / HOUR) == [3, 6, 9, 12]
    steps = np.arange(0, 12, 3)
    np.testing.assert_allclose(found.values[0], rate(steps, steps + 3), rtol=2e-5)


def test_means_over_three_and_six_hours_in_turn():
    """30, 90, 150, 60 W m-2, not 30, 60, 150, 105."""
    means = np.array([30.0, 60.0, 150.0, 105.0])
    attributes = {"units": "W m-2", "intervals": [[3.0, 6.0, 3.0, 6.0]]}
    data = xr.Dataset(
        {
            "sdswrf": (
                ("time", "step", "latitude", "longitude"),
                means[None, :, None, None] * np.ones(SPACE),
                attributes,
            )
        },
        {
            "time": [START],
            "step": np.array([3, 6, 9, 12]) * HOUR,
            "latitude": TRUTH.latitude,
            "longitude": TRUTH.longitude,
        },
    )
    plan = assemble(pieces(Source("a.nc", data), SourceOptions(forecast=True)), {})
    (name,) = plan.fields
    for leads in (np.arange(4), np.array([1, 3])):
        values = plan.fields[name].part(0, 1).read(0, 1, SPACE, leads)[0, :, 0, 0]
        np.testing.assert_allclose(values, np.array([30.0, 90.0, 150.0, 60.0])[leads], rtol=1e-6)


@pytest.mark.parametrize("step_hours", [1, 3, 6])
def test_running_totals_from_midnight_are_an_analysis(tmp_path, step_hours):
    """ERA5-Land: totals from 00 UTC, whose last is at 00 UTC of the next day; the first step begins where they do."""
    for day in range(2):
        for last in range(1, 25):
            message(tmp_path / "land.grib", 0, last, init=START + 24 * day * HOUR)
    ingest(IngestOptions(str(tmp_path / "land.grib"), step_hours=step_hours), tmp_path / "a.zarr")
    store = open_analysis(tmp_path / "a.zarr")
    hours = (store.time.values - START) / HOUR
    assert list(hours) == list(range(step_hours, 49, step_hours))
    np.testing.assert_allclose(store[RAIN].values, rate(hours - step_hours, hours), rtol=2e-5, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_intervals_between_known_times_add_up(data):
    """Whatever earlier time each value begins at: what can be made is the exact mean, and nothing else is made."""
    ends = np.arange(3, 31, 3)
    back = data.draw(st.lists(st.integers(1, 4), min_size=len(ends), max_size=len(ends)))
    starts = np.array([max(0, end - 3 * n) for end, n in zip(ends, back, strict=True)])
    amounts = fallen(ends) - fallen(starts)
    rain = {"units": "m", "intervals": [(ends - starts).tolist()]}
    found = xr.Dataset(
        {"tp": (("time", "step", "latitude", "longitude"), amounts[None], rain)},
        {"time": [START], "step": ends * HOUR, "latitude": TRUTH.latitude, "longitude": TRUTH.longitude},
    )
    plan = assemble(pieces(Source("a.nc", found), SourceOptions()), {}, step=TimeStep(3 * 3600.0), keep_missing=True)
    values = plan.fields[RAIN].read(0, len(plan.times), SPACE)
    last = (plan.times - START) / HOUR
    good = np.isfinite(values[:, 0, 0])
    assert good[last == 3].all()  # the first value is that of the first step
    np.testing.assert_allclose(values[good], rate(last[good] - 3, last[good]), rtol=1e-4)


def hourly(hours, **attributes) -> xr.Dataset:
    """NetCDF with the rain of the hour that ends at each time, in m, beside a temperature at the same times."""
    hours = np.asarray(hours)
    place = {"latitude": TRUTH.latitude, "longitude": TRUTH.longitude}
    dims = ("time", *place)
    return xr.Dataset(
        {
            "tp": (dims, fallen(hours) - fallen(hours - 1), {"units": "m"} | attributes),
            "t2m": (dims, 280 + 0 * fallen(hours), {"units": "K"}),
        },
        {"time": START + hours * HOUR, **place},
    )


def test_the_last_hour_of_six_is_not_their_mean(tmp_path):
    """ERA5 at 00, 06, 12 and 18 UTC: refused; hourly files of the rain beside six-hourly ones of the state are right."""
    hourly(np.arange(6, 31, 6)).to_netcdf(tmp_path / "six.nc")
    with pytest.raises(ValueError, match=rf"{RAIN} over intervals .* steps of 6 h, got intervals of 1 h .*six\.nc"):
        ingest(IngestOptions(SourceOptions(str(tmp_path / "six.nc"), interval_hours=1)), tmp_path / "a.zarr")
    hourly(np.arange(1, 31)).drop_vars("t2m").to_netcdf(tmp_path / "rain.nc")
    hourly(np.arange(6, 31, 6)).drop_vars("tp").to_netcdf(tmp_path / "t.nc")
    sources = [SourceOptions(str(tmp_path / "rain.nc"), interval_hours=1), SourceOptions(str(tmp_path / "t.nc"))]
    ingest(IngestOptions(sources), tmp_path / "b.zarr")
    store, ends = open_analysis(tmp_path / "b.zarr"), np.arange(6, 31, 6)
    np.testing.assert_allclose(store[RAIN].values, rate(ends - 6, ends), rtol=1e-5)


def test_of_two_intervals_one_is_chosen(tmp_path):
    for first, last in ((0, 6), (0, 6), (6, 12), (0, 12)):  # as GFS has it: the first total twice
        message(tmp_path / "a.grib", first, last)
    with pytest.raises(ValueError, match=r"tp from 2001-02-27T00:00 at 12 h in .*a\.grib, got two, over 6 to 12 h and 0 to "
                                         r"12 h; choose with interval_hours: 6 or 12"):  # fmt: skip
        open_source(str(tmp_path / "a.grib"))
    for hours in (6.0, 12.0):
        (source,) = open_source(str(tmp_path / "a.grib"), "auto", Request(interval_hours=hours))
        plan = assemble(pieces(source, SourceOptions(forecast=True, interval_hours=hours)), {})
        values = plan.fields[RAIN].read(0, 1, SPACE, np.arange(2))[0]
        np.testing.assert_allclose(values, rate(np.array([0, 6]), np.array([6, 12])), rtol=2e-5)
    names = {f"total_precipitation_{n}hr": 1e-3 * n * TRUTH[RAIN].assign_attrs(units="m") for n in (6, 24)}
    data = xr.Dataset({name: array.assign_attrs(units="m") for name, array in names.items()})
    with pytest.raises(
        ValueError, match=rf"{RAIN} over one interval in a\.nc, got it over 6 and over 24 h; choose with"
    ):
        pieces(Source("a.nc", data), SourceOptions())
    (piece,) = pieces(Source("a.nc", data), SourceOptions(interval_hours=6.0))
    np.testing.assert_allclose(piece.read([0]).squeeze(), TRUTH[RAIN].values[0] * 6 / 21600, rtol=1e-6)


# --- bounds -----------------------------------------------------------------------------------------------------------


def with_bounds(first, last, stamp=None, name="pr") -> xr.Dataset:
    """Means of the rain between hours, by CF bounds."""
    first, last = np.asarray(first, np.float64), np.asarray(last, np.float64)
    time = last if stamp is None else stamp
    data = xr.Dataset(
        {
            name: (
                ("time", "latitude", "longitude"),
                rate(first, last),
                {"units": "kg m-2 s-1", "cell_methods": "time: mean"},
            )
        },
        {
            "time": (
                "time",
                START + (np.asarray(time) * 60).astype(int) * np.timedelta64(1, "m"),
                {"bounds": "time_bnds"},
            ),
            "latitude": TRUTH.latitude,
            "longitude": TRUTH.longitude,
        },
    )
    edges = START + (np.stack([first, last], axis=1) * 60).astype(int) * np.timedelta64(1, "m")
    return data.assign(time_bnds=(("time", "bnds"), edges))


def test_bounds_narrower_than_the_step_are_refused_or_stretched(tmp_path):
    """One hour every six, and CDO's daily means, whose bounds are the first and the last of the day's snapshots."""
    ends = np.arange(6, 31, 6)
    with_bounds(ends - 1, ends, ends - 0.5).to_netcdf(tmp_path / "hour.nc")
    with pytest.raises(ValueError, match=r"steps of 6 h, got intervals of 1 h .*hour\.nc"):
        ingest(IngestOptions(str(tmp_path / "hour.nc")), tmp_path / "a.zarr")
    days = 24 * np.arange(4)
    with_bounds(days, days + 18, days + 9).to_netcdf(tmp_path / "cdo.nc")
    with pytest.raises(ValueError, match=r"steps of 24 h, got intervals of 18 h .*cdo\.nc.*time_stamp"):
        ingest(IngestOptions(str(tmp_path / "cdo.nc")), tmp_path / "a.zarr")
    ingest(IngestOptions(SourceOptions(str(tmp_path / "cdo.nc"), time_stamp="start")), tmp_path / "b.zarr")
    store = open_analysis(tmp_path / "b.zarr")
    np.testing.assert_array_equal(store.time.values, START + (days + 24) * HOUR)
    np.testing.assert_array_equal(store.time_bounds.values[:, 0], START + days * HOUR)
    np.testing.assert_allclose(store[RAIN].values, rate(days, days + 18), rtol=1e-6)


def test_bounds_wider_than_the_step_are_taken_apart(tmp_path):
    """Running means from the beginning, and running means of six hours every hour on steps of six."""
    ends = np.arange(3, 25, 3)
    with_bounds(0 * ends, ends).to_netcdf(tmp_path / "from_start.nc")
    ingest(IngestOptions(str(tmp_path / "from_start.nc")), tmp_path / "a.zarr")
    np.testing.assert_allclose(open_analysis(tmp_path / "a.zarr")[RAIN].values, rate(ends - 3, ends), rtol=1e-5)
    ends = np.arange(6, 25)
    with_bounds(ends - 6, ends).to_netcdf(tmp_path / "running.nc")
    ingest(IngestOptions(str(tmp_path / "running.nc"), step_hours=6), tmp_path / "b.zarr")
    np.testing.assert_allclose(open_analysis(tmp_path / "b.zarr")[RAIN].values, rate(ends - 6, ends)[::6], rtol=1e-6)
    assert TIMES[0] == START
