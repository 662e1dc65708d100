"""The state outside a limited area, from a store of driving data of any grid and step.

Driving data are an analysis, of whose times a step takes those that it starts and ends at; or forecasts, of which it takes
the one from the same initial time, at the same leads. In space they are interpolated to the cells of the frame (bilinear, of
a list of points the nearest), in time linearly where their step is longer.
"""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulator.data.border import TIMES, Border, same_levels
from emulator.data.channels import Channels
from emulator.data.driving_fields import DrivingFields
from emulator.data.normalisation import Normalizer
from emulator.planet.grid import Grid
from emulator.store.outflow import Outflow
from emulator.store.schema import grid_of, levels_at

MOMENT_TIMES = 64  # from which mean and spread are taken


class Boundary:
    """Driving data at the frame of a domain.

    Args:
      dataset: opened with `open_analysis` or `open_forecast`.
      border: what is taken of it. domain: the grid of the limited area.
      name: of the store, for messages.
      delay: of forecasts, seconds from their initial time to that of the forecasts that they drive.
      outflow: what leaves the domain by its sides, of the border's budgets; None where it has none.
    Raises `ValueError` for a variable or levels that the store lacks, members, and a frame that it does not cover.
    """

    def __init__(
        self,
        dataset: xr.Dataset,
        border: Border,
        domain: Grid,
        name: object = "the store",
        delay: float = 0,
        outflow: Outflow | None = None,
    ):
        self.outflow = outflow
        self.dataset, self.border, self.name, self.delay = dataset, border, name, delay
        self.frame, self.channels = border.frame(domain), Channels(border.names, border.levels)
        self.grid = grid_of(dataset)
        self._check_variables()
        where = f"boundary, {border.width} cells {border.place} {domain.describe()}"
        self.fields = DrivingFields(dataset, self.channels, self.frame.points, where, name, delay)

    def check(self, inits: Sequence, begins: Sequence, ends: Sequence) -> None:
        """Raises `ValueError` unless the store has states for steps, as `given` takes them, and there is their outflow."""
        for init, *moments in zip(inits, begins, ends, strict=True):
            for moment in moments:
                self.fields.check(init, moment)
        self.check_outflow(inits, begins, ends)

    def check_outflow(self, inits: Sequence, begins: Sequence, ends: Sequence) -> None:
        """Raises `ValueError` for steps whose outflow is not there, where it is asked for."""
        for step in zip(inits, begins, ends, strict=True) if self.outflow is not None else ():
            self.outflow.at(*step)

    def left(self, inits: Sequence, begins: Sequence, ends: Sequence) -> Tensor | None:
        """What leaves the domain by its sides over steps, outward positive: `(step, budget)` float64; None for none."""
        if self.outflow is None:
            return None
        steps = zip(inits, begins, ends, strict=True)
        return torch.from_numpy(np.stack([self.outflow.at(*step) for step in steps]))

    def given(self, inits: Sequence, begins: Sequence, ends: Sequence) -> Tensor:
        """The states at the start and the end of steps, along channels: `(step, 2 * channel, point)`, physical units.

        Args:
          inits: the initial time of each step's forecast, which of an analysis does not matter. begins, ends: of the steps.
        Raises `ValueError` for a time that is not there, and for states that stay the same over two steps.
        """
        rows = []
        for init, begin, end in zip(inits, begins, ends, strict=True):
            first, last = self.fields.at(init, begin), self.fields.at(init, end)
            if np.array_equal(first, last):
                self._refuse_standing_still(init, begin, end, last)
            rows.append(np.concatenate([first, last]))
        return torch.from_numpy(np.stack(rows))

    def over_domain(self, names: Sequence[str]) -> DrivingFields:
        """Some of the variables of the same driving data at the cells of the domain, in the order of rows."""
        levels = dict(zip(self.channels.names, self.channels.levels, strict=True))
        channels = Channels(tuple(names), tuple(levels[name] for name in names))
        domain = self.frame.domain
        return DrivingFields(self.dataset, channels, domain, f"domain of {domain.describe()}", self.name, self.delay)

    def hold(self, times: np.ndarray) -> None:
        """Reads the states at some increasing times of an analysis at once, as far as memory for them goes."""
        self.fields.hold(times)

    def scale(self, times: np.ndarray) -> Normalizer:
        """Normalisation of what a step is given by the driving data's own mean and spread, over the domain and its frame.

        `times`: of a training, of some of which, evenly spread, it is taken.
        """
        whole = self.frame.whole
        fields = DrivingFields(self.dataset, self.channels, whole, "domain and its boundary", self.name)
        weight = (whole.area / whole.area.sum()).ravel()
        some = times[np.unique(np.linspace(0, len(times) - 1, min(len(times), MOMENT_TIMES)).round().astype(int))]
        sums = np.zeros((2, self.channels.count))
        for time in some:
            field = fields.unkept(time)
            sums += np.stack([field @ weight, field**2 @ weight])
        mean, square = sums / len(some)
        std = np.sqrt(np.maximum(square - mean**2, 0))
        return Normalizer(*(torch.from_numpy(np.tile(values, TIMES)) for values in (mean, std)))

    def _check_variables(self) -> None:
        for name, levels in zip(self.channels.names, self.channels.levels, strict=True):
            if name not in self.dataset:
                known = ", ".join(sorted(map(str, self.dataset.data_vars)))
                raise ValueError(f"Expected {name} at the boundary, {self.name} has only {known}")
            found = Channels.of(self.dataset, [name]).levels[0]
            if found != levels:
                raise ValueError(f"Expected {name} on {levels} levels at the boundary, {self.name} has it on {found}")
            trained, found = self.border.at_of(name), levels_at(self.dataset, name)
            if not same_levels(trained, found):
                trained, found = (", ".join(f"{value:g}" for value in places) for places in (trained, found))
                raise ValueError(
                    f"Expected {name} at the boundary on the levels {trained}, {self.name} has it on {found}"
                )

    def _refuse_standing_still(self, init, begin, end, state: np.ndarray) -> None:
        """Raises `ValueError` where the states before or after those of a step, which are the same, are the same too."""
        for moment in (end + (end - begin), begin - (end - begin)):
            try:
                beside = self.fields.at(init, moment)
            except ValueError:  # beyond the store: nothing to compare with
                continue
            if np.array_equal(beside, state):
                raise ValueError(
                    f"Expected driving data that change, {self.name} has the same values at the whole boundary over two "
                    f"steps about {begin}"
                )
