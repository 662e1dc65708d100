"""Derived variables and changed levels against closed forms, with fields that give what they are told to."""

import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.ingestion.derive import derive, even_edges, needed, to_layers, to_pressure
from emulator.ingestion.fields import DerivedField, StorePlan
from emulator.planet.grid import Grid
from emulator.planet.insolation import mean_insolation
from emulator.planet.pressure_levels import full_pressures, interpolate
from emulator.planet.variables import VARIABLES, variable
from emulator.planet.vertical import Levels

GRID = Grid.gaussian(8)
TIMES = np.datetime64("2001-03-20T00", "ns") + np.arange(3) * np.timedelta64(6, "h")
PRESSURES = np.array([200.0, 500, 850, 1000])
RANDOM = np.random.default_rng(0)


def _given(values, moments, shape, kept, times):
    return kept[np.searchsorted(times, moments)]


def given_field(name, values):
    """A field that gives `(time, [level,] *space)` values."""
    values = np.asarray(values, np.float32)
    function = functools.partial(_given, kept=values, times=TIMES)
    return DerivedField(
        name, VARIABLES[name].role, [], function, TIMES, False, "level" if values.ndim == 4 else None, False
    )


def plan_of(levels=PRESSURES, vertical="pressure", half=None, **values):
    fields = {name: given_field(name, v) for name, v in values.items()}
    return StorePlan(
        TIMES, None, None, levels, vertical, GRID, fields, {}, 21600.0, np.zeros(3, bool), half_levels=half
    )


def values_of(plan, name):
    return plan.fields[name].read(0, 3, GRID.shape)


def random(levels=4, scale=1.0):
    return scale * RANDOM.random((3, levels, *GRID.shape)) if levels else scale * RANDOM.random((3, *GRID.shape))


def test_wind_speed():
    u, v = random(), random() - 0.5
    plan = derive(plan_of(u_component_of_wind=u, v_component_of_wind=v), ["wind_speed"])
    np.testing.assert_allclose(values_of(plan, "wind_speed"), np.sqrt(u**2 + v**2), rtol=1e-6)
    assert plan.fields["wind_speed"].vertical == "level" and list(plan.fields) == sorted(plan.fields)
    part = plan.fields["wind_speed"].part(1, 3)
    np.testing.assert_array_equal(part.read(0, 2, GRID.shape), values_of(plan, "wind_speed")[1:])


def test_columns():
    """A uniform mixing ratio over the whole column is that ratio of its mass; on pressure levels too, cut at the ground."""
    q, surface = 0.004, np.full((3, *GRID.shape), 9.5e4)
    half = np.array([0.0, 3000, 5000, 1000, 0]), np.array([0.0, 0, 0.3, 0.8, 1])
    humidity = np.full((3, 4, *GRID.shape), q)
    plan = plan_of(np.arange(1.0, 5), "hybrid", half, specific_humidity=humidity, surface_pressure=surface)
    found = values_of(derive(plan, ["total_column_water_vapour"], 9.81), "total_column_water_vapour")
    np.testing.assert_allclose(found, q * 9.5e4 / 9.81, rtol=1e-6)
    fields = {"specific_humidity": random(scale=0.01), "specific_cloud_ice_water_content": random(scale=1e-4)}
    plan = derive(plan_of(surface_pressure=surface, **fields), ["total_column_water", "total_column_water_vapour"])
    thickness = np.array([15000.0, 32500, 95000 - 67500, 0])[:, None, None]
    thickness[3] = 9.5e4 - 92500
    thickness[2] = 92500 - 67500
    for name, parts in (("total_column_water_vapour", ["specific_humidity"]), ("total_column_water", list(fields))):
        expected = sum((fields[p] * thickness).sum(axis=1) for p in parts) / 9.80665
        np.testing.assert_allclose(values_of(plan, name), expected, rtol=1e-5)
    without = derive(plan_of(specific_humidity=fields["specific_humidity"]), ["total_column_water_vapour"])
    uncut = np.array([15000.0, 32500, 25000, 7500])[:, None, None]
    found = values_of(without, "total_column_water_vapour")
    np.testing.assert_allclose(found, (fields["specific_humidity"] * uncut).sum(axis=1) / 9.80665, rtol=1e-5)


