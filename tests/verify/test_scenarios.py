"""Scenario scores in closed form: ClimateBench's errors, pattern scaling, the noise of few members, and fields of stores."""

import numpy as np
import pytest
import xarray as xr

from emulator.planet.grid import Grid
from emulator.verify.annual import Annual
from emulator.verify.nrmse import another_member, noise_floor, nrmse
from emulator.verify.options import ScenarioOptions
from emulator.verify.pattern_scaling import PatternScaling
from emulator.verify.scenarios import FLOOR, MEMBER, PATTERN, Scenarios, scenario_scores

GRID = Grid.gaussian(8)
AREA = GRID.area.ravel()
PATTERN_MAP = (0.5 + np.sin(np.radians(GRID.mesh()[0])) ** 2).ravel()
CO2, SEA = "carbon_dioxide_mole_fraction", "sea_surface_temperature"
FORCINGS = {"slow": np.linspace(1, 2, 40), "fast": np.linspace(1, 5, 40), "middle": np.linspace(1, 3.3, 40)}


def noise(count, years=40, seed=0, size=0.5):
    return size * np.random.default_rng(seed).standard_normal((count, years, AREA.size))


def store(fields, forcing, first=2001, name="2m_temperature") -> xr.Dataset:
    """Annual means `(year, cell)` as `open_analysis` gives them: times are the ends of years."""
    times = np.array([np.datetime64(f"{first + n + 1}-01-01", "ns") for n in range(len(fields))])
    data = {
        name: (("time", "latitude", "longitude"), fields.reshape(-1, *GRID.shape), {"units": "K"}),
        CO2: ("time", forcing, {"units": "mol mol-1", "role": "forcing"}),
    }
    place = {"time": times, "latitude": GRID.latitude, "longitude": GRID.longitude}
    return xr.Dataset(data, place, {"time_step_months": 12, "emulator_schema": "analysis-1"})


def members(scenario, count, seed, size=0.5) -> list[xr.Dataset]:
    """Each a line in the forcing and noise of its own, and a climate of 280 K."""
    forced = 280 + 1.5 * np.outer(FORCINGS[scenario], PATTERN_MAP)
    return [store(forced + one, FORCINGS[scenario]) for one in noise(count, seed=seed, size=size)]


def as_forecast(dataset: xr.Dataset) -> xr.Dataset:
    """The same years as one forecast that starts with the first of them; its first lead is the analysis and no forecast."""
    first = dataset.isel(time=0).assign_coords(time=dataset.time.values[0] - np.timedelta64(365, "D"))
    whole = xr.concat([first * np.nan, dataset], "time").drop_vars(CO2)
    run = whole.rename(time="lead_time").expand_dims("init_time")
    run = run.assign_coords(init_time=[np.datetime64("2001-01-01", "ns")], lead_time=12 * np.arange(len(whole.time)))
    for name in run:
        run[name].attrs = dataset[name].attrs
    return run.assign_attrs(time_step_months=12, emulator_schema="forecast-1")


def test_errors_are_climatebenchs_with_true_areas():
    truth = np.outer(np.linspace(1, 3, 5), np.ones(AREA.size))
    same = nrmse(truth, truth, AREA)
    assert same == (0, 0) and same.total == 0
    warmer = nrmse(truth + 0.2, truth, AREA)
    np.testing.assert_allclose([warmer.spatial, warmer.whole, warmer.total], [0.1, 0.1, 0.6])
    pattern = PATTERN_MAP - PATTERN_MAP @ AREA
    moved = nrmse(truth + pattern, truth, AREA)  # no error of the global mean
    np.testing.assert_allclose([moved.spatial, moved.whole], [np.sqrt(pattern**2 @ AREA) / 2, 0], atol=1e-12)
    swing = nrmse(truth + np.array([1, -1, 0, 1, -1])[:, None], truth, AREA)  # none of the time mean
    np.testing.assert_allclose([swing.spatial, swing.whole], [0, np.sqrt(0.8) / 2], atol=1e-12)
    np.testing.assert_allclose(nrmse(-truth, -truth + 0.2, AREA).spatial, 0.2 / 1.8)
    assert np.isnan(nrmse(truth, truth * 0, AREA).spatial)


