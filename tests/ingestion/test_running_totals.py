"""Totals that run on from 00 UTC or the start of a forecast, in files that do not say so: told by their values."""

import numpy as np
import pytest
import xarray as xr

from emulator.ingestion.options import IngestOptions
from emulator.ingestion.run import ingest
from emulator.planet.calendar import day_and_hour
from emulator.sources.options import SourceOptions
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast

HOUR = np.timedelta64(1, "h")
START = np.datetime64("2001-02-27T00", "ns")
PLACE = {"latitude": np.linspace(90, -90, 7), "longitude": np.arange(12) * 30.0}
DAY, EAST = np.cos(np.radians(PLACE["latitude"]))[:, None], PLACE["longitude"] / 360
RAIN = "mean_total_precipitation_rate"


def ends(step: int) -> np.ndarray:
    return START + step * HOUR * np.arange(1, 72 // step + 1)


def rain(times, step: int) -> np.ndarray:
    """Amounts of each interval in m; none falls at most places and times."""
    rng = np.random.default_rng(step)
    shape = (len(times), 7, 12)
    return step * np.where(rng.random(shape) < 0.6, 0.0, rng.gamma(1.0, 1e-4, shape))


def sunshine(times, step: int) -> np.ndarray:
    return step * 3.6e6 * np.maximum(np.sin(2 * np.pi * (day_and_hour(times)[1][:, None, None] / 24 + EAST)), 0) * DAY


def heat(times, step: int) -> np.ndarray:
    """Upward by day and downward by night."""
    wave = np.sin(2 * np.pi * (day_and_hour(times)[1][:, None, None] / 24 + EAST))
    return -step * 3600 * (80 * wave * DAY + 5)


def running(amounts: np.ndarray, times) -> np.ndarray:
    """Totals since 00 UTC, as ERA5-Land has them."""
    out, step = np.empty_like(amounts), times[1] - times[0]
    for n, time in enumerate(times):
        begins = day_and_hour(np.array([time - step]))[1][0] == 0
        out[n] = amounts[n] + (0 if begins else out[n - 1])
    return out


def file_of(values, times, name="tp", units="m") -> xr.Dataset:
    field = (("time", *PLACE), values.astype(np.float32), {"units": units})
    return xr.Dataset({name: field}, {"time": times, **PLACE})


def stored(folder, datasets, kind="analysis", step=None, **source) -> xr.Dataset:
    for number, dataset in enumerate(datasets):
        dataset.to_netcdf(folder / f"{number:03d}.nc")
    options = IngestOptions(SourceOptions(str(folder / "*.nc"), **source), kind=kind, step_hours=step)
    ingest(options, folder / "a.zarr")
    return open_analysis(folder / "a.zarr") if kind == "analysis" else open_forecast(folder / "a.zarr")


@pytest.mark.parametrize(
    ("made", "name", "units", "step"),
    [
        *((rain, "tp", "m", step) for step in (1, 3, 6)),
        *((sunshine, "ssrd", "J m-2", step) for step in (1, 3, 6)),
        (heat, "sshf", "J m-2", 1),  # a total of a few values of a wave is told by nothing
    ],
)
def test_amounts_pass_and_running_totals_are_refused(tmp_path, step, made, name, units):
    times = ends(step)
    amounts = made(times, step)
    stored(tmp_path, [file_of(amounts, times, name, units)], interval_hours=step)
    (again := tmp_path / "running").mkdir()
    with pytest.raises(ValueError, match="rise since 00 UTC.* totals_from: midnight in place of interval_hours"):
        stored(again, [file_of(running(amounts, times), times, name, units)], interval_hours=step)


@pytest.mark.parametrize(("files", "step"), [("one", 1), ("one", 6), ("one", 24), ("each 3 hours", 1), ("each day", 6)])
def test_they_are_read_right_where_the_option_says_so(tmp_path, files, step):
    times = ends(1)
    amounts = rain(times, 1)
    whole = file_of(running(amounts, times), times)
    edges = {"one": [0, 72], "each 3 hours": range(0, 73, 3), "each day": [0, 23, 47, 71, 72]}[files]  # 00 to 23 UTC
    parts = [whole.isel(time=slice(a, b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    (wrong := tmp_path / "wrong").mkdir()
    with pytest.raises(ValueError, match="totals_from: midnight"):
        stored(wrong, parts, interval_hours=1)
    store = stored(tmp_path, parts, step=step, totals_from="midnight")
    expected = 1000 * amounts.reshape(-1, step, 7, 12).sum(axis=1) / (3600 * step)
    np.testing.assert_array_equal(store.time.values, times[step - 1 :: step])
    np.testing.assert_allclose(store[RAIN], expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("way", ["bounds", "stamp"])
def test_bounds_and_stamps_of_the_times_make_no_amounts_of_them(tmp_path, way):
    """They tell where values lie in time; that they run on, their values and the option tell."""
    times, more = ends(1), {"time_stamp": "end"} if way == "stamp" else {}
    amounts = rain(times, 1)
    file = file_of(running(amounts, times), times)
    if way == "bounds":
        file = file.assign(time_bnds=(("time", "bnds"), np.stack([times - HOUR, times], 1)))
        file["time"].attrs["bounds"] = "time_bnds"
    for hours in [{"interval_hours": 1}, *([{}] if way == "bounds" else [])]:
        (wrong := tmp_path / f"wrong{len(hours)}").mkdir()
        with pytest.raises(ValueError, match="totals_from: midnight"):
            stored(wrong, [file], **more, **hours)
    store = stored(tmp_path, [file], totals_from="midnight", **more)
    np.testing.assert_allclose(store[RAIN], 1000 * amounts / 3600, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("leads", [range(1, 9), range(0, 9), [6, 12, 18, 24, 36, 48]])
def test_totals_from_the_start_of_forecasts(tmp_path, leads):
    hours = np.array([*leads])
    amounts = rain(np.concatenate([[START], ends(1)]), 1)[: hours[-1] + 1]
    total = np.cumsum(amounts * (np.arange(len(amounts)) > 0)[:, None, None], axis=0)[hours]
    table = file_of(total, hours * HOUR).rename(time="step").expand_dims(time=[START])
    (wrong := tmp_path / "wrong").mkdir()
    with pytest.raises(ValueError, match="rise since the initial time.* totals_from: start in place"):
        stored(wrong, [table], "forecast", interval_hours=1)
    store = stored(tmp_path, [table], "forecast", totals_from="start")
    edges = hours if hours[0] == 0 else np.concatenate([[0], hours])
    before = np.concatenate([0 * total[:1], total]) if hours[0] else total
    expected = 1000 * np.diff(before, axis=0) / (3600 * np.diff(edges))[:, None, None]
    np.testing.assert_allclose(store[RAIN][0, -len(expected) :], expected, rtol=1e-3, atol=1e-8)


def test_the_option_stands_alone_and_wants_leads_where_it_means_them(tmp_path):
    with pytest.raises(ValueError, match="interval_hours .* or totals_from .* got both, 1 and midnight"):
        SourceOptions("x", interval_hours=1, totals_from="midnight")
    times = ends(1)
    for folder, options, text in (
        ("start", {"totals_from": "start"}, "lead times of tp with totals_from: start, got times alone"),
        ("none", {}, "Expected interval_hours for .* totals_from: midnight or start"),
    ):
        (tmp_path / folder).mkdir()
        with pytest.raises(ValueError, match=text):
            stored(tmp_path / folder, [file_of(running(rain(times, 1), times), times)], **options)
