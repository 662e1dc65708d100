"""What the channels of a network are, for networks that treat them by variable, level, time or purpose."""

import dataclasses
from typing import Literal

Role = Literal["state", "forcing", "clock", "static", "mask", "place", "length", "diagnostic", "noisy"]


@dataclasses.dataclass(frozen=True)
class Channel:
    """One channel of a network's input or output.

    Attributes:
      name: of the variable, or of the feature. role: what it is for.
      level: its position among the levels of its variable, from the top; None for a field without levels.
      at: where that level lies: hPa in an atmosphere whose surface is at 1000 hPa, else metres; None where nobody knows.
      time: of an input, in steps from the newest state: 0, -1, ...; 1 of a state at the end of a window of steps.
    """

    name: str
    role: Role
    level: int | None = None
    at: float | None = None
    time: int = 0

    @property
    def label(self) -> str:
        """`temperature[3]`, and `temperature[3]@-1` of the step before."""
        level = "" if self.level is None else f"[{self.level}]"
        return f"{self.name}{level}" + (f"@{self.time}" if self.time else "")


@dataclasses.dataclass(frozen=True)
class Signature:
    """The channels of a network, in order.

    Attributes:
      inputs, outputs: the channels. Inputs are the states, the oldest first, then forcing, clock, fields of the place, the
        logarithm of the step's length where the network makes steps of several, and where it is told what a state lacks a
        mask for each variable of it; last what an objective adds: a second state, or noisy outputs. Outputs: the state, then
        diagnostics.
      hours: length of a step of the store; 0 where nobody knows.
    """

    inputs: tuple[Channel, ...]
    outputs: tuple[Channel, ...]
    hours: float = 0.0

    @classmethod
    def plain(cls, inputs: int, outputs: int) -> "Signature":
        """Of a network of which only the numbers of channels are known: surface fields, of which the first are the state."""
        state = min(inputs, outputs)
        given = [Channel(f"field_{n}", "state" if n < state else "forcing") for n in range(inputs)]
        made = [Channel(f"field_{n}", "state" if n < state else "diagnostic") for n in range(outputs)]
        return cls(tuple(given), tuple(made))

    @property
    def times(self) -> int:
        """Input states."""
        return 1 - min((channel.time for channel in self.inputs), default=0)

    def of(self, *roles: Role) -> list[int]:
        """Positions of the inputs of some roles."""
        return [n for n, channel in enumerate(self.inputs) if channel.role in roles]
