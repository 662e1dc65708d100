"""Scores of long runs by years in closed form: what is put in comes out, and a reference has no error to itself."""

import cftime
import numpy as np
import pytest
import xarray as xr

from emulator.planet.calendar import TimeStep
from emulator.planet.grid import Grid
from emulator.verify import yearly
from emulator.verify.climates.means import mean_bias
from emulator.verify.long_climate import SCORES, Pair, yearly_scores
from emulator.verify.long_runs import long_run_scores
from emulator.verify.response import responses
from emulator.verify.sea_index import FIELD, box, box_means
from emulator.verify.yearly import Moments, line, spread, year_numbers, year_start, years_of

GRID = Grid.gaussian(8)
AREA = GRID.area.ravel()
LATITUDE, LONGITUDE = (np.radians(angle) for angle in GRID.mesh())
TIME = np.datetime64("1999-01-01", "ns") + np.arange(0, 365 * 8 + 2, 2) * np.timedelta64(1, "D")
COUNT, MOMENTS = len(TIME), Moments.of(TIME, 1)
PATTERN = (1 + np.sin(LATITUDE) ** 2).ravel()


def noise(seed=0, times=COUNT):
    return np.random.default_rng(seed).standard_normal((times, AREA.size))


def years(values, moments=MOMENTS, grid=GRID) -> list:
    values = values[None] if values.ndim == 2 else values
    return years_of(lambda part: values[:, part], moments, AREA, grid, len(values))


def scores(run, reference) -> xr.Dataset:
    return yearly_scores(Pair(years(run), years(reference)[0], GRID, AREA))


def by_year(values):
    """`(year, cell)` at the times of whole years; the last year is cut short and gets what it gets."""
    return values[np.maximum(MOMENTS.year, 1999) - 1999]


def test_every_file_of_the_folder_is_asked_and_a_record_has_no_error_to_itself():
    found = scores(noise() + 280, noise() + 280)
    assert len(SCORES.names()) == 8
    for name in (
        "year_bias_map",
        "maximum_bias_map",
        "month_bias",
        "cycle_error",
        "trend_rmse",
        "bias_beyond_chance",
        "drift",
    ):
        np.testing.assert_allclose(found[f"climate_{name}"], 0, atol=1e-12, err_msg=name)
    for name in ("year_deviation_ratio", "trend_correlation", "year_deviation_ratio_map"):
        np.testing.assert_allclose(found[f"climate_{name}"], 1, err_msg=name)
    np.testing.assert_array_equal(*found["climate_power"])
    assert (found["climate_power_lowest"] <= found["climate_power"][1]).all()
    np.testing.assert_allclose(found["climate_resembled_year"], found["climate_own_year"])


def test_means_spreads_and_trends_are_those_put_in():
    """The reference: a pattern that warms by 0.02 a year, and departures of years; the run: warmer by 0.7, and 0.03."""
    own = noise(1, 8)
    own -= own.mean(axis=0)
    x = np.arange(8) - 3.5
    own -= np.outer(x, x @ own / (x @ x))  # neither mean nor trend is in them
    reference = 280 + np.outer(x, 0.02 * PATTERN) + own
    run = 280.7 + np.outer(x, 0.03 * PATTERN) + 2 * own
    found = scores(np.stack([by_year(run)] * 2), by_year(reference))
    np.testing.assert_allclose(found["climate_year_bias_map"], 0.7)
    np.testing.assert_allclose(found["climate_year_spread_map"].values.ravel(), np.sqrt((own**2).sum(0) / 6))
    np.testing.assert_allclose(found["climate_year_bias_rmse"], 0.7)
    np.testing.assert_allclose(found["climate_year_deviation_ratio_map"], 2)
    np.testing.assert_allclose(found["climate_trend_map"].values.reshape(2, -1), [0.3 * PATTERN, 0.2 * PATTERN])
    np.testing.assert_allclose(found["climate_trend_correlation"], 1)
    np.testing.assert_allclose(found["climate_drift"], 7 * 0.01 * PATTERN @ AREA)
    np.testing.assert_allclose(found["climate_global_spread"], np.sqrt(((own @ AREA) ** 2).sum() / 6))
    np.testing.assert_allclose(found["climate_own_spread"], 2 * found["climate_global_spread"])
    chance = 2 * np.sqrt((own**2).sum(0) / 6) * np.sqrt(1 / 8 + 1 / 16)
    np.testing.assert_allclose(found["climate_bias_beyond_chance"], (chance < 0.7) @ AREA)
    assert 0 < float(found["climate_bias_beyond_chance"]) < 1
    np.testing.assert_allclose(found["climate_year_series"][1], run @ AREA)


