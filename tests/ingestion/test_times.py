"""Calendar steps and intervals of means: months of every calendar, three conventions of a daily mean, true lengths."""

import cftime
import numpy as np
import pytest
import xarray as xr
from monthly_files import CALENDARS, middles, month_edges, monthly, write_files

from emulator.ingestion.options import IngestOptions
from emulator.ingestion.run import ingest
from emulator.planet.calendar import TimeStep, seconds_between, select_period
from emulator.sources.options import SourceOptions
from emulator.store.analysis import AnalysisSeries, open_analysis

DAY = np.timedelta64(1, "D")


def store_of(tmp_path, *sources, **options) -> xr.Dataset:
    output = tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr"
    ingest(IngestOptions(list(sources), **options), output)
    return open_analysis(output)


def dates(times) -> list[tuple]:
    return [(t.year, t.month, t.day, t.hour) for t in xr.DataArray(times, dims="t").to_index()]


@pytest.mark.parametrize("calendar", CALENDARS)
def test_months_of_every_calendar_are_a_store(tmp_path, calendar):
    """Values are those of the files, months end at the first instant of the next, lengths are those of the calendar."""
    source, edges = monthly(calendar), month_edges(calendar, 2000, 4)
    store = store_of(tmp_path, SourceOptions(write_files(tmp_path / "cmip", source, calendar)))
    assert store.attrs["time_step_months"] == 1 and TimeStep.of(store) == TimeStep(months=1)
    assert dates(store.time.values) == dates(edges[1:])
    assert dates(store.time_bounds.values[:, 0]) == dates(edges[:-1])
    np.testing.assert_array_equal(TimeStep.of(store).lengths(store.time.values), seconds_between(edges))
    np.testing.assert_array_equal(store["2m_temperature"].values, source.tas.values[:, ::-1])
    assert store["2m_temperature"].attrs["cell_methods"] == "time: mean (interval: 1 month)"
    year = select_period(store, "2001", "2001")
    assert dates(year.time_bounds.values[:, 0]) == dates(edges[12:24])
    parts = [store.isel(time=slice(0, 10)), store.isel(time=slice(10, 20)), store.isel(time=slice(21, 40))]
    series = AnalysisSeries.of(parts)
    assert series.step == TimeStep(months=1) and list(np.flatnonzero(series.breaks)) == [19]


@pytest.mark.parametrize("stamp", ["start", "middle", "end", "unsaid"])
def test_months_without_bounds(tmp_path, stamp):
    """A middle of a month tells the month by itself; a first of the month does not, and is not guessed."""
    whole = monthly("noleap")
    edges = month_edges("noleap", 2000, 4)
    bare = whole.drop_vars("time_bnds")
    place = {"start": edges[:-1], "end": edges[1:]}.get(stamp, middles(edges))
    bare = bare.assign_coords(time=("time", place))
    expected = store_of(tmp_path, SourceOptions(write_files(tmp_path / "with", whole, "noleap")))
    options = {} if stamp == "unsaid" else {"time_stamp": stamp}
    pattern = write_files(tmp_path / "bare", bare, "noleap")
    xr.testing.assert_equal(store_of(tmp_path, SourceOptions(pattern, **options)), expected)
    if stamp in ("start", "end"):
        with pytest.raises(ValueError, match=r"monthly means of .*time_stamp: start, middle or end.*Amon_0\.nc"):
            store_of(tmp_path, SourceOptions(pattern))


def daily(stamp: str, bounds: bool, days: int = 20) -> xr.Dataset:
    starts = np.datetime64("2001-02-20", "ns") + np.arange(days) * DAY
    shift = {"start": 0 * DAY, "middle": np.timedelta64(12, "h"), "end": DAY}[stamp]
    source = monthly("noleap").isel(time=slice(0, days)).drop_vars("time_bnds")
    source = source.assign_coords(time=("time", starts + shift, {"bounds": "time_bnds"} if bounds else {}))
    if bounds:
        source["time_bnds"] = (("time", "bnds"), np.stack([starts, starts + DAY], axis=1))
    return source


