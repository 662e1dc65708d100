"""Top-of-atmosphere insolation and the clock features a network is given.

Declination, equation of time and Earth-Sun distance follow Spencer (1971), "Fourier series representation of the
position of the sun", Search 2 (5), 172; good to 0.0006 rad, 35 s and 0.01 %.
"""

import ctypes

import numpy as np

from emulator.kernels.compiled import LIBRARY
from emulator.planet.constants import SOLAR_CONSTANT


def solar_position(day_of_year, hour):
    """Declination [rad], equation of time [rad] and (mean distance / distance)^2 at a fractional hour UTC of a day 1..366."""
    angle = 2 * np.pi * (np.asarray(day_of_year) - 1 + np.asarray(hour) / 24) / 365.25
    c, s, c2, s2, c3, s3 = (f(k * angle) for k in (1, 2, 3) for f in (np.cos, np.sin))
    declination = 0.006918 - 0.399912 * c + 0.070257 * s - 0.006758 * c2 + 0.000907 * s2 - 0.002697 * c3 + 0.00148 * s3
    equation = 0.000075 + 0.001868 * c - 0.032077 * s - 0.014615 * c2 - 0.040849 * s2
    distance = 1.000110 + 0.034221 * c + 0.001280 * s + 0.000719 * c2 + 0.000077 * s2
    return declination, equation, distance


def daily_insolation(day_of_year, latitude):
    """Mean of `insolation` over the day around a fractional day of the year 1..366, the same at all longitudes, in W m-2.

    The integral from sunrise to sunset, at the hour angle whose cosine is -tan(latitude) tan(declination): Hartmann (2016),
    Global Physical Climatology, eq. 2.17.
    """
    declination, _, distance = solar_position(day_of_year, 0.0)
    phi = np.radians(latitude)
    sunset = np.arccos(np.clip(-np.tan(phi) * np.tan(declination), -1, 1))
    high, flat = np.sin(phi) * np.sin(declination), np.cos(phi) * np.cos(declination)
    return SOLAR_CONSTANT / np.pi * distance * (sunset * high + flat * np.sin(sunset))


def long_insolation(day_of_year, hour, step_hours, latitude):
    """Mean of `insolation` over a step of several whole days: of daily means at the middles of parts of at most 5 days."""
    count = max(6, int(np.ceil(step_hours / 120)))
    days = day_of_year + (hour + (np.arange(count) + 0.5) * (step_hours / count)) / 24
    return daily_insolation(days.reshape(-1, *[1] * np.ndim(latitude)), latitude).mean(axis=0)


def mean_insolation(day_of_year, hour, step_hours, latitude, longitude, samples=6):
    """Mean of `insolation` over the step that starts at `hour`, by the midpoint rule with `samples` points."""
    offsets = (np.arange(samples) + 0.5) * (step_hours / samples)
    hours = hour + offsets.reshape(-1, *[1] * max(np.ndim(hour), np.ndim(day_of_year)))
    declination, equation, distance = solar_position(day_of_year, hours)
    strength = SOLAR_CONSTANT / samples * distance
    high, flat = strength * np.sin(declination), strength * np.cos(declination)
    turned = 2 * np.pi * (hours / 24 - 0.5) + equation
    phi, longitude = np.radians(latitude), np.radians(longitude)
    space = phi.shape[:1] + longitude.shape[1:]
    if (phi.shape, longitude.shape) == ((*space[:1], 1), (1, *space[1:])) and hours.shape[-2:] == (1, 1):
        sine, cosine, columns = np.sin(phi).ravel(), np.cos(phi).ravel(), longitude.ravel()
        high, flat, turned = (a.reshape(samples, -1).T for a in (high, flat, turned))
        times = zip(high, flat, turned, strict=True)
        total = [_summed(np.outer(h, sine), np.outer(f, cosine), np.cos(np.add.outer(t, columns))) for h, f, t in times]
        return np.reshape(total, (*hours.shape[1:-2], *space))
    sine, cosine, total = np.sin(phi), np.cos(phi), 0.0
    for n in range(samples):
        flux = np.asarray(cosine * flat[n] * np.cos(longitude + turned[n]))
        flux += sine * high[n]
        total += np.maximum(flux, 0, out=flux)
    return total


def _summed(high: np.ndarray, flat: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """`sum(max(high + flat * turn, 0))` over the instants, float64 `(row, column)`, without an array for each of them.

    `high` and `flat` are `(instant, row)`, `turn` is `(instant, column)`.
    """
    high, flat, turn = (np.ascontiguousarray(a, np.float64) for a in (high, flat, turn))
    total = np.empty((high.shape[1], turn.shape[1]))
    if LIBRARY is not None:
        pointers = (ctypes.c_void_p(array.ctypes.data) for array in (high, flat, turn, total))
        LIBRARY.emulator_daylight(*pointers, ctypes.c_long(len(high)), *map(ctypes.c_long, total.shape))
        return total
    total[:], light = 0, np.empty_like(total)
    for n in range(len(high)):
        np.multiply(flat[n, :, None], turn[n], out=light)
        light += high[n, :, None]
        total += np.maximum(light, 0, out=light)
    return total


CLOCK_FEATURES = ("insolation", "sin_local_time", "cos_local_time", "sin_day_of_year", "cos_day_of_year")


def clock_features(day_of_year, hour, step_hours, latitude, longitude, out=None) -> np.ndarray:
    """Features of the step that starts at each of some times, float32 `(time, 5, *space)`, in the order `CLOCK_FEATURES`.

    `day_of_year` and `hour` are `(time,)`, and `step_hours` is a number or `(time,)`; `latitude` and `longitude` broadcast to
    the shape of the grid (`Grid.open_mesh()`). The features are written to `out` where it is given. Insolation is the mean
    over the step, in units of 400 W m-2 less 0.6: near zero mean and unit variance over the globe. A step of several whole
    days has no time of day: the mean of its sine and cosine over the step is 0.
    """
    space = np.broadcast_shapes(np.shape(latitude), np.shape(longitude))
    steps = np.broadcast_to(np.asarray(step_hours, np.float64), np.shape(day_of_year))
    day, hour = (np.asarray(a, np.float64).reshape(-1, *[1] * len(space)) for a in (day_of_year, hour))
    year = 2 * np.pi * (day - 1 + hour / 24) / 365.25
    features = np.empty((len(day), len(CLOCK_FEATURES), *space), np.float32) if out is None else out
    if is_long(steps):
        for n, step in enumerate(steps):
            features[n, 0] = long_insolation(day.flat[n], hour.flat[n], step, latitude) / 400 - 0.6
        features[:, 1:3] = 0.0
    else:
        local = 2 * np.pi * (hour / 24 + np.asarray(longitude) / 360)
        features[:, 0] = mean_insolation(day, hour, steps.flat[0], latitude, longitude) / 400 - 0.6
        features[:, 1], features[:, 2] = np.sin(local), np.cos(local)
    features[:, 3], features[:, 4] = np.sin(year), np.cos(year)
    return features


def is_long(step_hours) -> bool:
    """Whether steps are of several whole days, over which instants at equal distances would meet few times of day."""
    return bool(np.all((np.asarray(step_hours) > 24) & (np.asarray(step_hours) % 24 == 0)))
