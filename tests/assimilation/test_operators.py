"""Observation operators: exact where fields are linear, their gradients those of their values, in double precision."""

import numpy as np
import pytest
import torch
from small_planet import small_planet

from emulator.assimilation.geometry import Geometry
from emulator.assimilation.observations import Observations
from emulator.assimilation.operators import OPERATORS, equivalents
from emulator.assimilation.operators.column import layers
from emulator.assimilation.weights import entries
from emulator.data.channels import Channels
from emulator.planet.grid import Grid
from emulator.planet.vertical import Levels

NAMES = ("temperature", "u_component_of_wind", "surface_pressure")
TIME = np.datetime64("2001-01-01T06", "ns")


@pytest.fixture(scope="module")
def planet():
    return small_planet(times=2, nlat=12)


@pytest.fixture(scope="module")
def geometry(planet):
    return Geometry.of(planet, NAMES)


def state_of(planet, times=(0, 1)):
    fields = {n: torch.as_tensor(planet[n].values[list(times)].astype(np.float64)) for n in NAMES}
    return Channels.of(planet, NAMES).pack(fields)


def rows(operator, variable, latitude, longitude, level=np.nan, **more):
    count = np.broadcast(latitude, longitude, level).size
    every = {"operator": operator, "variable": variable, "time": TIME, "latitude": latitude, "longitude": longitude}
    every = {n: np.broadcast_to(v, (count,)) for n, v in (every | {"level": level} | more).items()}
    return Observations(value=np.zeros(count), error=np.ones(count), **every)


def scattered(operator, variable, level=(np.nan, np.nan), count=60, seed=0, **more):
    rng = np.random.default_rng(seed)
    latitude = np.degrees(np.arcsin(rng.uniform(-1, 1, count)))
    level = level[0] + (level[1] - level[0]) * rng.uniform(size=count)
    return rows(operator, variable, latitude, rng.uniform(0, 360, count), level, **more)


def every_kind():
    return Observations.concat(
        [
            scattered("point", "temperature", (0.05, 0.95)),
            scattered("radiance", "temperature", (0.2, 0.9), seed=1),
            scattered("point", "u_component_of_wind", (0.05, 0.95), seed=2),
            scattered("column", "u_component_of_wind", (0.1, 0.9), seed=3),
            scattered("point", "surface_pressure", seed=4),
            scattered("point", "surface_pressure", seed=5, elevation=400.0),
        ]
    )


KINDS = {
    "point": lambda: scattered("point", "temperature", (0.05, 0.95)),
    "wind": lambda: scattered("point", "u_component_of_wind", (0.05, 0.95)),
    "surface": lambda: scattered("point", "surface_pressure"),
    "column": lambda: scattered("column", "temperature", (0.1, 0.9)),
    "radiance": lambda: scattered("radiance", "temperature", (0.1, 0.9)),
    "elevated": lambda: scattered("point", "surface_pressure", elevation=700.0),
    "every": every_kind,
}


def tangent_of(h, x, dx):
    """H'(x) dx by a complex step, exact to rounding and without any derivative (Squire and Trapp 1998)."""
    return h(torch.complex(x, 1e-30 * dx)).imag / 1e-30


@pytest.mark.parametrize("kind", KINDS)
def test_adjoint_is_that_of_the_tangent_linear(planet, geometry, kind):
    """<H' dx, dy> = <dx, H'* dy>, the tangent linear by complex steps and its adjoint by torch's gradients."""
    h, x = equivalents(geometry, KINDS[kind]()), state_of(planet).requires_grad_()
    generator = torch.Generator().manual_seed(1)
    dx = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    tangent = tangent_of(h, x.detach(), dx)
    dy = torch.randn(tangent.shape, generator=generator, dtype=torch.float64)
    adjoint = torch.autograd.grad((h(x) * dy).sum(), x)[0]
    left, right = (tangent * dy).sum(), (dx * adjoint).sum()
    torch.testing.assert_close(left, right, rtol=1e-10, atol=0)
    assert abs(float(left)) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_tangent_linear_is_the_limit_of_differences(planet, geometry, kind):
    """Taylor: what is left of the first order falls with the square of the size; of a linear operator nothing is left."""
    h, x = equivalents(geometry, KINDS[kind]()), state_of(planet)
    dx = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    value, tangent = h(x), tangent_of(h, x, dx)
    left = [(h(x + size * dx) - value - size * tangent).norm() for size in (1.0, 0.1)]
    if kind in ("radiance", "elevated", "every"):
        assert float(left[0] / left[1]) == pytest.approx(100, rel=0.05)
    else:
        assert max(map(float, left)) < 1e-10 * float(value.norm())


