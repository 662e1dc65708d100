"""What an analysis is made from: the background of a window of times, its observations, and how one leads to the other."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from emulator.assimilation.geometry import Geometry
from emulator.assimilation.observations import Observations

Trajectory = Callable[[Tensor], list[Tensor]]


@dataclasses.dataclass(frozen=True, eq=False)
class Observed:
    """Observations of one time.

    Attributes:
      operator: equivalents of a state, `(batch, channel, *space)` to `(batch, n)`, differentiable by torch.
      value, error: what was observed and its standard deviation, `(n,)` float64.
      latitude, longitude: where, degrees, `(n,)`; level: value of the vertical coordinate or NaN, `(n,)`.
      rows: the table that they are of, for kinds that do not see them by their operators alone; None: not known.
    Raises `ValueError` for lengths that differ and for an error that is not above 0.
    """

    operator: Callable[[Tensor], Tensor]
    value: Tensor
    error: Tensor
    latitude: np.ndarray
    longitude: np.ndarray
    level: np.ndarray
    rows: Observations | None = None

    def __post_init__(self):
        columns = [getattr(self, field.name) for field in dataclasses.fields(self)[1:]]
        lengths = {len(column) for column in columns if column is not None}
        if len(lengths) != 1:
            raise ValueError(f"Expected columns of observations of one length, got {sorted(lengths)}")
        if not bool((self.error > 0).all()):
            raise ValueError(f"Expected errors of observations above 0, got {float(self.error.min()):g}")

    def __len__(self) -> int:
        return len(self.value)

    @classmethod
    def none(cls) -> "Observed":
        """No observation."""
        empty, nothing = torch.zeros(0, dtype=torch.float64), np.zeros(0)
        return cls(lambda state: state.new_zeros(len(state), 0), empty, empty, nothing, nothing, nothing)


class Covariance(Protocol):
    """The background's error covariance `B = L L^T` by its square root.

    Attributes:
      size: numbers of a control vector v.
    """

    size: int

    def __call__(self, control: Tensor) -> Tensor:
        """The increment `L v`: `(batch, size)` float64 to `(batch, channel, *space)` float64, linear."""


class Places(Protocol):
    """Where the cells of a state lie.

    Attributes:
      level: value of the vertical coordinate of every channel, NaN of those without, `(channel,)`.
    """

    level: np.ndarray

    def distance(self, latitude: np.ndarray, longitude: np.ndarray) -> Tensor:
        """Kilometres from every cell to some sites, `(cell, site)` float64, cells as `*space` flattened."""


@dataclasses.dataclass(frozen=True, eq=False)
class Window:
    """A background at the first time of a window, and what was observed at each of its times.

    Attributes:
      background: `(member, channel, *space)`, one member where there is no ensemble.
      observed: of every time.
      forecast: states at every time of the window from those at its first, `(batch, channel, *space)` each, the first being
        what it was given; with gradients where they are enabled.
      covariance: of the background's error; None where the kind takes it from the ensemble.
      places: where the cells lie, for localisation; None where the kind needs none.
      geometry: of the states, for kinds that place observations themselves; None where the kind needs none.
    """

    background: Tensor
    observed: Sequence[Observed]
    forecast: Trajectory = lambda state: [state]
    covariance: Covariance | None = None
    places: Places | None = None
    geometry: Geometry | None = None

    @property
    def count(self) -> int:
        """Observations of all times."""
        return sum(map(len, self.observed))

    @property
    def value(self) -> Tensor:
        return torch.cat([each.value for each in self.observed])

    @property
    def error(self) -> Tensor:
        return torch.cat([each.error for each in self.observed])

    def equivalents(self, state: Tensor) -> Tensor:
        """What the observations would be of states at the first time, `(batch, channel, *space)` to `(batch, n)` float64."""
        return equivalents(self.observed, self.forecast(state))


def equivalents(observed: Sequence[Observed], states: Sequence[Tensor]) -> Tensor:
    """Equivalents of the states of every time, `(batch, n)` float64."""
    return torch.cat([each.operator(state).double() for each, state in zip(observed, states, strict=True)], 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Analysis:
    """What an analysis yields.

    Attributes:
      state: at the window's first time, `(member, channel, *space)`, of the background's type.
      diagnostics: numbers about how it was found, by name.
    """

    state: Tensor
    diagnostics: dict[str, float] = dataclasses.field(default_factory=dict)


class Assimilation(Protocol):
    """A kind of analysis, made of its options.

    Attributes:
      ensemble: whether it takes its covariance from several members. static: whether it needs a `Covariance`.
      several_times: whether a window may have more than one.

    One with weights of its own has besides a `digest`, which tells them from others, and one that is made for certain states
    `expect(geometry)`, which raises `ValueError` for others.
    """

    ensemble: bool
    static: bool
    several_times: bool

    def analyse(self, window: Window) -> Analysis:
        """The analysis at the window's first time, of at least one observation."""
        ...


@dataclasses.dataclass(frozen=True)
class WhereObserved:
    """A kind of analysis for any window: without observations the background is the analysis, bit for bit."""

    kind: Assimilation

    @property
    def ensemble(self) -> bool:
        return self.kind.ensemble

    @property
    def static(self) -> bool:
        return self.kind.static

    @property
    def several_times(self) -> bool:
        return self.kind.several_times

    @property
    def digest(self) -> str | None:
        """What tells the kind's weights from others'; None: it has none."""
        return getattr(self.kind, "digest", None)

    def expect(self, geometry: Geometry) -> None:
        """Raises `ValueError` for states that the kind is not made for."""
        if expect := getattr(self.kind, "expect", None):
            expect(geometry)

    def analyse(self, window: Window) -> Analysis:
        """The kind's analysis at the window's first time, if there is an observation."""
        return self.kind.analyse(window) if window.count else Analysis(window.background)
