"""Scalars of a sample that a network is conditioned on: time of the year, length of the step, forcing that is one number."""

from collections.abc import Sequence

import torch
from torch import Tensor

from emulator.data.channels import Channels
from emulator.networks.conditions import TIME_OF_YEAR, TIME_STEP, scalar_count
from emulator.parallel.space import ALONE, Space
from emulator.planet.insolation import CLOCK_FEATURES

YEAR = ("sin_day_of_year", "cos_day_of_year")


class Scalars:
    """From a step's forcing and clock to `(batch, count)`.

    Args:
      names: `time_of_year` (sine and cosine of the day of the year), `time_step` (the logarithm to base 2 of the step's
        length in steps of the store), or a forcing variable without levels, such as a concentration of CO2: its mean over
        the cells, in the normalised units of the training period.
      forcing: the channels of the forcing.
      lengths: of the steps, as in a `Layout`. space: the processes that hold a state together.
    Raises `ValueError` for another name, and for the time step of a network that makes steps of one length.
    """

    def __init__(self, names: Sequence[str], forcing: Channels, lengths: Sequence[int] = (1,), space: Space = ALONE):
        own = [TIME_OF_YEAR, *([TIME_STEP] if len(lengths) > 1 else [])]
        flat = [name for name, levels in zip(forcing.names, forcing.levels, strict=True) if not levels]
        if unknown := [name for name in names if name not in own and name not in flat]:
            raise ValueError(
                f"Expected conditions among {', '.join([*own, *flat])} (forcing variables without levels), got "
                f"{', '.join(unknown)}"
            )
        self.names, self._slices, self._space = tuple(names), forcing.slices, space

    @property
    def count(self) -> int:
        return scalar_count(self.names)

    def __call__(self, forcing: Tensor, clock: Tensor, length: Tensor | None = None) -> Tensor:
        """From normalised forcing, the clock, and lengths `(batch,)`, as a step has them, to `(batch, count)`."""
        columns = []
        for name in self.names:
            if name == TIME_OF_YEAR:
                columns += [clock[:, CLOCK_FEATURES.index(part)].flatten(1)[:, 0] for part in YEAR]
            elif name == TIME_STEP:
                columns.append(torch.log2(length).float())
            else:
                columns.append(self._mean(torch.nan_to_num(forcing[:, self._slices[name].start]).flatten(1)))
        return torch.stack(columns, 1)

    def _mean(self, values: Tensor) -> Tensor:
        """Over all cells, of which this process has some: `(batch, cell)` to `(batch,)`."""
        if self._space.size == 1:
            return values.mean(1)
        sums = torch.cat([values.double().sum(1), values.new_full((1,), values.shape[1], dtype=torch.float64)])
        sums = self._space.total(sums)
        return (sums[:-1] / sums[-1]).to(values.dtype)
