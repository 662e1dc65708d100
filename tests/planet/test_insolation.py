import numpy as np

from emulator.planet import insolation as sun
from emulator.planet.constants import SOLAR_CONSTANT
from emulator.planet.grid import Grid
from emulator.planet.insolation import clock_features, mean_insolation, solar_position


def test_declination_at_solstices_and_equinoxes():
    for day, degrees in ((172, 23.45), (355, -23.45), (80, 0.0), (266, 0.0)):
        assert abs(np.degrees(solar_position(day, 12.0)[0]) - degrees) < 0.7


def test_distance_factor_at_perihelion_and_aphelion():
    # (1 -+ 0.0167)^-2 for the eccentricity of the orbit
    assert abs(solar_position(3, 12.0)[2] - 1.0343) < 1e-3
    assert abs(solar_position(185, 12.0)[2] - 0.9674) < 1e-3


def test_global_mean_is_a_quarter_of_the_solar_constant():
    grid = Grid.gaussian(48)
    latitude, longitude = grid.mesh()
    for day in (3, 100, 185):
        flux = grid.mean(mean_insolation(day, 5.0, 0.0, latitude, longitude, samples=1))
        np.testing.assert_allclose(flux, SOLAR_CONSTANT * solar_position(day, 5.0)[2] / 4, rtol=2e-3)


def test_sun_stands_over_the_meridian_at_noon():
    longitude = np.arange(0, 360, 0.5)
    for hour in (0.0, 6.0, 15.0):
        highest = longitude[np.argmax(mean_insolation(80, hour, 0.0, 0.0, longitude, samples=1))]
        apart = (highest - (180 - 15 * hour) + 180) % 360 - 180
        assert abs(apart) < 4.2  # the equation of time is at most 16.5 minutes


def test_mean_over_a_day_does_not_depend_on_longitude():
    mean = mean_insolation(100, 0.0, 24.0, 40.0, np.array([0.0, 90.0, 200.0]), samples=96)
    np.testing.assert_allclose(mean, mean[0], rtol=2e-2)


def test_polar_night_is_dark():
    assert mean_insolation(355, 0.0, 24.0, 80.0, 0.0, samples=24) == 0


def test_clock_features_have_the_documented_shape_and_scale():
    grid = Grid.gaussian(16)
    features = clock_features(np.arange(1, 366, 30), np.zeros(13), 6.0, *grid.mesh())
    assert features.shape == (13, 5, 16, 32) and features.dtype == np.float32
    np.testing.assert_allclose(features[:, 1] ** 2 + features[:, 2] ** 2, 1, rtol=1e-5)
    np.testing.assert_allclose(features[:, 3] ** 2 + features[:, 4] ** 2, 1, rtol=1e-5)
    assert abs(grid.mean(features[:, 0]).mean()) < 0.5


def test_rows_and_columns_give_what_every_cell_gives():
    """Also where a step reaches into the next day, and the values of a step do not depend on those beside it."""
    grid = Grid.gaussian(12)
    days, hours = np.array([1, 200, 366]), np.array([21.0, 3.5, 12.0])
    found = clock_features(days, hours, 6.0, *grid.open_mesh())
    np.testing.assert_allclose(found, clock_features(days, hours, 6.0, *grid.mesh()), rtol=0, atol=3e-7)
    for n in range(3):
        alone = clock_features(days[n : n + 1], hours[n : n + 1], 6.0, *grid.open_mesh())
        np.testing.assert_array_equal(found[n], alone[0])
    points = Grid.points(*(a.ravel() for a in grid.mesh()), grid.area.ravel())
    at_points = clock_features(days, hours, 6.0, *points.open_mesh()).reshape(found.shape)
    np.testing.assert_allclose(at_points, found, rtol=0, atol=3e-7)
    moments = [(days[:, None, None], (hours + offset)[:, None, None]) for offset in np.arange(6) + 0.5]
    instants = [mean_insolation(*moment, 0.0, *grid.mesh(), samples=1) for moment in moments]
    np.testing.assert_allclose(found[:, 0], np.mean(instants, axis=0) / 400 - 0.6, atol=1e-6)


def test_the_compiled_sum_is_numpys(monkeypatch):
    chance = np.random.default_rng(0)
    for rows, columns in ((1, 1), (5, 7), (64, 129)):
        high, flat, turn = (chance.normal(size=(6, size)) for size in (rows, rows, columns))
        found = sun._summed(high, flat, turn)
        with monkeypatch.context() as patched:
            patched.setattr(sun, "LIBRARY", None)
            np.testing.assert_allclose(found, sun._summed(high, flat, turn), rtol=0, atol=1e-14)
        expected = np.maximum(high[:, :, None] + flat[:, :, None] * turn[:, None], 0).sum(0)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


def test_a_daily_mean_is_that_of_the_instants():
    grid = Grid.gaussian(24)
    latitude, longitude = grid.open_mesh()
    for day in (1, 80, 172, 300):
        instants = mean_insolation(day, -12.0, 24.0, latitude, longitude, samples=1440)  # the day around midnight
        np.testing.assert_allclose(
            sun.daily_insolation(day, latitude)[:, 0], instants.mean(axis=1), rtol=2e-3, atol=0.4
        )


def test_a_month_is_the_mean_of_its_days():
    """Three days apart in local time no longer matter; the sun of March is that of the equinox, between its neighbours."""
    latitude, longitude = Grid.gaussian(16).open_mesh()
    for first, days in ((1, 31), (60, 31), (152, 30), (1, 365)):
        expected = np.mean([sun.daily_insolation(first + d + 0.5, latitude) for d in range(days)], axis=0)
        features = clock_features(np.array([first]), np.zeros(1), 24.0 * days, latitude, longitude)
        found = 400 * (features[0, 0] + 0.6)
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=0.7)
        assert np.ptp(found, axis=1).max() == 0 and not features[0, 1:3].any()


def test_steps_of_their_own_lengths():
    """Each row has its month; a step of a day or of part of one stays as it was."""
    latitude, longitude = Grid.gaussian(8).open_mesh()
    days, hours = np.array([1, 32, 60]), np.zeros(3)
    together = clock_features(days, hours, np.array([31.0, 28, 31]) * 24, latitude, longitude)
    for n, length in enumerate((31.0, 28, 31)):
        alone = clock_features(days[n : n + 1], hours[:1], length * 24, latitude, longitude)
        np.testing.assert_array_equal(together[n], alone[0])
    for step in (6.0, 24.0, 36.0):
        expected = mean_insolation(days[:, None, None], hours[:, None, None], step, latitude, longitude) / 400 - 0.6
        found = clock_features(days, hours, np.full(3, step), latitude, longitude)
        np.testing.assert_array_equal(found[:, 0], expected.astype(np.float32))
        assert np.abs(found[:, 1]).max() > 0.5