def test_a_run_with_the_climate_of_three_years_before_resembles_that():
    x = np.arange(8) - 3.5
    reference = 280 + np.outer(x, 0.2 * PATTERN)
    found = scores(by_year(reference[2:6].mean(0) + 0 * reference - 3 * 0.2 * PATTERN), by_year(reference))
    np.testing.assert_allclose(found["climate_own_year"], 2002.5)
    np.testing.assert_allclose(found["climate_resembled_year"], 1999.5)
    np.testing.assert_allclose(found["climate_resembled_year_error"], 0, atol=1e-6)
    distance = found["climate_distance_to_year"].values
    np.testing.assert_allclose(distance, 0.2 * np.abs(np.arange(8) - 0.5) * np.sqrt(PATTERN**2 @ AREA), rtol=1e-6)


def test_the_annual_cycle_has_the_amplitude_and_phase_put_in():
    wave = np.cos(MOMENTS.phase - 0.4)[:, None]
    found = scores(280 + 9 * wave * PATTERN, 270 + 10 * wave * PATTERN)
    np.testing.assert_allclose(found["climate_cycle_map"].values.reshape(2, -1), [9 * PATTERN, 10 * PATTERN], rtol=6e-3)
    np.testing.assert_allclose(found["climate_cycle_error"], np.sqrt(PATTERN**2 @ AREA), rtol=6e-3)
    later = scores(280 + 10 * np.cos(MOMENTS.phase - 0.5)[:, None] * PATTERN, 280 + 10 * wave * PATTERN)
    np.testing.assert_allclose(later["climate_cycle_error"], 20 * np.sin(0.05) * np.sqrt(PATTERN**2 @ AREA), rtol=2e-2)


def test_highest_values_and_powers_are_of_the_field():
    """A zonal wave of wavenumber 2, twice as large in the run: four times the power at total wavenumber 2 alone."""
    wave = (np.cos(LATITUDE) ** 2 * np.cos(2 * LONGITUDE)).ravel()
    reference = np.outer(1 + 0.1 * (MOMENTS.month == 5), wave)
    found = scores(2 * reference, reference)
    np.testing.assert_allclose(
        found["climate_maximum_bias_map"].values.ravel(), np.where(wave > 0, 1.1, 1.0) * wave, atol=1e-12
    )
    power = found["climate_power"].values
    np.testing.assert_allclose(power[0], 4 * power[1], atol=1e-12)
    assert power[1, 2] > 0.1 and np.delete(power[1], 2).max() < 1e-12


def test_the_regression_gives_the_pattern_of_the_sea():
    """Whatever the field's own season is."""
    index = np.sin(2 * np.pi * np.arange(len(TIME)) * 2 / 1300)
    sst = (
        300 + np.broadcast_to(index[:, None, None], (len(TIME), *GRID.shape)) + 3 * np.cos(MOMENTS.phase)[:, None, None]
    )
    monthly = np.zeros_like(index)
    for year in MOMENTS.years:
        for month in range(12):
            own = (MOMENTS.year == year) & (MOMENTS.month == month)
            monthly[own] = index[own].mean()
    field = 280 + np.outer(monthly, PATTERN) + 5 * np.cos(MOMENTS.month / 2)[:, None]
    found = _of_stores(field, 1.5 * field, sst)
    assert found["climate_sea_index"].values[0] == ""
    both = found["climate_sea_regression_map"].values.reshape(2, -1)
    np.testing.assert_allclose(both, [1.5 * PATTERN, PATTERN], rtol=1e-4)  # the sea's season within months
    assert float(found["climate_sea_regression_error"].squeeze()) < 2e-3
    loud = _of_stores(field + noise(), field, sst)["climate_sea_regression_error"].squeeze()
    squares = ((monthly - np.array([monthly[MOMENTS.month == m].mean() for m in range(12)])[MOMENTS.month]) ** 2).sum()
    np.testing.assert_allclose(loud, 1 / np.sqrt(squares), rtol=0.2)
    still = _of_stores(field, field, 0 * sst + 300 + np.cos(MOMENTS.phase)[:, None, None])
    assert "same annual cycle in every year" in still["climate_sea_index"].values[0]
    assert "climate_sea_regression_map" not in still
    assert "has no sea_surface_temperature" in _of_stores(field, field, None)["climate_sea_index"].values[0]