@pytest.mark.parametrize("bounds", [True, False])
def test_daily_means_in_three_conventions_give_the_same_store(tmp_path, bounds):
    made = {}
    for stamp in ("start", "middle", "end"):
        daily(stamp, bounds).to_netcdf(tmp_path / f"{stamp}.nc")
        options = {} if bounds else {"time_stamp": stamp}
        made[stamp] = store_of(tmp_path, SourceOptions(str(tmp_path / f"{stamp}.nc"), **options))
        xr.testing.assert_equal(made[stamp], made["start"])
    store = made["middle"]
    assert store.time.values[0] == np.datetime64("2001-02-21") and store.attrs["time_step_seconds"] == 86400
    assert select_period(store, "2001-02-22", "2001-02-28").time.values[-1] == np.datetime64("2001-03-01")


def test_days_become_months_of_true_length_and_months_seasons(tmp_path):
    """Means over 28 to 31 days are exact for a field that counts the days; a season weighs its months by their days."""
    days = np.arange(np.datetime64("2001-01-01"), np.datetime64("2002-01-02")).astype("datetime64[ns]")
    count = np.arange(1.0, len(days))[:, None, None] * np.ones((1, 6, 12))
    source = monthly("noleap").isel(time=[0] * (len(days) - 1))[["pr"]].drop_vars("time_bnds", errors="ignore")
    source = source.assign(pr=source.pr.copy(data=1e-5 * count))
    source = source.assign_coords(time=("time", days[1:], {"bounds": "time_bnds"}))
    source["time_bnds"] = (("time", "bnds"), np.stack([days[:-1], days[1:]], axis=1))
    source.to_netcdf(tmp_path / "days.nc")
    months = store_of(tmp_path, SourceOptions(str(tmp_path / "days.nc")), step="1 month")
    edges = np.arange(np.datetime64("2001-01"), np.datetime64("2002-02")).astype("datetime64[D]")
    number = (edges - edges[0]).astype(int)
    mean = (number[:-1] + 1 + number[1:]) / 2  # of the whole numbers from the first day to the last
    rain = months["mean_total_precipitation_rate"].values
    assert list(months.time.values) == list(edges[1:].astype("datetime64[ns]"))
    np.testing.assert_allclose(rain, 1e-5 * mean[:, None, None] * np.ones((6, 12)), rtol=1e-6)
    seasons = store_of(tmp_path, SourceOptions(months.encoding["source"]), step="1 season")
    assert [str(t)[:7] for t in seasons.time.values] == ["2001-06", "2001-09", "2001-12"]
    expected = 1e-5 * (number[[2, 5, 8]] + 1 + number[[5, 8, 11]]) / 2
    np.testing.assert_allclose(seasons["mean_total_precipitation_rate"].values[:, 0, 0], expected, rtol=1e-6)


def test_missing_months_are_slots(tmp_path):
    source = monthly("noleap").isel(time=[n for n in range(48) if n not in (5, 6)])
    pattern = write_files(tmp_path / "cmip", source, "noleap")
    with pytest.raises(ValueError, match=r"uniform time axis, got a step of 1 month and 2208 h from .*missing: keep"):
        store_of(tmp_path, SourceOptions(pattern))
    store = store_of(tmp_path, SourceOptions(pattern), missing="keep")
    assert store.sizes["time"] == 48 and list(np.flatnonzero(store.missing.values)) == [5, 6]
    assert store.attrs["time_step_months"] == 1


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_months_that_do_not_say_that_they_are_means(tmp_path, calendar):
    """What the message advises works: gaps are none of it."""
    source = monthly(calendar)
    expected = store_of(tmp_path, SourceOptions(write_files(tmp_path / "said", source, calendar)))
    bare = source[["tas", "psl"]].drop_vars("time_bnds", errors="ignore")
    bare = bare.assign({name: bare[name].copy().assign_attrs(cell_methods="area: mean") for name in bare})
    bare = bare.assign_coords(time=("time", source.time.values))
    pattern = write_files(tmp_path / "bare", bare, calendar)
    for missing in ("refuse", "keep", "interpolate"):
        with pytest.raises(
            ValueError, match=r"one time a month .*Amon_0\.nc.*time_stamp: start, middle or end"
        ) as caught:
            store_of(tmp_path, SourceOptions(pattern), missing=missing)
        assert "interpolate" not in str(caught.value)
    store = store_of(tmp_path, SourceOptions(pattern, time_stamp="middle"))
    xr.testing.assert_equal(store["2m_temperature"], expected["2m_temperature"])


