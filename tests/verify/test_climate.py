"""Climate scores in closed form."""

import numpy as np
import pytest
import xarray as xr

from emulator.planet.grid import Grid
from emulator.planet.vertical import Levels
from emulator.verify.climate import (
    TAILS,
    blocked,
    climate_of,
    climate_scores,
    deseasonalised,
    geopotential_at,
    month_of,
    trend,
)

GRID = Grid.gaussian(8)
AREA = GRID.area.ravel()
DAYS = np.arange(730)
TIME = np.datetime64("2001-01-01", "ns") + DAYS * np.timedelta64(1, "D")
MONTH = month_of(TIME)


def record(mean=280.0, size=2.0, cycle=5.0, seed=0, slope=0.0):
    rng = np.random.default_rng(seed)
    latitude = GRID.mesh()[0].ravel()
    season = cycle * np.cos(2 * np.pi * DAYS / 365.25)[:, None]
    return (
        mean
        - 0.3 * np.abs(latitude)
        + season
        + size * rng.standard_normal((len(DAYS), AREA.size))
        + slope * DAYS[:, None]
    )


def reduced(values, limits=(200.0, 320.0)):
    return climate_of(lambda part: values[part], MONTH, AREA, limits)


def test_a_record_against_itself_has_no_error():
    climate = reduced(record())
    found = climate_scores(climate, climate, GRID, DAYS)
    for name in ("bias_map", "bias_rmse", "bias_mean", "season_bias_rmse"):
        np.testing.assert_allclose(found[name][1], 0, atol=1e-12)
    np.testing.assert_allclose(found["deviation_ratio"][1], 1)
    np.testing.assert_array_equal(*found["zonal_mean"][1])


def test_warmer_and_more_variable():
    truth, run = reduced(record()), reduced(record(mean=281.5, size=3.0, seed=1))
    found = climate_scores(run, truth, GRID, DAYS)
    np.testing.assert_allclose(found["bias_mean"][1], 1.5, atol=0.05)
    np.testing.assert_allclose(found["bias_rmse"][1], 1.5, atol=0.05)
    np.testing.assert_allclose(found["season_bias_rmse"][1], 1.5, atol=0.1)
    values = record()
    monthly = np.stack([values[m == MONTH].mean(0) for m in range(12)])
    np.testing.assert_allclose(truth.monthly, monthly, rtol=1e-12)
    variance = np.mean([values[m == MONTH].var(0) for m in range(12)], axis=0)
    np.testing.assert_allclose(truth.variance(np.arange(12)), variance, rtol=1e-9)
    np.testing.assert_allclose(found["deviation_ratio"][1], 1.4, atol=0.1)  # the cycle within months adds to both
    np.testing.assert_allclose(found["annual_cycle"][1][0] - found["annual_cycle"][1][1], 1.5, atol=0.2)


def test_quantiles_of_the_histogram_are_those_of_all_cells_by_area():
    values = record(size=8.0)
    found = reduced(values).quantile(TAILS)
    order = np.argsort(values.ravel())
    share = np.cumsum(np.broadcast_to(AREA, values.shape).ravel()[order]) / len(values)
    expected = np.interp(TAILS, share, values.ravel()[order])
    np.testing.assert_allclose(found, expected, atol=0.35)  # a bin is 0.3 K wide
    assert np.all(np.diff(found) > 0)


def test_blocks_do_not_change_the_reduction(monkeypatch):
    whole = reduced(record())
    monkeypatch.setattr("emulator.verify.climate.BLOCK_BYTES", 8 * AREA.size * 7)
    pieces = reduced(record())
    for name in ("count", "total", "square", "histogram", "series"):
        np.testing.assert_allclose(getattr(pieces, name), getattr(whole, name), rtol=1e-12, atol=1e-9)


