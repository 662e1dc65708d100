"""Scalars of a sample that a network is conditioned on: the time of the year, and forcing that is the same everywhere."""

from collections.abc import Sequence

import torch
from torch import Tensor

from emulator.data.channels import Channels
from emulator.networks.conditions import TIME_OF_YEAR, scalar_count
from emulator.planet.insolation import CLOCK_FEATURES

YEAR = ("sin_day_of_year", "cos_day_of_year")


class Scalars:
    """From a step's forcing and clock to `(batch, count)`.

    Args:
      names: `time_of_year` (sine and cosine of the day of the year), or a forcing variable without levels, such as a
        concentration of CO2: its mean over the cells, in the normalised units of the training period.
      forcing: the channels of the forcing.
    Raises `ValueError` for another name.
    """

    def __init__(self, names: Sequence[str], forcing: Channels):
        flat = [name for name, levels in zip(forcing.names, forcing.levels, strict=True) if not levels]
        if unknown := [name for name in names if name != TIME_OF_YEAR and name not in flat]:
            raise ValueError(
                f"Expected conditions among {', '.join([TIME_OF_YEAR, *flat])} (forcing variables without levels), got "
                f"{', '.join(unknown)}"
            )
        self.names, self._slices = tuple(names), forcing.slices

    @property
    def count(self) -> int:
        return scalar_count(self.names)

    def __call__(self, forcing: Tensor, clock: Tensor) -> Tensor:
        """Normalised forcing `(batch, channel, *space)` and clock features `(batch, 5, *space)` to `(batch, count)`."""
        columns = []
        for name in self.names:
            if name == TIME_OF_YEAR:
                columns += [clock[:, CLOCK_FEATURES.index(part)].flatten(1)[:, 0] for part in YEAR]
            else:
                columns.append(torch.nan_to_num(forcing[:, self._slices[name].start]).flatten(1).mean(1))
        return torch.stack(columns, 1)
