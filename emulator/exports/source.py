"""A store that is exported, read block by block."""

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import xarray as xr

from emulator.planet.calendar import TimeStep, interval_starts
from emulator.planet.grid import Grid
from emulator.store.analysis import ANALYSIS, open_analysis
from emulator.store.forecast import open_forecast
from emulator.store.joined import is_joined
from emulator.store.masks import domain_name, existing, mask_is_known, mask_name
from emulator.store.pressure import HUMIDITY, OROGRAPHY, SURFACE_PRESSURE, check_interpolation, on_pressure
from emulator.store.schema import ROWS, grid_of, missing_times, open_zarr, variables_by_role

log = logging.getLogger(__name__)
BLOCK_BYTES = 1 << 26  # of fields that are in memory at a time
STARTS = "interval_start"  # coordinate of a block: where the intervals of means begin, a time or a lead
WITH_GEOPOTENTIAL = ("temperature", HUMIDITY, OROGRAPHY)


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """An analysis or forecast store under in-memory names, unread.

    Attributes:
      dataset: with the coordinate `interval_start` along times or leads: where the intervals begin that means are over.
      pressures: hPa, that fields on sigma or hybrid levels are interpolated to; None: levels as they are.
    """

    dataset: xr.Dataset
    pressures: tuple[float, ...] | None = None

    @classmethod
    def of(cls, path, pressures: Sequence[float] | None = None) -> "Source":
        """The store at a path. Raises `ValueError` for none, and for levels that are not interpolated."""
        schema = None if is_joined(path) else open_zarr(path).attrs.get("emulator_schema")
        dataset = open_analysis(path) if is_joined(path) or schema == ANALYSIS else open_forecast(path)
        if pressures is not None:
            check_interpolation(dataset, pressures)
        starts = _lead_starts(dataset) if "lead_time" in dataset.dims else _time_starts(dataset)
        dataset = dataset.assign_coords({STARTS: ("lead_time" if "lead_time" in dataset.dims else "time", starts)})
        return cls(dataset, None if pressures is None else tuple(map(float, pressures)))

    @property
    def is_forecast(self) -> bool:
        return "lead_time" in self.dataset.dims

    @property
    def grid(self) -> Grid:
        return grid_of(self.dataset)

    @property
    def step(self) -> TimeStep:
        return TimeStep.of(self.dataset)

    def first(self) -> xr.Dataset:
        """The first time, or lead, with what changes in time and what does not, in memory."""
        along = {"init_time": [0], "lead_time": [0]} if self.is_forecast else {"time": [0]}
        return self._read(self.dataset.isel(along))

    def fields(self, first: xr.Dataset) -> tuple[list[str], list[str]]:
        """Names of the fields that change in time and of those that do not, as `first` has them, each sorted."""
        roles = variables_by_role(first)
        names = [n for n in sorted({n for some in roles.values() for n in some}) if ROWS & set(first[n].dims)]
        moving = [n for n in names if {"time", "lead_time"} & set(first[n].dims)]
        return moving, [n for n in names if n not in moving]

    def stretch(self, names: Iterable[str] | None = None) -> int:
        """How many times of an analysis, or leads of a forecast, are read at a time."""
        along = {"init_time": 0, "lead_time": 0} if self.is_forecast else {"time": 0}
        dataset = self.dataset if names is None else self.dataset[self._needed(names)]
        return max(1, BLOCK_BYTES // max(1, dataset.isel(along).nbytes))

    def blocks(self, chosen: slice = slice(None), names: Sequence[str] | None = None) -> Iterator[xr.Dataset]:
        """Consecutive times of an analysis in memory, of some positions, or leads of a forecast at initial time `chosen`.

        `names`: of these fields alone.
        """
        along = "lead_time" if self.is_forecast else "time"
        dataset = self.dataset if names is None else self.dataset[self._needed(names)]
        dataset = dataset.isel({"init_time" if self.is_forecast else "time": chosen})
        size = self.stretch(names)
        for at in range(0, dataset.sizes[along], size):
            block = self._read(dataset.isel({along: slice(at, at + size)}))
            yield block if names is None else block[[n for n in block.data_vars if n in names]]

    def files(self) -> Iterator[tuple[str, Iterator[xr.Dataset]]]:
        """Blocks of every initial time, or of every year of an analysis, with a name for the file."""
        if self.is_forecast:
            for index, init in enumerate(self.dataset["init_time"].values):
                yield stamp(init), self.blocks(index)
            return
        years = np.array([_year(time) for time in self.dataset["time"].values])
        for year in dict.fromkeys(years):
            inside = np.flatnonzero(years == year)
            yield year, self.blocks(slice(inside[0], inside[-1] + 1))

    def missing(self) -> np.ndarray:
        """`(time,)` bool: which times of an analysis have no values."""
        return missing_times(self.dataset)

    def _read(self, dataset: xr.Dataset) -> xr.Dataset:
        """In memory, on the levels that are asked for, missing where a field does not exist."""
        dataset = dataset.load()
        masked = [n for n in map(str, dataset.data_vars) if domain_name(dataset, n) and mask_is_known(dataset, n)]
        dataset = dataset.assign({name: existing(dataset[name], dataset) for name in masked})
        return on_pressure(dataset, self.pressures) if self.pressures and "level" in dataset.dims else dataset

    def _needed(self, names: Iterable[str]) -> list[str]:
        """What some fields are made from, as far as the store has it."""
        names, dataset = list(names), self.dataset
        if any(n not in dataset or "level" in dataset[n].dims for n in names):  # geopotential may have to be made
            names += [SURFACE_PRESSURE, "half_level_a", "half_level_b"]
            names += WITH_GEOPOTENTIAL if "geopotential" in names else ()
        masks = [mask_name(domain) for n in names if n in dataset and (domain := domain_name(dataset, n))]
        return [n for n in dict.fromkeys([*names, *masks]) if n in dataset]


def stamp(time) -> str:
    """A time as part of a file's name: `20010102T0600`."""
    text = str(np.datetime_as_string(time, "m")) if isinstance(time, np.datetime64) else time.isoformat()[:16]
    return text.replace("-", "").replace(":", "")


def expect_some(names: Sequence[str], left: Sequence[str], target: str) -> None:
    """Says which fields were left out. Raises `ValueError` where nothing is left."""
    if not names:
        raise ValueError(f"Expected a field that {target} has a counterpart for, got {', '.join(left) or 'no field'}")
    if left:
        log.warning("left out, without a counterpart in %s: %s", target, ", ".join(left))


def _year(time) -> str:
    return f"{int(str(time).partition('-')[0] or 0):04d}"


def _time_starts(dataset: xr.Dataset) -> np.ndarray:
    recorded, times = interval_starts(dataset), dataset["time"].values
    if recorded is not None:
        return recorded
    step = TimeStep.of(dataset)
    return step.later(times, -1) if step.seconds else times


def _lead_starts(dataset: xr.Dataset) -> np.ndarray:
    """The lead before where means are over that; else a step of the model before. The initial state has none."""
    leads, step = dataset["lead_time"].values, dataset.attrs.get("time_step_seconds")
    before = np.concatenate([leads[:1] * 0, leads[:-1]])
    if leads.dtype.kind in "iu" or dataset.attrs.get("time_mean") or not step:
        return before
    spaced = leads - np.timedelta64(round(step * 1e9), "ns")
    return np.where(leads > leads * 0, np.maximum(spaced, leads * 0), leads)