def test_gaps_that_are_no_whole_steps_are_no_gaps(tmp_path):
    """Of times that no option takes nothing is advised that does not work."""
    hours = np.array([0, 6, 12, 18, 25, 31])
    source = monthly("noleap").isel(time=slice(0, 6))[["tas"]].drop_vars("time_bnds", errors="ignore")
    source["tas"].attrs = {"units": "K", "standard_name": "air_temperature"}
    source.assign_coords(time=np.datetime64("2001-01-01", "ns") + hours * np.timedelta64(1, "h")).to_netcdf(
        tmp_path / "a.nc"
    )
    with pytest.raises(ValueError, match=r"uniform .* 6 h and 7 h .*a\.nc.*gaps of whole steps of 6 h") as caught:
        store_of(tmp_path, SourceOptions(str(tmp_path / "a.nc")))
    assert "interpolate" not in str(caught.value)


def test_a_month_alone_needs_an_interval(tmp_path):
    source = monthly("noleap").isel(time=[3])
    source.drop_vars(["time_bnds", "time"]).assign_coords(time=source.time.variable.data).to_netcdf(
        tmp_path / "bare.nc"
    )
    with pytest.raises(ValueError, match=r"at least two times of .*or time bounds.*bare\.nc"):
        store_of(tmp_path, SourceOptions(str(tmp_path / "bare.nc"), time_stamp="start"))
    source.to_netcdf(tmp_path / "one.nc")
    store = store_of(tmp_path, SourceOptions(str(tmp_path / "one.nc")))
    assert store.time.values[0] == cftime.DatetimeNoLeap(2000, 5, 1)


@pytest.mark.parametrize("calendar", CALENDARS)
@pytest.mark.parametrize("unit", ["months", "years"])
def test_times_may_be_counted_in_months(tmp_path, calendar, unit):
    """A half is the middle of a month in its own calendar; three tenths of one are no date."""
    source = monthly(calendar)
    expected = store_of(tmp_path, SourceOptions(write_files(tmp_path / "days", source, calendar)))
    number = (np.arange(48) + 0.5) / (12 if unit == "years" else 1)
    edges = np.stack(
        [number - 0.5 / (12 if unit == "years" else 1), number + 0.5 / (12 if unit == "years" else 1)], axis=1
    )
    units = {"units": f"{unit} since 2000-01-01", "calendar": calendar, "bounds": "time_bnds"}
    counted = source.drop_vars(["time", "time_bnds"]).assign_coords(time=("time", number, units))
    counted["time_bnds"] = (("time", "bnds"), edges)
    counted.to_netcdf(tmp_path / "counted.nc")
    found = store_of(tmp_path, SourceOptions(str(tmp_path / "counted.nc")))
    assert dates(found.time.values) == dates(expected.time.values)
    np.testing.assert_array_equal(found["2m_temperature"].values, expected["2m_temperature"].values)
    counted.assign_coords(time=("time", number + 0.3, units)).to_netcdf(tmp_path / "odd.nc")
    with pytest.raises(ValueError, match=r"whole or half months in time, got .* months since 2000-01-01"):
        store_of(tmp_path, SourceOptions(str(tmp_path / "odd.nc")))


def test_published_months(shared_data, tmp_path):
    """CMIP6: 25 years whose radiation at the top closes to a tenth of a W m-2; CMIP5: bounds tell the months, not names."""
    store = store_of(tmp_path, SourceOptions(str(shared_data / "climate" / "*_Amon_ACCESS-ESM1-5_piControl*.nc")))
    assert store.sizes["time"] == 300 and dates(store.time_bounds.values[0]) == [(101, 1, 1, 0), (101, 2, 1, 0)]
    net = sum(store[f"mean_top_net_{part}_wave_radiation_flux"] for part in ("short", "long"))
    # every tenth degree of the model's grid: rows count as points, by the cosine of latitude
    mean = net.weighted(np.cos(np.radians(store.latitude))).mean(("latitude", "longitude")).values
    np.testing.assert_allclose(mean.mean(), 0.08, atol=0.005)
    assert abs(np.average(mean, weights=TimeStep.of(store).lengths(store.time.values))) < 0.1
    older = store_of(tmp_path, SourceOptions(str(shared_data / "climate" / "tas_Amon_CanESM2*.nc")))
    assert dates(older.time_bounds.values[0]) == [(2006, 12, 1, 0), (2007, 1, 1, 0)] and older.sizes["time"] == 12
