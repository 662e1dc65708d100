"""Where the cells of a state lie, for localisation on the sphere."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from emulator.data.channels import Channels
from emulator.planet.cell_areas import unit_vectors
from emulator.planet.constants import ERA5
from emulator.planet.grid import Grid


class SpherePlaces:
    """Cells of a grid; fulfils `emulator.assimilation.window.Places`.

    Args:
      channels: of the states. at: values of the vertical axis, by variable with levels. radius: of the Earth, m.
    """

    def __init__(self, grid: Grid, channels: Channels, at: Mapping[str, np.ndarray], radius: float = ERA5.earth_radius):
        parts = [at.get(n, np.full(w, np.nan)) for n, w in zip(channels.names, channels.widths, strict=True)]
        self.level = np.concatenate(parts)
        latitude, longitude = (np.broadcast_to(each, grid.shape).ravel() for each in grid.mesh())
        self._cells, self._radius = unit_vectors(latitude, longitude), radius

    def distance(self, latitude: np.ndarray, longitude: np.ndarray) -> Tensor:
        """Kilometres along great circles, `(cell, site)` float64."""
        cosine = self._cells @ unit_vectors(latitude, longitude).T
        return torch.from_numpy(self._radius / 1000 * np.arccos(cosine.clip(-1, 1)))
