"""Where the cells of a state lie, for localisation on the sphere."""

import numpy as np
import torch
from torch import Tensor

from emulator.data.channels import Channels
from emulator.planet.grid import Grid

KILOMETRES = 6371.0  # radius of the earth, km (IUGG mean)


class SpherePlaces:
    """Cells of a grid; fulfils `emulator.assimilation.window.Places`.

    Args:
      channels: of the states. at: values of the vertical axis, by variable with levels.
    """

    def __init__(self, grid: Grid, channels: Channels, at: dict[str, np.ndarray]):
        parts = [at.get(n, np.full(w, np.nan)) for n, w in zip(channels.names, channels.widths, strict=True)]
        self.level = np.concatenate(parts)
        latitude, longitude = (np.broadcast_to(each, grid.shape).ravel() for each in grid.mesh())
        self._cells = vectors(latitude, longitude)

    def distance(self, latitude: np.ndarray, longitude: np.ndarray) -> Tensor:
        """Kilometres along great circles, `(cell, site)` float64."""
        cosine = self._cells @ vectors(latitude, longitude).T
        return torch.from_numpy(KILOMETRES * np.arccos(cosine.clip(-1, 1)))


def vectors(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Points on the unit sphere, `(point, 3)`."""
    phi, theta = np.deg2rad(latitude), np.deg2rad(longitude)
    return np.stack([np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi)], 1)
