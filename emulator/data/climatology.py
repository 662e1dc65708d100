"""The climatology of channels at any time, from the store that `emulator.store.climatology` writes."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from emulator.data.channels import Channels
from emulator.parallel.space import ALONE, Space, band_of
from emulator.planet.calendar import hour_and_leap_day
from emulator.planet.grid import Grid
from emulator.store.climatology import SCHEMA
from emulator.store.schema import check_schema, grid_of, open_zarr, own_rows

MADE = (
    "window_days",
    "period_start",
    "period_end",
    "store_fingerprint",
)  # attributes that tell its values from others'
KEPT = 64  # times whose fields are kept


class Climatology:
    """Means of fields by hour and day of the year, 0 where there is none (outside a field's domain).

    Args:
      path: of a climatology store. channels: the fields. grid: on which they have to be.
      space: the processes that hold a state together, of whose rows this one gets its own.
    Raises `ValueError` for what is no climatology, for one that lacks a field or its levels, and for one on another grid.
    """

    def __init__(self, path, channels: Channels, grid: Grid, space: Space = ALONE):
        self.path, self.dataset, self.channels = path, open_zarr(path), channels
        check_schema(self.dataset, path, SCHEMA)
        self.hours = self.dataset["hour"].values
        if not (own := grid_of(self.dataset)).same_as(grid):
            raise ValueError(f"Expected a climatology on {grid.describe()} in {path}, got {own.describe()}")
        if absent := [name for name in channels.names if name not in self.dataset]:
            raise ValueError(f"Expected a climatology of {', '.join(absent)} in {path}, got none; run the stage stats")
        if (found := Channels.of(self.dataset.isel(hour=0, dayofyear=0), channels.names)) != channels:
            raise ValueError(f"Expected a climatology on {channels.levels} levels in {path}, got {found.levels}")
        self._rows = band_of(grid, space)
        self._memory: dict[tuple[int, int], Tensor] = {}

    @property
    def made(self) -> dict:
        """What its values are means of, as its store says."""
        said = self.dataset.attrs
        return {name: said[name] for name in MADE if name in said} or {"fingerprint": said.get("fingerprint")}

    def check_made(self, wanted: Mapping | None) -> None:
        """Raises `ValueError` unless it is made as the one that a network was trained with; None: that is not known."""
        own = self.made
        if wanted is None or own == dict(wanted):
            return
        other = [name for name in {**wanted, **own} if own.get(name) != wanted.get(name)]
        before, here = (", ".join(f"{name} {values.get(name)}" for name in other) for values in (wanted, own))
        raise ValueError(
            f"Expected the climatology that the network was trained with, of {before}, got one of {here} in {self.path}"
        )

    def at(self, times: Sequence) -> Tensor:
        """Fields at some times, `(time, channel, *space)`. Raises `ValueError` for an hour that it does not have."""
        hours, days = hour_and_leap_day(times)
        return torch.stack([self._fields(int(hour), int(day)) for hour, day in zip(hours, days, strict=True)])

    def _fields(self, hour: int, day: int) -> Tensor:
        if (hour, day) not in self._memory:
            if hour not in self.hours:
                raise ValueError(f"Expected times at the climatology's hours {self.hours.tolist()}, got {hour}")
            if len(self._memory) >= KEPT:
                self._memory.clear()
            part = self.dataset.isel(hour=int(np.searchsorted(self.hours, hour)), dayofyear=day - 1)
            part = own_rows(part, self._rows)
            fields = {n: torch.from_numpy(np.asarray(part[n].values, np.float32))[None] for n in self.channels.names}
            self._memory[hour, day] = self.channels.pack(fields)[0].nan_to_num()
        return self._memory[hour, day]