def test_only_shared_months_are_compared():
    winter = np.flatnonzero(np.isin(MONTH, [0, 1]))
    values = record()
    run = climate_of(lambda part: values[winter][part], MONTH[winter], AREA, (200.0, 320.0))
    found = climate_scores(run, reduced(values), GRID, DAYS[winter])
    np.testing.assert_allclose(found["bias_mean"][1], 0, atol=1e-10)
    assert np.isfinite(found["season_bias_rmse"][1]).tolist() == [True, False, False, False]
    with pytest.raises(ValueError, match="share a month"):
        climate_scores(
            run, climate_of(lambda p: values[200:210][p], MONTH[200:210], AREA, (200, 320)), GRID, DAYS[winter]
        )


def test_a_run_that_blew_up_is_named():
    values = record()
    values[17, 3] = np.inf
    with pytest.raises(ValueError, match="finite fields in a long run, got others at time 17 of 730"):
        reduced(values)


def test_trend_and_its_error():
    rng = np.random.default_rng(0)
    days = np.arange(3650.0)
    slopes = [trend(days, 0.001 * days + rng.standard_normal(3650)) for _ in range(200)]
    found, errors = np.array(slopes).T
    np.testing.assert_allclose(found.mean(), 0.001, rtol=0.02)
    np.testing.assert_allclose(errors.mean(), found.std(), rtol=0.15)
    cycle = 10 * np.cos(2 * np.pi * days / 365.25)
    flat = deseasonalised(0.001 * days + cycle, days)
    np.testing.assert_allclose(flat, 0.001 * days, atol=1e-9)
    np.testing.assert_array_equal(deseasonalised(cycle[:400], days[:400]), cycle[:400])


@pytest.mark.parametrize("start", [0, 80, 200])
def test_a_year_of_a_run_has_the_drift_that_its_annual_cycle_does_not_explain(start):
    """The cycle of a single year looks like a trend of several K a year, unless the truth's is taken out."""
    days = np.arange(365.0)
    date = (start + np.arange(365)) % 365 + 1
    values = 280 + 8 * np.cos(2 * np.pi * (date - 20) / 365)
    months = np.array([values[month_of(TIME[date - 1]) == m].mean() for m in range(12)])
    plain = trend(days, values)[0] * 365
    drift = trend(days, deseasonalised(values + 0.002 * days, days, date, months))[0]
    np.testing.assert_allclose(drift, 0.002, atol=0.0015)
    assert start == 200 or abs(plain) > 2
    months[3] = np.nan
    assert np.isnan(trend(days, deseasonalised(values, days, date, months))).all()


def test_blocking_is_found_where_the_flow_is_reversed():
    latitude, longitude = np.linspace(90, -90, 73), np.arange(0, 360, 5.0)
    zonal = 5500 - 15 * np.abs(latitude)[:, None] * np.ones(len(longitude))
    assert not blocked(zonal, latitude).any()
    ridge = 800 * np.exp(-(((latitude - 60) / 9) ** 2))[:, None] * np.exp(-(((longitude - 20) / 15) ** 2))
    found = blocked(zonal + ridge, latitude)
    assert found[4] and found.sum() < 12 and not found[36]
    np.testing.assert_array_equal(blocked((zonal + ridge)[::-1], latitude[::-1]), found)


def test_geopotential_of_an_isothermal_atmosphere():
    levels = Levels.sigma(np.linspace(0, 1, 9))
    surface = np.array([[1e5, 7e4, 4.5e4]])
    fields = {
        "temperature": np.full((1, 8, 3), 250.0),
        "surface_pressure": surface,
        "geopotential_at_surface": np.array([0.0, 1000.0, 60000.0]),
    }
    found = geopotential_at(fields, levels, 5e4, 287.0, 461.5)
    expected = fields["geopotential_at_surface"] + 287.0 * 250.0 * np.log(surface / 5e4)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    moist = geopotential_at(fields | {"specific_humidity": np.full((1, 8, 3), 0.01)}, levels, 5e4, 287.0, 461.5)
    assert (moist[0, 0] > found[0, 0]) and (moist[0, 2] < found[0, 2])


def test_months_of_any_calendar():
    times = xr.date_range("2001-01-30", periods=3, freq="D", calendar="360_day", use_cftime=True)
    np.testing.assert_array_equal(month_of(times), [0, 1, 1])