@pytest.mark.parametrize("grid", (Grid.gaussian(12), Grid.equiangular(13, 24, poles=True), Grid.equiangular(12, 24)))
def test_point_is_exact_for_linear_fields(grid):
    """Linear in latitude, along the circle in each cell, and in the level; across the date line and towards the poles."""
    vertical = Levels.sigma(np.linspace(0, 1, 5))
    channels = Channels(("temperature", "u_component_of_wind", "surface_pressure"), (4, 4, 0))
    at = {name: vertical.values for name in channels.names[:2]}
    geometry = Geometry(grid, channels, at, vertical)
    colatitude = 90 - grid.mesh()[0]
    # linear across the north pole along every meridian circle that columns lie on: x = colatitude * cos(longitude)
    angle = np.radians(grid.mesh()[1])
    plane = colatitude * np.cos(angle)
    turning = np.cos(angle) * 3.0  # a uniform wind over the pole, as its eastward component
    levels = vertical.values[:, None, None]
    state = np.concatenate([plane + 10 * levels, turning + 0 * levels, plane[None]])[None]
    north = np.array([89.5, 88.0, 86.0, 50.0, -20.0])
    column = grid.longitude[[0, 5, 11, 17, 23]]
    level = np.array([0.2, 0.3, 0.5, 0.7, 0.8])
    asked = rows("point", "temperature", north, column, level)
    expected = (90 - north) * np.cos(np.radians(column)) + 10 * level
    got = equivalents(geometry, asked)(torch.as_tensor(state))[0]
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11)
    wind = equivalents(geometry, rows("point", "u_component_of_wind", north, column, level))(torch.as_tensor(state))[0]
    if not grid.has_poles:  # the row at a pole has the vector as it is seen from each column
        np.testing.assert_allclose(wind, 3 * np.cos(np.radians(column)), rtol=1e-11, atol=1e-11)
    # between the last column and the first one, a field linear there
    step = 360 / grid.shape[1]
    saw = np.broadcast_to(np.where(np.arange(grid.shape[1]) == 0, 1.0, 0.0), grid.shape)
    state[0, -1] = saw
    for east in (360 - 0.25 * step, -0.25 * step, 0.25 * step):
        value = equivalents(geometry, rows("point", "surface_pressure", np.array([10.0]), east))(torch.as_tensor(state))
        assert float(value) == pytest.approx(0.75, rel=1e-12)


def test_towards_the_south_pole_it_is_as_towards_the_north(geometry):
    grid = geometry.grid
    plane = (90 + grid.mesh()[0]) * np.sin(np.radians(grid.mesh()[1]))
    state = torch.as_tensor(np.broadcast_to(plane, (1, geometry.channels.count, *grid.shape)).copy())
    asked = rows("point", "surface_pressure", np.array([-89.9, -87.0]), grid.longitude[[3, 20]])
    expected = np.array([0.1, 3.0]) * np.sin(np.radians(grid.longitude[[3, 20]]))
    np.testing.assert_allclose(equivalents(geometry, asked)(state)[0], expected, rtol=1e-10)


def column_entries(geometry, asked):
    return entries(geometry, asked, *layers(geometry, asked))


def test_weights_of_a_column_sum_to_one_and_lie_about_its_level(geometry):
    levels = geometry.at["temperature"]
    weights = column_entries(geometry, rows("column", "temperature", 10.0, np.full(4, 20.0), levels, width=0.3))
    np.testing.assert_allclose(weights.weight.sum(0), 1.0, rtol=1e-14)
    by_level = weights.weight.reshape(len(levels), 4, -1).sum(1)
    assert by_level.argmax(0).tolist() == [0, 1, 2, 3]
    narrow = rows("column", "temperature", 10.0, np.full(4, 20.0), levels, width=1e-3)
    torch.testing.assert_close(
        column_entries(geometry, narrow).weight.reshape(4, 4, -1).sum(1), torch.eye(4, dtype=torch.float64)
    )


def test_radiance_of_an_isothermal_column_is_its_temperature_and_above_the_mean_in_others(planet, geometry):
    same = scattered("radiance", "temperature", (0.3, 0.9))
    flat = torch.full((1, geometry.channels.count, *geometry.grid.shape), 251.5, dtype=torch.float64)
    torch.testing.assert_close(equivalents(geometry, same)(flat), torch.full((1, 60), 251.5, dtype=torch.float64))
    mean = equivalents(geometry, same.replace(operator="column"))(state_of(planet))
    excess = equivalents(geometry, same)(state_of(planet)) - mean
    assert float(excess.min()) > 0 and float(excess.max()) < 15