def test_layer_means():
    t = 250 + random(scale=40)
    name = "temperature_mean_350_675"
    found = values_of(derive(plan_of(temperature=t), [name]), name)
    np.testing.assert_allclose(found, t[:, 1], rtol=1e-6)  # just the layer of 500 hPa
    entry = variable(name)
    assert (entry.units, entry.levels, entry.role) == ("K", False, "diagnostic")
    name = "temperature_mean_300_800"
    found = values_of(derive(plan_of(temperature=t), [name]), name)
    expected = (t[:, 0] * 50 + t[:, 1] * 325 + t[:, 2] * 125) / 500
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    high = np.full((3, *GRID.shape), 6e4)  # a plateau: below its ground there is nothing to take the mean of
    name = "temperature_mean_700_900"
    assert np.isnan(values_of(derive(plan_of(temperature=t, surface_pressure=high), [name]), name)).all()
    for wrong in ("temperature_mean_850_300", "2m_temperature_mean_300_850", "mean_300_850"):
        with pytest.raises(ValueError, match="nearest|ERA5 long name"):
            variable(wrong)


def test_insolation_is_the_mean_over_the_step_that_ends_at_the_time():
    name = "mean_top_downward_short_wave_radiation_flux"
    plan = derive(plan_of(temperature=random()), [name])
    found, (latitude, longitude) = values_of(plan, name), GRID.mesh()
    minutes = np.arange(0.5, 360) / 60
    for number, (day, hour) in enumerate(((79, -6), (79, 0), (79, 6))):
        expected = np.mean(
            [mean_insolation(day, hour + m, 0.0, latitude, longitude, samples=1) for m in minutes], axis=0
        )
        np.testing.assert_allclose(found[number], expected, atol=12)
        assert GRID.mean(found[number]) == pytest.approx(1361 / 4, rel=0.02)
    assert plan.fields[name].averaged and plan.fields[name].role == "forcing"


def test_what_cannot_be_derived_is_named():
    assert needed(["10m_wind_speed", "temperature_mean_300_850"]) == {
        "10m_u_component_of_wind",
        "10m_v_component_of_wind",
        "temperature",
        "surface_pressure",
    }
    with pytest.raises(ValueError, match="to derive, got 'albedo'"):
        needed(["albedo"])
    with pytest.raises(ValueError, match="v_component_of_wind in the sources to derive wind_speed, got u_component"):
        derive(plan_of(u_component_of_wind=random()), ["wind_speed"])
    half = np.zeros(5), np.linspace(0, 1, 5)
    with pytest.raises(ValueError, match="surface_pressure to derive total_column_water_vapour on sigma"):
        derive(plan_of(np.arange(4.0), "sigma", half, specific_humidity=random()), ["total_column_water_vapour"])


# --- levels ---------------------------------------------------------------------------------------------------------

SIGMA = np.array([0.0, 0.1, 0.25, 0.4, 0.6, 0.8, 0.9, 1.0])
HALF = np.array([2000.0, 6000, 4000, 1000, 0, 0, 0, 0]), SIGMA
SURFACE = 9e4 + 1e4 * RANDOM.random((3, *GRID.shape))


def hybrid_plan(**more):
    return plan_of(np.arange(1.0, 8), "hybrid", HALF, surface_pressure=SURFACE, **more)


def test_a_function_of_log_pressure_is_interpolated_exactly():
    levels = Levels("hybrid", np.arange(1.0, 8), *HALF)
    pressure = np.moveaxis(full_pressures(levels, SURFACE), 0, 1)
    plan = to_pressure(hybrid_plan(u_component_of_wind=3 * np.log(pressure)), [100, 300, 500, 700])
    expected = np.broadcast_to(3 * np.log(np.array([1e4, 3e4, 5e4, 7e4]))[:, None, None], (3, 4, *GRID.shape))
    np.testing.assert_allclose(values_of(plan, "u_component_of_wind"), expected, rtol=3e-7)
    assert plan.vertical == "pressure" and plan.levels.tolist() == [100, 300, 500, 700]
    np.testing.assert_array_equal(values_of(plan, "surface_pressure"), SURFACE.astype(np.float32))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(0, 2**31))
def test_interpolation_against_numpy(count, seed):
    chance = np.random.default_rng(seed)
    pressures = np.sort(chance.uniform(1e3, 1e5, (count, 5)), axis=0)
    values, wanted = chance.normal(size=(count, 5)), np.sort(chance.uniform(5e2, 1.1e5, 7))
    found = interpolate(values, pressures, wanted)
    for column in range(5):
        expected = np.interp(np.log(wanted), np.log(pressures[:, column]), values[:, column])
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-9, atol=1e-9)


