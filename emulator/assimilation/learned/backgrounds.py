"""Cycles side by side, from which a learned analysis gets its backgrounds: forecasts from its own analyses, of growing age.

FengWu-Adas calls it cyclic training (Chen et al. 2023, version 4); for forecasts the same is a replay buffer (Bodnar et al.
2025). A cycle starts from the state of another time, so that the network learns to find its way from there, and what errors
its backgrounds have once it has found it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulator.assimilation.differences import stored_states
from emulator.assimilation.forecasts import Forecasts
from emulator.assimilation.increments import Increments
from emulator.assimilation.learned.options import BackgroundOptions
from emulator.planet.calendar import within
from emulator.store.schema import missing_times


@dataclasses.dataclass(frozen=True, eq=False)
class Taken:
    """Backgrounds of an update.

    Attributes:
      rows: which cycles they are of. times: of the backgrounds. state: `(row, channel, *space)`.
      ages: analyses that each cycle has seen.
    """

    rows: list[int]
    times: list
    state: Tensor
    ages: list[int]


class Backgrounds:
    """The cycles of a training, in memory; what is drawn of an update is a function of the seed and its number.

    Args:
      forecasts: the model. dataset: the truth. period: its first and last time that count; None is open.
      increments: what analyses keep. options: how many cycles, and how long. seed: of times.
    Raises `ValueError` for a period without two times in a row.
    """

    def __init__(
        self,
        forecasts: Forecasts,
        dataset: xr.Dataset,
        period: tuple,
        increments: Increments,
        options: BackgroundOptions,
        seed: int,
    ):
        self.forecasts, self.dataset, self.increments = forecasts, dataset, increments
        self.options, self.seed = options, seed
        self.times = dataset["time"].values
        self.usable = within(self.times, *period) & ~missing_times(dataset)
        self.starts = np.flatnonzero(self.usable[:-1] & self.usable[1:])
        if not len(self.starts):
            raise ValueError(f"Expected two times in a row to learn analyses from {period[0]} to {period[1]}, got none")
        count = options.cycles
        self.at = np.full(count, -1, np.int64)  # position of the state's time; -1: it has to start
        self.age = np.arange(count) * options.analyses // count  # so that not all of them start anew together
        self.mass = np.zeros(count)
        self.state = torch.zeros(count, forecasts.layout.prognostic.count, *forecasts.forcing.shape)

    def take(self, update: int, count: int) -> Taken:
        """So many backgrounds for an update, those of the cycles whose turn it is."""
        rows = [(update * count + k) % len(self.at) for k in range(count)]
        for row in rows:
            generator = np.random.default_rng([self.seed, update, row, 11])
            if self.at[row] < 0 or self.age[row] >= self.options.analyses or not self._goes_on(row):
                self._start(row, generator, keep_age=self.at[row] < 0)
        state = self.forecasts.each(self.state[rows], [self.times[k] for k in self.at[rows]], rows)
        for number, row in enumerate(rows):  # what a forecast has lost is found again from the truth
            if not bool(torch.isfinite(state[number]).all()):
                state[number] = self.truth([self.at[row] + 1])[0]
        return Taken(rows, [self.times[k + 1] for k in self.at[rows]], state, self.age[rows].tolist())

    def give_back(self, taken: Taken, analysis: Tensor) -> None:
        """The analyses from which these cycles go on, with their budgets."""
        mass = None if self.increments.air is None else torch.from_numpy(self.mass[taken.rows])
        kept, _ = self.increments.kept(analysis, taken.state, mass)
        self.state[taken.rows] = kept
        self.at[taken.rows] += 1
        self.age[taken.rows] += 1

    def truth(self, positions: Sequence[int]) -> Tensor:
        """States of the truth at positions of its time axis, `(row, channel, *space)`."""
        times = [self.times[k] for k in positions]
        return torch.cat([stored_states(self.dataset, self.forecasts.layout.prognostic, [time]) for time in times])

    def at_times(self, times: Sequence) -> Tensor:
        """States of the truth at times."""
        return self.truth(np.searchsorted(self.times, np.array(times)))

    def _goes_on(self, row: int) -> bool:
        at = self.at[row]
        return at + 1 < len(self.times) and bool(self.usable[at] and self.usable[at + 1])

    def _start(self, row: int, generator: np.random.Generator, keep_age: bool) -> None:
        """A cycle from the state of another time, as near as `wrong_days` allows."""
        at = int(generator.choice(self.starts))
        steps = self.options.wrong_days * 86400 / self.forecasts.forcing.step_seconds
        usable = np.flatnonzero(self.usable)
        near = usable[np.abs(usable - at) <= steps]
        state = self.truth([int(generator.choice(near))])
        mass = self.increments.dry_mass(state)
        self.state[row], self.at[row] = state[0], at
        self.mass[row] = 0.0 if mass is None else float(mass[0])
        if not keep_age:
            self.age[row] = 0

    def saved(self) -> dict[str, Tensor]:
        """All that a resumed training needs of the cycles."""
        numbers = {name: torch.from_numpy(getattr(self, name).copy()) for name in ("at", "age", "mass")}
        return {f"backgrounds/{name}": tensor for name, tensor in (numbers | {"state": self.state}).items()}

    def restore(self, saved: dict[str, Tensor]) -> None:
        """What `saved` gave."""
        for name in ("at", "age", "mass"):
            setattr(self, name, saved[f"backgrounds/{name}"].numpy().copy())
        self.state = saved["backgrounds/state"].clone()