def test_a_station_above_the_ground_has_the_hydrostatic_pressure(planet, geometry):
    """Over a level ground and one temperature: p exp(-g z / R (T - 0.0065 z / 2))."""
    flat = Geometry(geometry.grid, geometry.channels, geometry.at, geometry.levels, 0 * geometry.ground)
    state = torch.full((1, flat.channels.count, *flat.grid.shape), 280.0, dtype=torch.float64)
    state[:, -1] = 1e5
    high = rows("point", "surface_pressure", 10.0, np.array([5.0, 5.0]), elevation=np.array([500.0, np.nan]))
    expected = 1e5 * np.exp(
        -flat.constants.gravity * 500 / (flat.constants.gas_constant_dry_air * (280 - 0.0065 * 250))
    )
    np.testing.assert_allclose(equivalents(flat, high)(state)[0], [expected, 1e5], rtol=1e-12)


def test_rows_of_several_kinds_keep_their_order_and_precision(planet, geometry):
    every, x = every_kind(), state_of(planet)
    mixed = every.where(np.random.default_rng(0).permutation(len(every)))
    together = equivalents(geometry, mixed)(x)
    single = torch.cat([equivalents(geometry, mixed.where([n]))(x) for n in range(0, len(mixed), 17)], 1)
    torch.testing.assert_close(together[:, ::17], single, rtol=1e-15, atol=0)
    assert equivalents(geometry, mixed)(x.float()).dtype == torch.float32
    assert equivalents(geometry, mixed.where([]))(x).shape == (2, 0)


def test_fields_that_do_not_exist_everywhere_are_read_where_they_do(planet):
    ocean = planet.assign(sea_surface_temperature=planet["sea_surface_temperature"].assign_attrs(domain="ocean"))
    geometry = Geometry.of(ocean, ["sea_surface_temperature"])
    sea, north = geometry.exists[0], geometry.grid.mesh()
    state = torch.as_tensor(np.where(sea, 290.0, 0.0))[None, None]
    coast = np.flatnonzero(sea & np.roll(~sea, -1, axis=1))[:5]
    near = rows("point", "sea_surface_temperature", north[0].ravel()[coast], north[1].ravel()[coast] + 3.0)
    np.testing.assert_allclose(equivalents(geometry, near)(state)[0], 290.0, rtol=1e-14)
    dry = ~(sea | np.roll(sea, -1, axis=1))
    inland = np.flatnonzero(dry & np.roll(dry, 1, 0))[:1]
    away = rows("point", "sea_surface_temperature", north[0].ravel()[inland] + 0.1, north[1].ravel()[inland] + 3.0)
    with pytest.raises(ValueError, match="where the field exists, sea_surface_temperature does not"):
        equivalents(geometry, away)


@pytest.mark.slow
def test_gradients_are_the_same_bits_with_several_threads(geometry):
    asked = Observations.concat([scattered("column", "temperature", (0.1, 0.9), count=20000, seed=n) for n in (1, 2)])
    h, threads = equivalents(geometry, asked), torch.get_num_threads()
    x = torch.rand(2, geometry.channels.count, *geometry.grid.shape, generator=torch.Generator().manual_seed(0))
    y = torch.rand(2, len(asked), generator=torch.Generator().manual_seed(1))
    found = []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            leaf = x.clone().requires_grad_()
            found.append(torch.autograd.grad((h(leaf) * y).sum(), leaf)[0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[1], found[2]) and torch.equal(found[0], found[1])


def test_what_cannot_be_observed_is_refused_in_a_sentence(geometry):
    good = {"latitude": 10.0, "longitude": np.array([5.0]), "level": 0.5}
    bad = {
        "observation operator among column, point, radiance, got 'points'; nearest: point": (
            "points",
            "temperature",
            good,
        ),
        "observations of temperature, .*got 'temprature'": ("point", "temprature", good),
        "levels of temperature within 0 to 1, got nan": ("point", "temperature", good | {"level": np.nan}),
        "levels of temperature within 0 to 1, got 500": ("column", "temperature", good | {"level": 500.0}),
        "within the grid .*, got latitude nan": ("point", "temperature", good | {"latitude": np.nan}),
        "variable with levels .* column, got surface_pressure": ("column", "surface_pressure", good),
        "radiances of temperature, got u_component_of_wind": ("radiance", "u_component_of_wind", good),
        "positive widths .*, got -1": ("column", "temperature", good | {"width": -1.0}),
    }
    for message, (operator, variable, more) in bad.items():
        with pytest.raises(ValueError, match=message):
            equivalents(geometry, rows(operator, variable, **more))
    with pytest.raises(ValueError, match="variables of the store, it has no salinity"):
        Geometry.of(small_planet(times=2, nlat=8), ["salinity"])
    assert OPERATORS.names() == ["column", "point", "radiance"]
