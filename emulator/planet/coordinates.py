"""Order and edges of horizontal coordinates: rows from the north, columns from the west, longitudes contiguous."""

import numpy as np

ROUNDING = 1e-4  # degrees (11 m), to which coordinates of sources are the same: float32 rounds to 3e-5


def check_coordinates(latitude: np.ndarray, longitude: np.ndarray) -> None:
    """Raises `ValueError` unless degrees `(nlat,)` and `(nlon,)` are finite and in the convention's order."""
    if latitude.ndim != 1 or longitude.ndim != 1 or len(latitude) < 2 or len(longitude) < 2:
        raise ValueError(
            f"Expected latitude and longitude as vectors of at least 2 values, got shapes {latitude.shape} and "
            f"{longitude.shape}"
        )
    for name, values in (("latitude", latitude), ("longitude", longitude)):
        if not np.all(np.isfinite(values)):
            raise ValueError(f"Expected finite values of {name}, got {values[~np.isfinite(values)][:3]}")
    if np.abs(latitude).max() > 90 + 1e-6:
        raise ValueError(f"Expected latitudes within -90 to 90, got {latitude.min()} to {latitude.max()}")
    if not np.all(np.diff(latitude) < 0):
        raise ValueError(
            f"Expected strictly decreasing latitudes (north to south), got {latitude[0]:.6g}, {latitude[1]:.6g}, ..., "
            f"{latitude[-1]:.6g}; ingest puts a source in order"
        )
    if not np.all(np.diff(longitude) > 0):
        raise ValueError(
            f"Expected strictly increasing longitudes, got {longitude[0]:.6g}, {longitude[1]:.6g}, ..., "
            f"{longitude[-1]:.6g}; ingest puts a source in order"
        )
    first, last = longitude[0], longitude[-1]
    across = (-180 <= first < 0 <= last or 0 <= first < 180) and last - first < 360 and not goes_round(longitude)
    if not across and not 0 <= first < last < 360:
        box = "" if goes_round(longitude) else " (or from -180 on, those of a box across Greenwich)"
        raise ValueError(f"Expected longitudes in [0, 360){box}, got {first:.6g} to {last:.6g}")


def longitude_east(longitude: np.ndarray) -> np.ndarray:
    """Longitudes in degrees as they are in [0, 360), of the same type."""
    east = np.asarray(longitude % 360, longitude.dtype)
    return np.where(east >= 360 - ROUNDING, np.zeros((), east.dtype), east)  # -1e-5 is 0, not 359.99999


def positions_in_order(name: str, values: np.ndarray) -> np.ndarray:
    """Positions that put a coordinate in the convention's order: latitude and `y` from the north, all others increasing."""
    return np.argsort(-values if name in ("latitude", "y") else values, kind="stable")


def contiguous(longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions that put longitudes in the convention's order, and their values in that order, each `(nlon,)`.

    From 0 east; where a gap wider than the one across Greenwich shows that they are those of a box, from its west.
    """
    east = longitude_east(longitude)
    order = np.argsort(east, kind="stable")
    values = east[order]
    gaps = np.diff(values)
    if len(gaps) and gaps.max() > 1.5 * (values[0] + 360 - values[-1]):
        start = int(gaps.argmax()) + 1
        order = np.roll(order, -start)
        values = np.concatenate([values[start:], values[:start] + 360])
        values = values - 360 if values[0] >= 180 else values
    turns = np.round((values - longitude[order]) / 360)
    values = np.where(turns == 0, longitude[order], values)
    if -ROUNDING < values[0] < 0 and values[-1] - values[0] >= 180:  # of a globe, that begins at 0
        values = np.concatenate([np.zeros(1, values.dtype), values[1:]])
    return order, values


def once(longitude: np.ndarray) -> np.ndarray:
    """Positions of increasing longitudes without those that are there twice, as 0 and 360 or -180 and 180 are."""
    kept = np.concatenate([[True], np.diff(longitude) > ROUNDING])
    if len(longitude) > 2 and longitude[-1] - longitude[0] > 360 - ROUNDING:
        kept[-1] = False
    return np.flatnonzero(kept)


def hole(values: np.ndarray) -> tuple[float, float] | None:
    """The two neighbours of an ordered coordinate `(n,)` between which others are left out; None where no such gap is.

    A hole is nearly twice as wide, or more, as most gaps: where nine tenths of those are alike, and elsewhere where it is so
    beside its neighbours too. Gaps that grow from row to row, as on stretched grids, and finer ones are no holes.
    """
    gaps = np.abs(np.diff(values))
    if len(gaps) < 3:
        return None
    usual = float(np.median(gaps))
    beside = np.maximum(np.concatenate([gaps[1:2], gaps[:-1]]), np.concatenate([gaps[1:], gaps[-2:-1]]))
    even = np.isclose(gaps, usual, rtol=1e-2).mean() >= 0.9
    wide = (gaps > 1.9 * usual) & (even | (gaps > 1.9 * beside))
    at = int(np.argmax(wide))
    return (float(values[at]), float(values[at + 1])) if wide.any() else None


def within_poles(latitude: np.ndarray) -> np.ndarray:
    """Latitudes in degrees, those that rounding put beyond a pole at the pole."""
    beyond = np.abs(latitude) > 90
    return np.where(beyond & (np.abs(latitude) <= 90 + ROUNDING), np.copysign(90.0, latitude), latitude)


def edges(centres: np.ndarray) -> np.ndarray:
    """Half-way between neighbours, and as far beyond the ends: `(n,)` -> `(n + 1,)`."""
    inner = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[1.5 * centres[0] - centres[1] / 2], inner, [1.5 * centres[-1] - centres[-2] / 2]])


def column_edges(longitude: np.ndarray) -> np.ndarray:
    """Edges of columns in degrees, increasing, `(nlon + 1,)`; of a grid that goes round, exactly equally wide.

    Uneven columns end half-way to their neighbours, the outer ones across Greenwich where no gap shows that they are a box's.
    """
    if goes_round(longitude):
        count = len(longitude)
        return longitude[0] + (np.arange(count + 1) - 0.5) * (360.0 / count)
    if closes(longitude):
        return edges(np.concatenate([longitude[-1:] - 360, longitude, longitude[:1] + 360]))[1:-1]
    return edges(longitude)


def goes_round(longitude: np.ndarray) -> bool:
    """Whether evenly spaced longitudes go all round."""
    return bool(np.allclose(np.diff(longitude), 360.0 / len(longitude), rtol=1e-3))


def closes(longitude: np.ndarray) -> bool:
    """Whether longitudes, evenly spaced or not, have no wider gap between the last and the first than between others."""
    return bool(longitude[0] + 360 - longitude[-1] <= np.diff(longitude).max() * (1 + 1e-3))
