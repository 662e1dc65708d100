"""How the rows and columns of a foreign model lie to those of an analysis."""

from collections.abc import Mapping

import numpy as np

from emulator.bridges.analysis_source import AnalysisSource
from emulator.bridges.foreign.registry import ForeignError

NEAR = 1e-3  # degrees: coordinates in float32 differ by less, neighbouring cells by more


class Orientation:
    """Between fields `(..., lat, lon)` of a model, whose rows may run northward, and of an analysis.

    Args:
      coordinates: `lat` and `lon` of the model, degrees, one-dimensional. source: the analysis.
    Raises `ForeignError` for a model on another grid.
    """

    def __init__(self, coordinates: Mapping[str, np.ndarray], source: AnalysisSource):
        order = []
        for axis, own in (("lat", source.lat), ("lon", source.lon)):
            theirs = np.asarray(coordinates.get(axis, np.empty((0, 0))), np.float64)
            if theirs.ndim != 1 or len(theirs) != len(own):
                raise ForeignError(
                    f"Expected a model on the analysis's {len(source.lat)} x {len(source.lon)} latitudes and longitudes, got "
                    f"{axis} of shape {theirs.shape}; ingest puts an analysis on the model's grid"
                )
            apart = np.abs(theirs[None, :] - np.asarray(own)[:, None])
            apart = np.minimum(apart, np.abs(360 - apart)) if axis == "lon" else apart
            if apart.min(1).max() > NEAR:
                raise ForeignError(
                    f"Expected a model whose {axis} are the analysis's, got one that is {apart.min(1).max():.3g} degrees "
                    "away; ingest puts an analysis on the model's grid"
                )
            order.append(apart.argmin(1))
        self._rows, self._columns = order

    def ours(self, fields: np.ndarray) -> np.ndarray:
        """Fields of the model in the order of the analysis."""
        return fields[..., self._rows, :][..., self._columns]

    def theirs(self, fields: np.ndarray) -> np.ndarray:
        """Fields of the analysis in the order of the model."""
        return fields[..., np.argsort(self._rows), :][..., np.argsort(self._columns)]