def _store(field, sst=None) -> xr.Dataset:
    dims = ("time", "latitude", "longitude")
    data = {"temperature": (dims, field.reshape(-1, *GRID.shape), {"units": "K"})}
    data |= {} if sst is None else {FIELD: (dims, sst, {"units": "K", "role": "forcing"})}
    place = {"time": TIME, "latitude": GRID.latitude, "longitude": GRID.longitude}
    return xr.Dataset(data, place, {"time_step_seconds": 2 * 86400.0})


def _run(field) -> xr.Dataset:
    """One forecast of members `(member, time, cell)`, or of one `(time, cell)`."""
    members = field if field.ndim == 3 else field[None]
    run = xr.concat([_store(one) for one in members], "member").rename(time="lead_time").expand_dims("init_time")
    run = run.assign_coords(init_time=TIME[:1], lead_time=TIME - TIME[0])
    return run.transpose("init_time", "lead_time", "member", ...)


def _of_stores(reference, run, sst, **references) -> xr.Dataset:
    return long_run_scores(_store(reference, sst), {"run": _run(run)}, GRID, references=references or None)


@pytest.mark.parametrize("size", [0.2, 1.0])
def test_the_ceiling_is_what_a_perfect_emulator_reaches(size):
    """Four climates of one forced pattern, each with years of its own: the mean correlation over many such is the ceiling's,
    and the chance in a mean over years is that put in."""
    random, count, draws = np.random.default_rng(5), 4, 150
    area, departure = AREA / AREA.sum(), PATTERN - PATTERN @ AREA / AREA.sum()
    found, ceilings, chances = [], [], []
    for _ in range(draws):
        means = size * random.standard_normal((4, count, AREA.size))
        means[2:] += PATTERN  # run and reference, then both warmer
        scores = []
        for run, reference in (means[:2], means[2:]):
            one, other = (_years_alone(each) for each in (run, reference))
            found_bias = mean_bias(Pair([one], other, GRID, area))
            part = xr.Dataset({f"climate_{n}": found_bias[n] for n in ("year_mean_map", "pattern_noise")})
            scores.append(part.expand_dims("climate_channel"))
        climate = xr.concat(scores, "climate_run").assign(climate_reference=("climate_run", ["truth", "warm"]))
        change = responses(climate, GRID)
        found.append(change["climate_response_correlation"][1][1, 0])
        ceilings.append(change["climate_response_correlation_ceiling"][1][1, 0])
        chances.append(climate["climate_pattern_noise"].values)
    noise = size**2 * (1 - (area**2).sum()) / count  # of a mean over years, about the area mean
    np.testing.assert_allclose(np.mean(chances, axis=0), noise, rtol=0.02)
    signal = departure**2 @ area
    np.testing.assert_allclose(np.mean(ceilings), signal / (signal + 2 * noise), rtol=0.06)
    np.testing.assert_allclose(np.mean(found), np.mean(ceilings), rtol=0.06)


def _years_alone(means: np.ndarray):
    """Years `(year, cell)` of which nothing but the mean is looked at."""
    empty = np.zeros((len(means), 12))
    return yearly.Years(np.arange(len(means)), means, means, means.astype(complex), empty)