def test_pattern_scaling_is_exact_where_all_is_linear():
    forcing = np.concatenate([FORCINGS["slow"], FORCINGS["fast"]])
    fields = 3 + 1.5 * np.outer(forcing, PATTERN_MAP)
    fit = PatternScaling.fit(forcing, fields @ AREA, fields)
    np.testing.assert_allclose(fit(FORCINGS["middle"]), 3 + 1.5 * np.outer(FORCINGS["middle"], PATTERN_MAP))
    np.testing.assert_allclose([fit.slope @ AREA, fit.offset @ AREA], [1, 0], atol=1e-12)
    for broken in ((np.ones(80), fields @ AREA), (forcing, np.ones(80))):
        with pytest.raises(ValueError, match="Expected the (forcing|global mean) to vary over the years"):
            PatternScaling.fit(*broken, fields)


def test_the_own_mean_has_slope_one_whatever_the_record():
    """The mean over cells of the local lines is the global mean itself: noise alone shows it too."""
    fields = 280 + noise(1)[0]
    fit = PatternScaling.fit(np.arange(40.0), fields @ AREA, fields)
    np.testing.assert_allclose([fit.slope @ AREA, fit.offset @ AREA], [1, 0], atol=1e-5)  # areas sum to 1 + 2e-9


def test_the_floor_is_what_the_forced_response_scores():
    """Over many draws of members, the error of what they have in common is the floor, in the mean of squares."""
    forced = 1.5 * np.outer(FORCINGS["middle"], PATTERN_MAP)
    found, floors, others = [], [], []
    for seed in range(60):
        drawn = forced + noise(3, seed=seed)
        found.append(nrmse(forced, drawn.mean(0), AREA))
        floors.append(noise_floor(drawn, AREA))
        others.append(another_member(drawn, AREA))
    found, floors, others = (np.sqrt(np.mean(np.square(each), axis=0)) for each in (found, floors, others))
    np.testing.assert_allclose(floors, found, rtol=0.05)
    # a member's variance is 1, that of the mean of two others a half, that of the mean of three a third
    np.testing.assert_allclose(others, np.sqrt(1.5 * 3) * floors, rtol=0.05)
    assert np.isnan(noise_floor(drawn[:1], AREA)).all() and np.isnan(another_member(drawn[:1], AREA)).all()


def test_stores_of_scenarios_from_end_to_end():
    """An emulator that is the forced response scores as the floor says, one that is 0.3 K too warm has that as its bias."""
    train = {s: members(s, 4, seed) for seed, s in enumerate(("slow", "fast"))}
    truth = members("middle", 3, 9)
    forced = store(280 + 1.5 * np.outer(FORCINGS["middle"], PATTERN_MAP), FORCINGS["middle"])
    control = [store(np.full((5, AREA.size), 280.0), np.ones(5))]
    emulators = {"right": {"middle": as_forecast(forced)}, "warm": {"middle": as_forecast(_warmed(forced))}, "none": {}}
    found = scenario_scores(Scenarios(train, {"middle": truth}, emulators, control), GRID).squeeze()
    size = 1.5 * FORCINGS["middle"].mean() * (PATTERN_MAP @ AREA)
    np.testing.assert_allclose(found["scenario_norm"], size, rtol=0.01)
    spatial = {
        str(n): float(v) for n, v in zip(found.scenario_source.values, found["scenario_nrmse_spatial"], strict=True)
    }
    np.testing.assert_allclose(spatial["right"], spatial[FLOOR], rtol=0.15)
    np.testing.assert_allclose(spatial["warm"], 0.3 / size, rtol=0.03)
    assert spatial[FLOOR] < spatial[PATTERN] < 1.5 * spatial[FLOOR] < spatial[MEMBER] and np.isnan(spatial["none"])
    total = found["scenario_nrmse_spatial"] + 5 * found["scenario_nrmse_global"]
    np.testing.assert_allclose(found["scenario_nrmse_total"], total)
    errors = found["scenario_error_map"].sel(scenario_predicted="warm").values.ravel()
    np.testing.assert_allclose(errors @ AREA, 0.3, atol=0.01)
    assert found["scenario_members"] == 3 and found["scenario_year"].values.tolist() == list(range(2001, 2041))
    late = ScenarioOptions(years=(2021, 2030), form="logarithm")
    part = scenario_scores(Scenarios(train, {"middle": truth}, {}, control, late), GRID)
    assert part["scenario_year"].values.tolist() == list(range(2021, 2031))


