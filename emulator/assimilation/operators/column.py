"""A mean over the column with a Gaussian weighting function about a level, as a sounder's channels have."""

import numpy as np

from emulator.assimilation.geometry import Geometry
from emulator.assimilation.observations import Observations
from emulator.assimilation.operators import OPERATORS, Equivalent
from emulator.assimilation.weights import channel_of, check_levels, entries

WIDTH = 0.5  # scale heights, standard deviation: 8 km at half of the maximum, of the order of a microwave sounder's


class Column:
    """Linear: layers weigh as in an atmosphere whose surface is at 1000 hPa, and their weights sum to one."""

    column, variables = True, ()

    def prepare(self, geometry: Geometry, rows: Observations) -> Equivalent:
        """H of the class. Raises `ValueError` for a variable without levels, levels beyond its own; places as `entries`."""
        return entries(geometry, rows, *layers(geometry, rows))

    def channels(self, geometry: Geometry, rows: Observations) -> tuple[np.ndarray, np.ndarray]:
        """As `layers`."""
        return layers(geometry, rows)


def layers(geometry: Geometry, rows: Observations) -> tuple[np.ndarray, np.ndarray]:
    """Channels of all levels of every row's variable and their weights, `(slot, row)` each: they sum to one.

    On levels of the atmosphere the width of a weighting function is in scale heights (of ln p), `WIDTH` where none is given;
    on other axes in units of the axis. Raises `ValueError` as `Column.prepare`, and for a width that is not positive.
    """
    most = max((len(at) for at in geometry.at.values()), default=0)
    channel, share = np.zeros((most, len(rows)), np.int64), np.zeros((most, len(rows)))
    for name in sorted(set(rows.variable.tolist())):
        here, channels = np.flatnonzero(rows.variable == name), channel_of(geometry, name)
        if name not in geometry.at:
            raise ValueError(f"Expected a variable with levels for an observation of a column, got {name}")
        level, count = rows.level[here], len(geometry.at[name])
        check_levels(geometry, name, level)
        places, thick, centre, width = _axis(geometry, name, level, rows.width[here])
        weight = np.exp(-(((places[:, None] - centre) / width) ** 2) / 2) * thick[:, None]
        channel[:count, here] = np.arange(channels.start, channels.stop)[:, None]
        share[:count, here] = weight / weight.sum(axis=0)
    return channel, share


def _axis(geometry: Geometry, name: str, level, width):
    """Places and thickness of the layers `(level,)`, centres and widths `(row,)`, along what weighting functions lie on."""
    at, levels = geometry.at[name], geometry.levels
    if levels is not None and np.array_equal(at, levels.values):
        place = np.array(levels.places())
        thick = np.array([float(layer) for layer in levels.thickness(np.float64(1e5))]) / (100 * place)
        width = np.where(np.isfinite(width), width, WIDTH)
        place, centre = np.log(place), np.log(np.interp(level, at, place))
    else:
        place, centre, thick = at, level, np.abs(np.gradient(at)) if len(at) > 1 else np.ones(1)
    if not (width > 0).all():
        raise ValueError(f"Expected positive widths of weighting functions of {name}, got {width[~(width > 0)][0]:g}")
    return place, thick, centre, width


OPERATORS.register("column", Column())