def test_from_stores_all_members_count_and_the_response_is_that_of_the_references():
    """A run that warms by 1.8 K where its reference warms by 2 K, in the same pattern; its members differ by a constant."""
    control, offsets = noise() + 280, np.array([-0.1, 0.1])[:, None, None]
    runs = {"control": _run(control + 0.5 + offsets), "warm": _run(control + 0.5 + 1.8 * PATTERN + offsets)}
    warm = {"warm": _store(control + 2.0 * PATTERN)}
    found = long_run_scores(_store(control), runs, GRID, references=warm).squeeze("climate_channel")
    np.testing.assert_allclose(found["climate_year_bias_map"].sel(climate_run="control"), 0.5, rtol=1e-9)
    change = found["climate_response_map"].sel(climate_run="warm").values.reshape(2, -1)
    np.testing.assert_allclose(change, [1.8 * PATTERN, 2 * PATTERN], rtol=1e-9)
    np.testing.assert_allclose(found["climate_response"].sel(climate_run="warm"), np.array([1.8, 2]) * (PATTERN @ AREA))
    np.testing.assert_allclose(found["climate_response_correlation"].sel(climate_run="warm"), 1)
    np.testing.assert_allclose(found["climate_response_rmse"].sel(climate_run="warm"), 0.2 * np.sqrt(PATTERN**2 @ AREA))
    assert np.isnan(found["climate_response"].sel(climate_run="control")).all()
    ceiling = found["climate_response_correlation_ceiling"]
    assert np.isnan(ceiling.sel(climate_run="control")) and 0.5 < float(ceiling.sel(climate_run="warm")) < 1
    assert found["climate_reference"].values.tolist() == ["truth", "warm"]
    assert found["climate_years"].values[0] == "8 years of 2 members from 1999, beside 8 years from 1999"
    series = found["climate_year_series"].sel(climate_run="control")
    np.testing.assert_allclose(series.diff("climate_member"), 0.2, rtol=1e-9)


def test_the_sea_that_an_ocean_steps_is_scored_where_there_is_sea_and_a_prescribed_one_is_not():
    """The run over a slab warms by 1.8 K where its reference warms by 2; both stores fill 280 K in over land."""
    land = (LONGITUDE < 1.6).astype(float)
    sea = land < 0.5

    def filled(field):
        return np.where(sea, field.reshape(-1, *GRID.shape), 280.0)

    control, air = noise() + 290, noise(2) + 280
    stores = {name: _store(air, filled(control + by)) for name, by in (("truth", 0.0), ("warm", 2 * PATTERN))}
    stores = {name: one.assign(land_sea_mask=(GRID.dims, land)) for name, one in stores.items()}
    runs = {"slab": _stepping(air, filled(control)), "warm": _stepping(air, filled(control + 1.8 * PATTERN))}
    found = long_run_scores(stores["truth"], runs, GRID, references={"warm": stores["warm"]})
    assert found["climate_channel"].values.tolist() == ["temperature", FIELD]
    assert found["climate_variable"].values.tolist() == ["temperature", FIELD]
    assert found["climate_channel_units"].values.tolist() == ["K", "K"]
    at = found.sel(climate_run="warm", climate_channel=FIELD)
    area = np.where(sea, GRID.area, 0.0).ravel()
    mean = PATTERN @ area / area.sum()
    np.testing.assert_allclose(at["climate_response"], np.array([1.8, 2.0]) * mean, rtol=1e-7)
    np.testing.assert_allclose(at["climate_global_bias"], -0.2 * mean, rtol=1e-6)
    np.testing.assert_allclose(at["climate_drift"], 0, atol=1e-9)
    np.testing.assert_array_equal(np.isfinite(at["climate_year_bias_map"]), sea)
    without = {"warm": stores["warm"].drop_vars("land_sea_mask")}  # over the truth's cells, as the control's
    xr.testing.assert_identical(long_run_scores(stores["truth"], runs, GRID, references=without), found)
    prescribed = {name: run.drop_vars(FIELD) for name, run in runs.items()}
    assert FIELD not in long_run_scores(stores["truth"], prescribed, GRID)["climate_channel"].values


def test_the_index_of_the_tropical_sea_leaves_out_what_is_filled_in_over_land():
    inside = np.argwhere(box(GRID))
    land = np.zeros(GRID.shape)
    land[tuple(inside[0])] = 1.0
    field = np.where(land > 0.5, 200.0, 300.0 + np.arange(3.0)[:, None, None])
    dataset = _store(noise()).isel(time=slice(3)).assign({FIELD: (("time", *GRID.dims), field)})
    known = dataset.assign(land_sea_mask=(GRID.dims, land))
    assert len(inside) > 1
    np.testing.assert_allclose(box_means(known, GRID, np.arange(3)), 300 + np.arange(3.0))
    assert (box_means(dataset, GRID, np.arange(3)) < 299).any()


def _stepping(air, sea) -> xr.Dataset:
    """A run that steps the sea's temperature: prognostic there, forcing in its analysis."""
    run = _run(air)
    field = sea[None, :, None]  # (init_time, lead_time, member, ...)
    return run.assign({FIELD: (run["temperature"].dims, field, {"units": "K", "role": "prognostic"})})


