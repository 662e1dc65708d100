"""Weights of a state's entries, by which linear operators are sums."""

import numpy as np
import torch
from torch import Tensor

from emulator.assimilation.geometry import Geometry, are_components
from emulator.assimilation.observations import Observations


class Weighted:
    """H = sums of weighted entries of the state: entry `index` of the flat state and `weight`, `(corner, row)` each."""

    def __init__(self, index: np.ndarray, weight: np.ndarray):
        self.index, self.weight = torch.as_tensor(index), torch.as_tensor(weight, dtype=torch.float64)

    def entries(self, state: Tensor) -> Tensor:
        """The entries that count, `(batch, corner, row)`, of states `(batch, channel, *space)`."""
        flat, index = state.flatten(1), self.index.to(state.device).reshape(1, -1)
        return flat.gather(1, index.expand(len(flat), -1)).unflatten(1, self.index.shape)

    def __call__(self, state: Tensor) -> Tensor:
        return (self.entries(state) * self.weight.to(state)).sum(1)


def entries(geometry: Geometry, rows: Observations, channel: np.ndarray, share: np.ndarray) -> Weighted:
    """Weighted cells around every row of some channels, `channel` and its `share` `(slot, row)` each.

    Cells count in which the field exists. Raises `ValueError` for a place outside the grid, or where a field does not exist.
    """
    if not (inside := geometry.inside(rows.latitude, rows.longitude)).all():
        first = np.flatnonzero(~inside)[0]
        raise ValueError(
            f"Expected observations within the grid {geometry.grid.describe()}, got latitude {rows.latitude[first]:g} and "
            f"longitude {rows.longitude[first]:g}"
        )
    index, weight, beyond = _corners(geometry, rows, channel, share)
    if geometry.exists is not None:
        total = weight.sum(axis=0)
        if not (total > 0).all():
            name = rows.variable[np.flatnonzero(~(total > 0))[0]]
            raise ValueError(f"Expected observations where the field exists, {name} does not around one of them")
        weight = weight / total
    return Weighted(index, np.where(beyond & are_components(rows.variable), -weight, weight))


def seen(geometry: Geometry, rows: Observations, channel: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Which rows have a cell around them in which their field exists, `(row,)` bool; see `entries`."""
    if geometry.exists is None:
        return np.ones(len(rows), bool)
    return _corners(geometry, rows, channel, share)[1].sum(axis=0) > 0


def _corners(geometry: Geometry, rows: Observations, channel, share):
    """Flat entries, their weights (0 where a field does not exist), and which lie beyond a pole: `(corner, row)` each."""
    cell, part, beyond = geometry.corners(rows.latitude, rows.longitude)
    cells = int(np.prod(geometry.grid.shape))
    shape = (len(channel) * len(cell), len(rows))
    index, weight = (channel[:, None] * cells + cell).reshape(shape), (share[:, None] * part).reshape(shape)
    if geometry.exists is not None:
        weight = weight * geometry.exists.ravel()[index]
    return index, weight, np.tile(beyond, (len(channel), 1))


def channel_of(geometry: Geometry, variable: str) -> slice:
    """The channels of a variable. Raises `ValueError` for one that the state has not."""
    if variable not in geometry.channels.names:
        raise ValueError(f"Expected observations of {', '.join(geometry.channels.names)}, got {variable!r}")
    return geometry.channels.slices[variable]


def level_within(geometry: Geometry, variable: str, level: np.ndarray) -> np.ndarray:
    """Which levels a variable with levels has values for, `(row,)` bool: none that is not a number."""
    least, most = geometry.level_range(variable)
    return (level >= least) & (level <= most)


def check_levels(geometry: Geometry, variable: str, level: np.ndarray) -> None:
    """Raises `ValueError` for a level that `level_within` has not."""
    if not (good := level_within(geometry, variable, level)).all():
        least, most = geometry.level_range(variable)
        raise ValueError(f"Expected levels of {variable} within {least:g} to {most:g}, got {level[~good][0]:g}")
