"""What a network is given of the state outside a limited area."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from emulator.planet.frame import Frame
from emulator.planet.grid import Grid

TIMES = 2  # states at the start and at the end of a step
VERSION = 2  # 1: networks that put domain and frame together had no channels of their own for the state outside


@dataclasses.dataclass(frozen=True)
class Border:
    """Variables at the cells of a frame, at the start and the end of every step.

    Attributes:
      names, levels: of the variables, as `emulator.data.channels.Channels` has them.
      width: of the frame in cells.
      place: "outside" the domain; or "inside", where the domain's own outermost cells are set to them after every step.
      outflow: budgets of which a step is given what leaves the domain by its sides.
      at: where the levels of each variable lie in the driving data, as `levels_at` has it; () where nobody knows. What a
        network makes of it is its own, so that borders with others are the same.
      version: of the package's way to give a network the state outside, when it was trained.
    """

    names: tuple[str, ...]
    levels: tuple[int, ...]
    width: int
    place: Literal["outside", "inside"] = "outside"
    outflow: tuple[str, ...] = ()
    at: tuple[tuple[float, ...], ...] = dataclasses.field(default=(), compare=False)
    version: int = dataclasses.field(default=VERSION, compare=False)

    @classmethod
    def from_json(cls, values: dict | None) -> "Border | None":
        """What a checkpoint holds of it; None for none."""
        if values is None:
            return None
        at = tuple(map(tuple, values.get("at", ())))
        shape = tuple(values["names"]), tuple(values["levels"]), int(values["width"]), values["place"]
        return cls(*shape, tuple(values.get("outflow", ())), at, values.get("version", 1))

    def at_of(self, name: str) -> tuple[float, ...]:
        """Where the levels of a variable lie; empty where it has none, or nobody knows."""
        return self.at[self.names.index(name)] if self.at else ()

    @property
    def count(self) -> int:
        """Channels of one time."""
        return sum(max(1, levels) for levels in self.levels)

    @property
    def channels(self) -> int:
        """Channels that a network is given: those of all times."""
        return TIMES * self.count

    def frame(self, domain: Grid) -> Frame:
        """Its frame of a domain. Raises `ValueError` where it does not fit."""
        return Frame.of(domain, self.width, self.place == "inside")


def same_levels(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether levels are the same, as far as it is known where both lie: to a thousandth of their values."""
    if not len(first) or not len(second):
        return True
    return len(first) == len(second) and np.allclose(first, second, rtol=1e-3)