@pytest.mark.parametrize("screen", [False, True])
def test_a_climate_without_a_2_m_temperature_has_the_lowest_levels(screen):
    """In the place of a 2 m temperature, before rain and what forecasts are judged by."""
    levels = [300.0, 500.0, 850.0, 1000.0]
    pressure = xr.DataArray(levels, dims="level", attrs={"units": "hPa"})

    def aloft(dataset):
        high = dataset.expand_dims(level=pressure).transpose(*(d for d in dataset.temperature.dims[:-2]), "level", ...)
        high = high.assign({"2m_temperature": dataset["temperature"]} if screen else {})
        return high.assign(rain=dataset["temperature"]).rename(rain="mean_total_precipitation_rate")

    found = long_run_scores(aloft(_store(noise() + 280)), {"run": aloft(_run(noise(1) + 280))}, GRID)
    order = found["climate_channel"].values[np.argsort(found["climate_rank"].values, kind="stable")].tolist()
    warms = "2m_temperature" if screen else "temperature 1000 hPa"
    assert order == [warms, "mean_total_precipitation_rate", "temperature 500 hPa", "temperature 850 hPa"]


def test_a_run_of_other_years_is_beside_all_years_of_the_reference():
    first = Moments.of(TIME[:1000], 1)  # five whole years
    later = Moments.of(TIME + np.timedelta64(20 * 365 + 5, "D"), 1)
    values = noise()
    pair = Pair(years(values, later), years(values[:1000], first)[0], GRID, AREA)
    assert not pair.same_years and len(pair.reference.label) == 5
    part = Pair(years(values[:600], Moments.of(TIME[:600], 1)), years(values)[0], GRID, AREA)
    assert part.same_years and part.reference.label.tolist() == [1999, 2000, 2001]
    none = yearly_scores(Pair(years(values[:100], Moments.of(TIME[:100], 1)), years(values)[0], GRID, AREA))
    assert not none.data_vars


def test_blocks_do_not_change_the_reduction(monkeypatch):
    whole = years(noise())[0]
    monkeypatch.setattr(yearly, "BLOCK_BYTES", 8 * AREA.size * 7)
    parts = years(noise())[0]
    for name in ("mean", "highest", "cycle", "monthly", "power"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-10, err_msg=name)


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
def test_months_of_every_calendar_make_whole_years(calendar):
    start = [cftime.datetime(2001 + n // 12, 1 + n % 12, 1, calendar=calendar) for n in range(3, 64)]
    middles = np.array([a + (b - a) / 2 for a, b in zip(start[:-1], start[1:], strict=True)])
    numbers = year_numbers(middles, year_start(middles, TimeStep(months=1)))
    assert numbers.tolist() == [2001 + n // 12 for n in range(60)]
    assert (year_numbers(middles[:-1], year_start(middles, TimeStep(months=1)))[48:] == -1).all()


def test_days_of_leap_years_too():
    days = np.datetime64("2003-03-12") + np.arange(365 * 3 + 1)
    numbers = year_numbers(days.astype("datetime64[ns]"), year_start(days, TimeStep(86400)))
    assert [int((numbers == year).sum()) for year in (2003, 2004, 2005, -1)] == [366, 365, 365, 0]
    assert (year_numbers(days[:-1].astype("datetime64[ns]"), 72)[-364:-361] == 2005).all()
    gap = np.delete(days, np.arange(400, 440))
    assert (year_numbers(gap.astype("datetime64[ns]"), 72) == 2004).sum() == 0


def test_lines_and_spreads():
    label = np.arange(2000, 2010)
    rest = np.random.default_rng(0).standard_normal((10, 3))
    fit = [np.polyfit(label - 2004.5, column, 1, cov=True) for column in rest.T]
    middle, slope, error = line(rest, label)
    np.testing.assert_allclose(np.stack([slope, middle]), np.stack([c for c, _ in fit], axis=1))
    np.testing.assert_allclose(error, [np.sqrt(v[0, 0]) for _, v in fit])
    np.testing.assert_allclose(spread(rest + 5 * label[:, None], label), spread(rest, label))
    np.testing.assert_allclose(spread(rest[:4], label[:4]), rest[:4].std(0, ddof=1))
    assert np.isnan(spread(rest[:1], label[:1])).all() and np.isnan(line(rest[:1], label[:1])[1]).all()
