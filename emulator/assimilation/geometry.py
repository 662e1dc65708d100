"""Where the channels of a state lie: what operators have to know of it besides its values."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from emulator.data.channels import Channels, outside_of
from emulator.networks.vectors import PAIRS
from emulator.planet.constants import ERA5, Constants
from emulator.planet.grid import Grid
from emulator.planet.interpolation import Corners, bilinear, nearest, within
from emulator.planet.vertical import Levels, vertical_of
from emulator.store.schema import constants_of, grid_of, levels_of


@dataclasses.dataclass(frozen=True, eq=False)
class Geometry:
    """Where the channels of states `(batch, channel, *space)` lie.

    Attributes:
      grid: of the cells. channels: variables and numbers of levels.
      at: values of the vertical axis, by variable with levels, `(level,)` each, in the store's order.
      levels: the layers of the atmosphere; None without.
      ground: height of the model's ground, m, `(*space)`; None where it is not known.
      exists: where each channel exists, `(channel, *space)` bool; None for everywhere.
      constants: of the model that made the data.
    """

    grid: Grid
    channels: Channels
    at: Mapping[str, np.ndarray]
    levels: Levels | None = None
    ground: np.ndarray | None = None
    exists: np.ndarray | None = None
    constants: Constants = ERA5

    @classmethod
    def of(cls, dataset, names: Sequence[str] | Channels) -> "Geometry":
        """Geometry of variables of a store, or of `Channels`. Raises `ValueError` for a name that the store lacks."""
        names = names.names if isinstance(names, Channels) else tuple(names)
        if absent := [name for name in names if name not in dataset]:
            raise ValueError(f"Expected variables of the store, it has no {', '.join(absent)}")
        channels, constants = Channels.of(dataset, names), constants_of(dataset)
        axes = {name: vertical_of(dataset[name].dims) for name in names}
        at = {name: np.asarray(dataset[axis].values, np.float64) for name, axis in axes.items() if axis}
        outside, ground = outside_of(dataset, channels), None
        if "geopotential_at_surface" in dataset:
            ground = np.asarray(dataset["geopotential_at_surface"].values, np.float64) / constants.gravity
        exists = None if outside is None else ~outside
        return cls(grid_of(dataset), channels, at, levels_of(dataset), ground, exists, constants)

    def corners(self, latitude, longitude) -> Corners:
        """Cells that count for points in degrees: four, over the poles too; the nearest one where cells are a list."""
        if self.grid.is_points:
            return nearest(self.grid, latitude, longitude)
        return bilinear(self.grid, latitude, longitude, over_poles=True)

    def inside(self, latitude, longitude) -> np.ndarray:
        """Which points lie on the grid, `(point,)`; no place that is not a number or no latitude does."""
        sound = np.isfinite(latitude) & np.isfinite(longitude) & (np.abs(latitude) <= 90)
        sound[sound] = within(self.grid, latitude[sound], longitude[sound])
        return sound

    def ground_at(self, latitude, longitude) -> np.ndarray:
        """Height of the model's ground at points, m, `(point,)`; NaN where it is not known."""
        if self.ground is None:
            return np.full(np.shape(latitude), np.nan)
        index, weight, _ = self.corners(latitude, longitude)
        return (self.ground.ravel()[index] * weight).sum(axis=0)

    def level_range(self, variable: str) -> tuple[float, float]:
        """Lowest and highest value on the vertical axis for which a variable has values: half a spacing past its levels."""
        at = np.sort(self.at[variable])
        if len(at) == 1:
            return at[0], at[0]
        return at[0] - (at[1] - at[0]) / 2, at[-1] + (at[-1] - at[-2]) / 2


def is_component(variable: str) -> bool:
    """Whether a variable is a component of a vector along east or north, which points backwards beyond a pole."""
    return any(word in variable for pair in PAIRS for word in pair)


def are_components(variables: np.ndarray) -> np.ndarray:
    """`is_component` of every row `(row,)`: each name is looked at once, rows are many and names few."""
    names, back = np.unique(variables, return_inverse=True)
    return np.array([is_component(name) for name in names.tolist()], bool)[back]
