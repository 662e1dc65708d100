"""Fields on pressure levels against closed forms, numpy's own interpolation, and hybrid levels of a real climate model."""

import numpy as np
import pytest
import xarray as xr
from small_planet import CONSTANTS, small_planet

from emulator.planet.pressure_levels import geopotential_at
from emulator.planet.vertical import Levels
from emulator.store.pressure import on_pressure

PRESSURES = np.array([100.0, 300, 500, 850, 950, 1050])
PLANET = small_planet(times=3, nlat=8, levels=6)


def column_pressures(planet):
    """Pa, `(time, level, latitude, longitude)`: half-way between the interfaces."""
    half = planet["half_level_b"].values[:, None, None, None] * planet["surface_pressure"].values.astype(np.float64)
    return np.moveaxis((half[1:] + half[:-1]) / 2, 0, 1)


@pytest.mark.parametrize("name", ["u_component_of_wind", "specific_humidity"])
def test_every_column_is_numpys_interpolation_in_log_pressure(name):
    found, pressure = on_pressure(PLANET, PRESSURES)[name].values, column_pressures(PLANET)
    field = PLANET[name].values.astype(np.float64)
    for time in range(3):
        for row, column in np.ndindex(8, 16):
            at = (time, slice(None), row, column)
            expected = np.interp(np.log(PRESSURES * 100), np.log(pressure[at]), field[at])
            np.testing.assert_allclose(found[at], expected, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("rate", [0.0, 0.0065])
def test_geopotential_of_a_standard_atmosphere(rate):
    """T = T0 (p / p0)^(R rate / g): second order in the thickness of layers, and exact where it is isothermal."""
    gravity, gas, ground = CONSTANTS.gravity, CONSTANTS.gas_constant_dry_air, 9.7e4
    exponent, wanted = gas * rate / gravity, np.array([2e4, 5e4, 8.5e4])
    closed = gas * 288 * (np.log(ground / wanted) if not rate else (1 - (wanted / ground) ** exponent) / exponent)

    def error(count):
        levels = Levels.sigma(np.linspace(0, 1, count + 1))
        temperature = 288 * levels.values[:, None] ** exponent
        found = geopotential_at(wanted, temperature, None, np.array([500.0]), levels, np.array([ground]), CONSTANTS)
        return np.abs(found[:, 0] - 500 - closed).max()

    if not rate:
        assert error(4) < 1e-8
    else:
        assert error(160) < error(40) / 8 < 20.0 / 8


def test_geopotential_below_the_ground_is_hydrostatic_with_the_temperature_there():
    """d phi / d ln p = -R T, by a difference across the pressure, of dry air."""
    dry = PLANET.assign(specific_humidity=0 * PLANET["specific_humidity"])
    found = on_pressure(dry, [1099.0, 1100.0, 1101.0]).astype(np.float64)
    slope = (found["geopotential"][:, 2] - found["geopotential"][:, 0]) / np.log(1101 / 1099)
    expected = -CONSTANTS.gas_constant_dry_air * found["temperature"][:, 1]
    np.testing.assert_allclose(slope.values, expected.values, rtol=2e-3)  # float32 of 1e4 m2 s-2 over 2 hPa


def test_pressure_rises_through_height_everywhere_and_the_ground_has_its_own():
    """At the surface pressure of a cell the geopotential is that of its ground."""
    levels = Levels("sigma", PLANET["level"].values, PLANET["half_level_a"].values, PLANET["half_level_b"].values)
    cell = {"time": 0, "latitude": 3, "longitude": 5}
    ground = np.float64(PLANET["surface_pressure"][cell])
    surface = np.float64(PLANET["geopotential_at_surface"].isel(latitude=3, longitude=5))
    column = PLANET["temperature"].isel(cell).values
    around = ground * np.array([0.999999, 1.0, 1.000001])
    found = geopotential_at(around, column, None, surface, levels, ground, CONSTANTS)
    np.testing.assert_allclose(found, surface, atol=0.1)
    assert np.all(np.diff(on_pressure(PLANET, PRESSURES)["geopotential"].values, axis=1) < 0)


def test_the_dataset_says_what_it_is_and_keeps_what_has_no_levels():
    found = on_pressure(PLANET, [500, 850])
    assert found.attrs["vertical_coordinate"] == "pressure" and found.attrs["levels_selected"] == 1
    assert found["level"].attrs["units"] == "hPa" and found["level"].values.tolist() == [500, 850]
    assert "half_level_a" not in found and found["geopotential"].attrs["units"] == "m2 s-2"
    xr.testing.assert_identical(found["surface_pressure"].reset_coords(drop=True), PLANET["surface_pressure"])


@pytest.mark.parametrize(
    ("change", "pressures", "said"),
    [
        (lambda d: d, [850, 500], "increasing pressures in hPa"),
        (lambda d: d, [], "increasing pressures in hPa"),
        (lambda d: d.drop_vars("surface_pressure"), [500], "surface_pressure beside sigma levels"),
        (lambda d: on_pressure(d, [500, 850]), [600], "got none"),
        (lambda d: d.isel(level=[1]).assign_attrs(levels_selected=1), [600], "whole columns"),
    ],
)
def test_what_cannot_be_interpolated_is_refused(change, pressures, said):
    with pytest.raises(ValueError, match=said):
        on_pressure(change(PLANET), pressures)


def test_hybrid_levels_of_a_climate_model(shared_data):
    """NCAR's own example for interpolation from hybrid levels, with numpy's interpolation in log pressure."""
    with xr.open_dataset(shared_data / "climate" / "vinth2p.nc", decode_times=False) as raw:
        raw = raw.load()
    a, b = raw["hyam"].values.astype(np.float64) * 1e5, raw["hybm"].values.astype(np.float64)
    half_a, half_b = [0.0], [1.0]  # from the ground up, so that levels lie half-way between interfaces
    for mid_a, mid_b in zip(a[::-1], b[::-1], strict=True):
        half_a.append(2 * mid_a - half_a[-1])
        half_b.append(2 * mid_b - half_b[-1])
    coordinates = {"level": np.arange(1.0, 19), "latitude": raw["lat"].values[::-1], "longitude": raw["lon"].values}
    dims = ("time", "level", "latitude", "longitude")
    fields = {
        "temperature": (dims, raw["T"].values[:, :, ::-1]),
        "surface_pressure": (("time", *dims[2:]), raw["PS"].values[:, ::-1]),
        "half_level_a": ("half_level", half_a[::-1]),
        "half_level_b": ("half_level", half_b[::-1]),
    }
    dataset = xr.Dataset(fields, coordinates, {"vertical_coordinate": "hybrid"})
    wanted = np.array([200.0, 500, 850, 1000])
    found = on_pressure(dataset, wanted)["temperature"].values
    pressure = a[:, None, None] + b[:, None, None] * raw["PS"].values[0, ::-1].astype(np.float64)
    column = raw["T"].values[0, :, ::-1].astype(np.float64)
    for row, place in np.ndindex(64, 8):
        place *= 16
        at = (slice(None), row, place)
        expected = np.interp(np.log(wanted * 100), np.log(pressure[at]), column[at])
        above = wanted * 100 <= pressure[-1, row, place]
        np.testing.assert_allclose(found[0, above, row, place], expected[above], rtol=1e-6)
        assert np.all(found[0, ~above, row, place] > column[-1, row, place])
