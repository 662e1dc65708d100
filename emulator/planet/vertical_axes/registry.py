"""What a kind of vertical axis is: its dimension in stores, how files record it, and its order."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from emulator.planet.units import linear
from emulator.registry import Registry


@dataclasses.dataclass(frozen=True, eq=False)
class Recorded:
    """A vertical coordinate as a file records it.

    Attributes:
      name: of the coordinate; attributes: its CF attributes; values: `(n,)`, as they are in the file.
      field: attributes of the variable that lies on it.
    """

    name: str
    attributes: Mapping
    values: np.ndarray
    field: Mapping

    @property
    def standard_name(self) -> str:
        """CF's, or nothing."""
        return str(self.attributes.get("standard_name", ""))

    def is_in(self, units: str) -> bool:
        """Whether the values are in units that convert to some."""
        return self._change(units) is not None

    def _change(self, units: str) -> tuple[float, float] | None:
        try:
            return linear(str(self.attributes.get("units", "?")), units)
        except ValueError:
            return None

    def measured(self, units: str) -> np.ndarray:
        """The values in `units`. Raises `ValueError` naming the coordinate where they are in no such units."""
        if (change := self._change(units)) is None:
            got = self.attributes.get("units", "none")
            raise ValueError(f"Expected units of the coordinate {self.name} that convert to {units}, got {got}")
        return np.round(self.values * change[0] + change[1], 6)


@dataclasses.dataclass(frozen=True)
class VerticalAxis:
    """One kind of vertical axis.

    Attributes:
      name: the dimension in stores; label: for messages ("depths").
      fits: whether a coordinate of a file is one; kinds are asked in the order of `order`, and the first one takes it.
      read: the coordinate's values as the store has them, `(n,)` float64 in the file's order, and what they are (the same
        for all fields of a store: "pressure" or "sigma", say). Raises `ValueError` for values without the units they need.
      attributes: CF attributes of the store's coordinate, by what the values are.
      decreasing: stored with the largest value first, as heights are, whose top comes first.
      written: a value as a person writes it, by what the values are; None: with the units of `attributes`.
      bounds: units of the bounds `<name>_bounds`, `(<name>, 2)`, that are kept beside it; "" for none.
      grib: GRIB's types of level (ecCodes' `typeOfLevel`) that it stands for, and the units of their numbers.
    """

    name: str
    label: str
    fits: Callable[[Recorded], bool]
    read: Callable[[Recorded], tuple[np.ndarray, str]]
    attributes: Callable[[str], dict]
    decreasing: bool = False
    written: Callable[[float, str], str] | None = None
    bounds: str = ""
    grib: Mapping[str, str] = dataclasses.field(default_factory=dict)
    order: int = 100

    def positions(self, values: np.ndarray) -> np.ndarray:
        """Positions that put values `(n,)` in the store's order."""
        return np.argsort(-values if self.decreasing else values, kind="stable")

    def label_of(self, value: float, kind: str = "") -> str:
        """A level as a person writes it, by what the values are: `500 hPa`, `5 m`, `layer 1`."""
        if self.written is not None:
            return self.written(float(value), kind)
        return f"{float(value):g} {self.attributes(kind).get('units', '')}".strip()


AXES: Registry[VerticalAxis] = Registry("vertical axis", __package__, order=lambda axis: axis.order)


def register(axis: VerticalAxis) -> VerticalAxis:
    """Adds a kind of axis. Raises `ValueError` for a name that another one has."""
    return AXES.register(axis.name, axis)
