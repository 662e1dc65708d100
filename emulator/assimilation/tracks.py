"""Where a polar orbiter's instrument looks: scan lines across the ground track of a circular sun-synchronous orbit."""

import numpy as np

from emulator.planet.constants import SECONDS_PER_DAY
from emulator.planet.interpolation import within

# The NOAA polar orbiters' (NOAA KLM User's Guide, section 2.0): nominal period and inclination, and the swath of AMSU-A.
PERIOD, INCLINATION, SWATH = 102.0 * 60, 98.7, 2074e3  # s, degrees, m


def swath(start, end, spacing: float, radius: float, phase: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude of what is seen later than `start` and not later than `end` (datetime64), degrees, `(place,)`.

    Args:
      spacing: between scan lines and along them, m. radius: of the Earth, m. phase: of the orbit at 1970, in turns.

    The orbit's plane turns with the mean sun, so that the Earth turns below it once in a mean solar day.
    """
    step = PERIOD * spacing / (2 * np.pi * radius)
    first, last = (np.floor((np.datetime64(t, "ns").astype(np.int64) / 1e9) / step) for t in (start, end))
    seconds = np.arange(first + 1, last + 1) * step
    along = 2 * np.pi * (seconds / PERIOD + phase)
    tilt = np.radians(INCLINATION)
    below = np.stack([np.cos(along), np.cos(tilt) * np.sin(along), np.sin(tilt) * np.sin(along)], -1)
    normal = np.array([0.0, -np.sin(tilt), np.cos(tilt)])
    count = max(1, round(SWATH / spacing))
    across = (np.arange(count) - (count - 1) / 2) * (SWATH / count / radius)
    seen = np.cos(across)[:, None] * below[:, None] + np.sin(across)[:, None] * normal  # (line, place, 3)
    latitude = np.degrees(np.arcsin(np.clip(seen[..., 2], -1, 1)))
    turned = 360 * (seconds / SECONDS_PER_DAY % 1)[:, None]
    longitude = (np.degrees(np.arctan2(seen[..., 1], seen[..., 0])) - turned) % 360
    return latitude.ravel(), longitude.ravel()


def scattered(grid, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`count` places at random, alike per area of what a grid covers, degrees; of a list of cells some of their centres."""
    north, east = grid.mesh()
    if grid.is_points:
        chosen = np.sort(rng.choice(len(north), count, replace=False, p=grid.area))
        return north[chosen], east[chosen]
    low, high = (-1.0, 1.0) if grid.is_global() else np.sin(np.radians([north.min(), north.max()]))
    west, width = (0.0, 360.0) if grid.goes_round else (east.min(), np.ptp(east))
    found: list[np.ndarray] = []
    while sum(map(len, found)) < count:
        some = np.degrees(np.arcsin(rng.uniform(low, high, count))), west + width * rng.uniform(size=count)
        found.append(np.stack(some, -1)[within(grid, *some)])
    places = np.concatenate(found)[:count]
    return places[:, 0], places[:, 1]


def spacing_of(grid, radius: float) -> float:
    """Side of a square of the cells' mean area, m."""
    share = 1.0 if np.isnan(grid.share) else grid.share
    return float(np.sqrt(4 * np.pi * radius**2 * share / grid.area.size))