def test_below_the_ground_temperature_and_height_are_those_of_the_standard_atmosphere():
    """T = T0 (p / p0)^(R gamma / g), and the geopotential that is hydrostatic with it, closed form."""
    exponent = 287.0597 * 0.0065 / 9.80665
    levels = Levels("hybrid", np.arange(1.0, 8), *HALF)
    pressure = np.moveaxis(full_pressures(levels, SURFACE), 0, 1)
    t = 288.15 * (pressure / 101325) ** exponent
    z = (288.15 - t) / 0.0065 * 9.80665
    plan = to_pressure(hybrid_plan(temperature=t, geopotential=z), [850, 950, 1050, 1100])
    wanted = np.array([1.05e5, 1.1e5])[:, None, None]
    expected = 288.15 * (wanted / 101325) ** exponent
    np.testing.assert_allclose(
        values_of(plan, "temperature")[:, 2:], np.broadcast_to(expected, (3, 2, *GRID.shape)), rtol=1e-6
    )
    height = np.broadcast_to((288.15 - expected) / 0.0065 * 9.80665, (3, 2, *GRID.shape))
    np.testing.assert_allclose(values_of(plan, "geopotential")[:, 2:], height, atol=0.1)


@pytest.mark.parametrize("edges", [[0, 7], [0, 2, 3, 7], [0, 1, 2, 3, 4, 5, 6, 7]])
def test_joined_layers_keep_every_column_integral(edges):
    q = random(7, 0.01)
    plan = to_layers(hybrid_plan(specific_humidity=q), edges)
    joined = plan.column()
    before = Levels("hybrid", np.arange(1.0, 8), *HALF)

    def column(levels, values):
        return sum(dp * values[:, k].astype(np.float64) for k, dp in enumerate(levels.thickness(SURFACE)))

    found = plan.fields["specific_humidity"]
    exact = found.function([field.read(0, 3, GRID.shape) for field in found.inputs], TIMES, GRID.shape)
    pressure = SURFACE.astype(np.float32).astype(np.float64)
    wanted = sum(dp * q.astype(np.float32)[:, k].astype(np.float64) for k, dp in enumerate(before.thickness(pressure)))
    have = sum(dp * exact[:, k] for k, dp in enumerate(joined.thickness(pressure)))
    np.testing.assert_allclose(have, wanted, rtol=1e-13)
    np.testing.assert_allclose(column(joined, values_of(plan, "specific_humidity")), column(before, q), rtol=1e-6)


def test_joined_pressure_levels_are_hybrid_layers_without_b():
    q = random(4)
    plan = to_layers(plan_of(specific_humidity=q), even_edges(4, 2))
    assert plan.vertical == "hybrid" and plan.half_levels[0].tolist() == [20000.0, 67500.0, 100000.0]
    assert not plan.half_levels[1].any()
    expected = (q[:, 0] * 15000 + q[:, 1] * 32500) / 47500
    np.testing.assert_allclose(values_of(plan, "specific_humidity")[:, 0], expected, rtol=1e-6)


def test_sigma_stays_sigma_and_what_does_not_fit_is_named():
    sigma = {"vertical": "sigma", "half_levels": (np.zeros(8), SIGMA)}
    plan = to_layers(dataclasses.replace(hybrid_plan(temperature=random(7)), **sigma), [0, 3, 7])
    assert (
        plan.vertical == "sigma" and plan.levels.tolist() == [0.2, 0.7] and plan.half_levels[1].tolist() == [0, 0.4, 1]
    )
    for edges in ([0, 3], [1, 7], [0, 3, 3, 7], [0, 9]):
        with pytest.raises(ValueError, match="increasing interfaces from 0 to 7"):
            to_layers(hybrid_plan(temperature=random(7)), edges)
    with pytest.raises(ValueError, match="surface_pressure beside hybrid levels"):
        to_layers(plan_of(np.arange(1.0, 8), "hybrid", HALF, temperature=random(7)), [0, 7])
    with pytest.raises(ValueError, match="got pressure levels or none"):
        to_pressure(plan_of(temperature=random()), [500])
    with pytest.raises(ValueError, match="increasing pressures"):
        to_pressure(hybrid_plan(temperature=random(7)), [500, 300])
    with pytest.raises(ValueError, match="1 to 7 layers"):
        even_edges(7, 8)