def _warmed(dataset):
    return dataset.assign({"2m_temperature": (dataset["2m_temperature"] + 0.3).assign_attrs(units="K")})


def test_noise_of_the_training_falls_as_the_root_of_the_number_of_members():
    """One spare member is in no group: 1, 2 and 4 of 9, whose groups of 8 are one, and 9 itself."""
    train = {s: members(s, 9, seed) for seed, s in enumerate(("slow", "fast"))}
    found = scenario_scores(Scenarios(train, {"middle": members("middle", 12, 9)}), GRID).squeeze()
    counts = found["scenario_curve_members"].values
    assert counts.tolist() == [1, 2, 4, 8, 9]
    noisy = found["scenario_curve_noise"].values[:3]
    np.testing.assert_allclose(noisy * np.sqrt(counts[:3]), noisy[0], rtol=0.15)
    assert np.isnan(found["scenario_curve_noise"].values[3:]).all()
    # what is left of the error is the truth's own noise: squares add up
    floor = float(found["scenario_nrmse_spatial"].sel(scenario_source=FLOOR))
    np.testing.assert_allclose(found["scenario_curve_error"].values[:3] ** 2, noisy**2 + floor**2, rtol=0.25)


def test_local_fields_may_follow_the_temperature():
    """Rain that falls with the square root of nothing but temperature: linear in it, with noise in temperature alone."""

    def both(scenario, seed):
        (one,) = members(scenario, 1, seed)
        rain = store(5 + 0.1 * np.outer(FORCINGS[scenario], PATTERN_MAP), FORCINGS[scenario], name="rain")
        return [one.assign(rain=rain["rain"])]

    train = {s: both(s, seed) for seed, s in enumerate(("slow", "fast"))}
    found = scenario_scores(Scenarios(train, {"middle": both("middle", 3)}), GRID)
    assert found["scenario_channel"].values.tolist() == ["2m_temperature", "rain"]
    own = scenario_scores(
        Scenarios(train, {"middle": both("middle", 3)}, options=ScenarioOptions(variables=("rain",), scale_by="rain")),
        GRID,
    )
    error = own["scenario_nrmse_spatial"].sel(scenario_source=PATTERN)
    np.testing.assert_allclose(error, 0, atol=1e-9)
    assert (
        0
        < float(found["scenario_nrmse_spatial"].sel(scenario_source=PATTERN, scenario_channel="rain").squeeze())
        < 1e-3
    )


def test_months_and_days_become_years():
    """July means of daily fields in their years; a year that is cut short is none; a map's cells outside are missing."""
    days = np.datetime64("2001-01-01", "ns") + np.arange(365 * 2 + 100) * np.timedelta64(1, "D")
    month = days.astype("datetime64[M]").astype(int) % 12 + 1
    fields = np.where((month == 7)[:, None], 10.0, 0.0) + 0 * AREA
    daily = xr.Dataset(
        {"t": (("time", "latitude", "longitude"), fields.reshape(-1, *GRID.shape)), CO2: ("time", month * 1.0)},
        {"time": days, "latitude": GRID.latitude, "longitude": GRID.longitude},
    )
    july = Annual.of(daily, "daily", (7,))
    assert july.label.tolist() == [2001, 2002] and july.series(CO2, GRID).tolist() == [7, 7]
    np.testing.assert_allclose(Annual.of(daily, "daily").series("t", GRID), 310 / 365)
    run = daily[["t"]].rename(time="lead_time").expand_dims("init_time")
    run = run.assign_coords(init_time=days[:1], lead_time=days - days[0])
    first = xr.where(run["lead_time"] == run["lead_time"][0], 1e9, run["t"])  # the analysis, which is no forecast
    np.testing.assert_allclose(Annual.of(run.assign(t=first), "a run").series("t", GRID)[0], 310 / 364)
    with pytest.raises(ValueError, match="Expected whole years in a short one, got 100 times"):
        Annual.of(daily.isel(time=slice(100)), "a short one")


