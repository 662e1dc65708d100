"""What a network is given of the state outside a limited area."""

import dataclasses
from typing import Literal

from emulator.planet.frame import Frame
from emulator.planet.grid import Grid

TIMES = 2  # states at the start and at the end of a step


@dataclasses.dataclass(frozen=True)
class Border:
    """Variables at the cells of a frame, at the start and the end of every step.

    Attributes:
      names, levels: of the variables, as `emulator.data.channels.Channels` has them.
      width: of the frame in cells.
      place: "outside" the domain; or "inside", where the domain's own outermost cells are set to them after every step.
    """

    names: tuple[str, ...]
    levels: tuple[int, ...]
    width: int
    place: Literal["outside", "inside"] = "outside"

    @classmethod
    def from_json(cls, values: dict | None) -> "Border | None":
        """What a checkpoint holds of it; None for none."""
        if values is None:
            return None
        return cls(tuple(values["names"]), tuple(values["levels"]), int(values["width"]), values["place"])

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
