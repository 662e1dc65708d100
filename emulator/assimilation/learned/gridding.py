"""Observations on the grid of a state: values and how much each counts, 0 where nothing is observed."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from emulator.assimilation.geometry import Geometry, are_components
from emulator.assimilation.observations import Observations
from emulator.assimilation.operators import OPERATORS

OPERATOR = "point"  # of observations that are given as departures from the background


class Gridded(NamedTuple):
    """Observations of some times, float32.

    Attributes:
      value: departures from the background in units of the scale; confidence: 0 to 1: `(batch, channel, *space)`.
      raw: normalised values of raw systems, and their confidence, `(batch, raw, *space)`.
    """

    value: Tensor
    confidence: Tensor
    raw: Tensor
    raw_confidence: Tensor


class RawChannel(NamedTuple):
    """A channel of a system whose values are taken as they are. `level`: NaN of a variable without."""

    system: str
    variable: str
    level: float

    def __str__(self) -> str:
        return f"{self.variable} of {self.system}" + ("" if np.isnan(self.level) else f" at {self.level:g}")


@dataclasses.dataclass(frozen=True, eq=False)
class Gridding:
    """Where observations lie among the inputs of a network.

    Attributes:
      geometry: of the states. scale: of the background's errors, of every channel, `(channel,)` float64.
      observed: which channels of the state were observed in the training, `(channel,)` bool; None: all may be.
      raw: channels of raw systems. raw_mean, raw_std: of their values, `(raw,)` float64.
    """

    geometry: Geometry
    scale: np.ndarray
    observed: np.ndarray | None = None
    raw: Sequence[RawChannel] = ()
    raw_mean: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    raw_std: np.ndarray = dataclasses.field(default_factory=lambda: np.ones(0))

    def __call__(self, rows: Observations, departure: np.ndarray) -> Gridded:
        """Observations of one time, all of which count, on the grid.

        Args:
          departure: observation minus the background's equivalent, `(row,)`; not looked at for raw systems.
        A row counts in the cell and level that are nearest. Several of one cell are averaged by `c / error^2`, c being their
        `confidence`, whose sum P gives the cell the confidence `P s^2 / (1 + P s^2)` with the scale s: the weight of an
        observation against a background with errors of that size. Raises `ValueError` for what the network does not know.
        """
        is_raw = np.isin(rows.system, sorted({channel.system for channel in self.raw}))
        departures, values = rows.where(~is_raw), rows.where(is_raw)
        self._check_operator(departures)
        channel, cell, sign = self._places(departures)
        self._check_channels(departures, channel)
        count = self.geometry.channels.count
        value, confidence = self._put(departures, sign * departure[~is_raw], channel, cell, self.scale)
        number = self._numbers(values)
        normalised = (values.value - self.raw_mean[number]) / self.raw_std[number]
        _, cell, _ = self._places(values)
        unit = values.replace(error=values.error / self.raw_std[number])
        raw, raw_confidence = self._put(unit, normalised, number, cell, np.ones(len(self.raw)))
        shape = self.geometry.grid.shape
        parts = (value, count), (confidence, count), (raw, len(self.raw)), (raw_confidence, len(self.raw))
        return Gridded(*(torch.from_numpy(part.astype(np.float32)).view(1, n, *shape) for part, n in parts))

    def _put(self, rows: Observations, values, channel, cell, scale) -> tuple[np.ndarray, np.ndarray]:
        """Means in units of the scale and confidences, flat."""
        cells = self.geometry.grid.area.size
        weight = (
            np.where(rows.confidence > 0, rows.confidence, 0.0) / rows.error**2
        )  # one that is missing counts nothing
        at, size = channel * cells + cell, len(scale) * cells
        total = np.bincount(at, weight, size)
        value = np.bincount(at, weight * np.where(weight > 0, values, 0.0), size)
        known, each = total > 0, np.repeat(scale, cells)
        value = np.divide(value, total * each, out=np.zeros(size), where=known)
        squared = total * each**2
        return value, squared / (1 + squared)

    def _places(self, rows: Observations) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Channel, flat cell, and sign (of components beyond a pole) of the nearest of every row, `(row,)` each."""
        corners, weight, beyond = self.geometry.corners(rows.latitude, rows.longitude)
        row, nearest = np.arange(len(rows)), np.argmax(weight, 0)
        sign = np.where(beyond[nearest, row] & are_components(rows.variable), -1.0, 1.0)
        if not len(rows):
            return np.zeros(0, np.int64), np.zeros(0, np.int64), sign
        point = np.isin(rows.operator, (OPERATOR,))
        channel = np.zeros(len(rows), np.int64)
        if point.any():
            channels, share = OPERATORS[OPERATOR].channels(self.geometry, rows.where(point))
            channel[point] = channels[np.argmax(share, 0), np.arange(point.sum())]
        return channel, corners[nearest, row], sign

    def _numbers(self, rows: Observations) -> np.ndarray:
        """Which raw channel every row is of, `(row,)`. Raises `ValueError` for one that the network was not trained with."""
        known = {_key(*channel): number for number, channel in enumerate(self.raw)}
        keys = [
            _key(*row) for row in zip(rows.system.tolist(), rows.variable.tolist(), rows.level.tolist(), strict=True)
        ]
        if unknown := [key for key in keys if key not in known]:
            system, variable, level = unknown[0]
            got = RawChannel(system, variable, np.nan if level is None else level)
            raise ValueError(f"Expected of raw systems {', '.join(map(str, self.raw))}, as in the training, got {got}")
        return np.array([known[key] for key in keys], np.int64)

    def _check_operator(self, rows: Observations) -> None:
        """Raises `ValueError` for departures of another operator."""
        if (other := np.flatnonzero(rows.operator != OPERATOR)).size:
            first = other[0]
            raise ValueError(
                f"Expected observations of the operator {OPERATOR} of all systems but raw ones, got {rows.operator[first]} "
                f"of {rows.system[first] or 'a system without a name'}; `raw` of a training names systems taken as they are"
            )

    def _check_channels(self, rows: Observations, channel: np.ndarray) -> None:
        """Raises `ValueError` for departures of channels that the training did not have."""
        if self.observed is None:
            return
        if (new := np.flatnonzero(~self.observed[channel])).size:
            labels = self.geometry.channels.labels()
            known = [label for label, seen in zip(labels, self.observed, strict=True) if seen]
            raise ValueError(
                f"Expected observations of what the network was trained with, {', '.join(known)}, got "
                f"{labels[channel[new[0]]]} of {rows.system[new[0]] or 'a system without a name'}"
            )


def _key(system: str, variable: str, level: float) -> tuple:
    return system, variable, None if np.isnan(level) else round(level, 6)