def test_what_does_not_fit_is_refused_by_name():
    train, truth = {"slow": members("slow", 1, 0), "fast": members("fast", 1, 1)}, members("middle", 1, 2)
    short = as_forecast(store(np.zeros((3, AREA.size)), np.zeros(3)))
    with pytest.raises(ValueError, match="all scored years of middle from short, got none of 2004"):
        scenario_scores(Scenarios(train, {"middle": truth}, {"short": {"middle": short}}), GRID)
    with pytest.raises(ValueError, match="Expected the forcing methane in the stores of slow"):
        scenario_scores(Scenarios(train, {"middle": truth}, options=ScenarioOptions("methane")), GRID)
    with pytest.raises(ValueError, match=r"Expected 2m_temperature in held-out middle 1, .* got none"):
        scenario_scores(Scenarios(train, {"middle": [truth[0].drop_vars("2m_temperature")]}), GRID)
    with pytest.raises(ValueError, match=r"forecasts of e for held-out scenarios \(middle\), got 'slow'"):
        Scenarios(train, {"middle": truth}, {"e": {"slow": short}})
    with pytest.raises(ValueError, match="names of emulators other than pattern scaling"):
        Scenarios(train, {"middle": truth}, {PATTERN: {}})
    with pytest.raises(ValueError, match="years as the first and the last one"):
        ScenarioOptions(years=(2100, 2080))


def test_a_sea_that_emulators_step_is_scored_without_being_named_and_where_there_is_sea():
    """Filled in over land with what no climate changes; prescribed, it is left out."""
    land = (np.radians(GRID.mesh()[1]) < 1.6).astype(float)

    def of(scenario, warmer=0.0):
        field = np.where(land.ravel() < 0.5, 280 + warmer + 1.5 * np.outer(FORCINGS[scenario], PATTERN_MAP), 280.0)
        dataset = store(field, FORCINGS[scenario], name=SEA).assign(land_sea_mask=(GRID.dims, land))
        dataset[SEA].attrs["role"] = "forcing"
        return dataset.assign(temperature=dataset[SEA].assign_attrs(role="prognostic"))

    run = as_forecast(of("middle", 0.1).drop_vars("land_sea_mask"))
    stepped = run.assign({SEA: run[SEA].assign_attrs(role="prognostic")})
    parts = {"train": {"slow": [of("slow")], "fast": [of("fast")]}, "held_out": {"middle": [of("middle")]}}

    def scored(forecast):
        return scenario_scores(Scenarios(**parts, forecasts={"emulator": {"middle": forecast}}), GRID)

    found = scored(stepped)
    assert found["scenario_channel"].values.tolist() == [SEA, "temperature"]
    error = found["scenario_error_map"].sel(scenario_channel=SEA, scenario_predicted="emulator").squeeze()
    np.testing.assert_array_equal(np.isfinite(error), land < 0.5)
    np.testing.assert_allclose(error.values[land < 0.5], 0.1)
    assert scored(run)["scenario_channel"].values.tolist() == ["temperature"]


def test_a_forcing_that_is_a_field_is_its_mean_over_the_cells_that_have_it():
    """A sea that warms with the forcing, filled in over land: the series is that of the sea, and so is the pattern's."""
    land = (np.radians(GRID.mesh()[1]) < 1.6).astype(float)

    def of(scenario, **mask):
        dataset = store(280 + 1.5 * np.outer(FORCINGS[scenario], PATTERN_MAP), FORCINGS[scenario])
        filled = np.where(land.ravel() < 0.5, 290 + np.outer(FORCINGS[scenario], np.ones(AREA.size)), 200.0)
        sea = (dataset["2m_temperature"].dims, filled.reshape(-1, *GRID.shape), {"units": "K", "role": "forcing"})
        return dataset.assign({SEA: sea, **mask})

    mask = {"land_sea_mask": (GRID.dims, land)}
    series = Annual.of(of("slow", **mask), "slow").series(SEA, GRID)
    np.testing.assert_allclose(series, 290 + FORCINGS["slow"])
    # the mask of one store is that of all
    parts = {"train": {"slow": [of("slow", **mask)], "fast": [of("fast")]}, "held_out": {"middle": [of("middle")]}}
    found = scenario_scores(Scenarios(**parts, options=ScenarioOptions(SEA)), GRID)
    np.testing.assert_allclose(found["scenario_forcing"].values, [[291, 293.3]])
    np.testing.assert_allclose(found["scenario_forcing_trained"].values, [291, 295])
    pattern = found["scenario_nrmse_total"].sel(scenario_source=PATTERN)
    np.testing.assert_allclose(pattern, 0, atol=1e-9)
