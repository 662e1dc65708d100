"""Analysis stores: opened and checked, one alone or several one after another in time as one series."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr

from emulator.planet.calendar import TimeStep, seconds_between, select_period
from emulator.planet.vertical import VERTICAL
from emulator.store.chunks import StoreReader
from emulator.store.joined import JoinedReader, is_joined, joined, read_recipe
from emulator.store.schema import (
    check_coordinates,
    check_schema,
    constants_of,
    grid_of,
    open_zarr,
)

ANALYSIS = "analysis-1"
APART = "apart"  # attribute of an opened store that goes on after no other


def reader_of(path, threads: int = 1) -> StoreReader | JoinedReader:
    """What reads whole chunks of the analysis store at a path straight into arrays, where its layout allows."""
    if not is_joined(path):
        return StoreReader(path, threads)
    recipe = read_recipe(path)
    datasets = [open_analysis(part.path) for part in recipe.parts]
    return JoinedReader(recipe, datasets, joined(recipe, datasets)["time"].values, threads)


def open_analysis(path, chunks=None) -> xr.Dataset:
    """The analysis store at `path`, lazily: fields `(time, [member,] level, latitude, longitude)`.

    Args:
      path: folder or fsspec URL of a store that ingest finished, or the folder of a joined store (`emulator.store.joined`).
      chunks: None for arrays that are read when indexed; xarray's `chunks` (e.g. `{"time": 64}`) for Dask arrays.

    Raises `ValueError` with one sentence, naming the path, when it is absent, unfinished or breaks the schema.
    """
    if is_joined(path):
        recipe = read_recipe(path)
        dataset = joined(recipe, [open_analysis(part.path, chunks) for part in recipe.parts])
        dataset.encoding["source"] = str(path)
        return check_times(dataset, path)
    dataset = open_zarr(path, chunks)
    check_schema(dataset, path, ANALYSIS)
    return check_times(dataset, path)


def check_times(dataset: xr.Dataset, path) -> xr.Dataset:
    """The analysis, with its step among the attributes. Raises `ValueError` where coordinates or the step are wrong."""
    check_coordinates(dataset, path, ("time",))
    calendar = bool(dataset.attrs.get("time_step_months"))
    if dataset.sizes.get("time") == 1:
        step = TimeStep.of(dataset)  # as recorded: a time alone has no other
    else:
        step = TimeStep.along(dataset["time"].values, "time", path, calendar)
    own = {"time_step_seconds": step.seconds} | ({"time_step_months": step.months} if step.months else {})
    for name, value in own.items():
        recorded = dataset.attrs.get(name, value)
        if abs(recorded - value) > 1e-6:
            raise ValueError(f"Expected {name} = {value:g} as the time axis of {path} has it, got {recorded:g}")
    return dataset.assign_attrs({name: dataset.attrs.get(name, value) for name, value in own.items()})


def apart(dataset: xr.Dataset) -> xr.Dataset:
    """The same store as one that goes on after no other: in a series its times may be any, another scenario's say."""
    return dataset.assign_attrs({APART: 1})


@dataclasses.dataclass(frozen=True, eq=False)
class Stretch:
    """Consecutive times of one store.

    Attributes:
      store: the position of the store among those given.
      dataset: its part in the period; `first` is the position in the store of that part's first time.
    """

    store: int
    dataset: xr.Dataset
    first: int


@dataclasses.dataclass(frozen=True, eq=False)
class AnalysisSeries:
    """The times of one or several stores that lie in a period.

    Attributes:
      stretches: in the order of time but those that are `apart`, at least one.
      times: `(time,)` of all of them.
      edges: positions in `times` where the stretches begin, and the end: `(stretch + 1,)`.
      breaks: `(time - 1,)`, where a time is not one step before the next.
    """

    stretches: Sequence[Stretch]
    times: np.ndarray
    edges: np.ndarray
    breaks: np.ndarray

    @classmethod
    def of(
        cls, datasets: Sequence[xr.Dataset], start=None, end=None, names: Iterable[str] | None = None
    ) -> "AnalysisSeries":
        """The series of stores opened with `open_analysis`, from `start` to `end`, both included; None is open.

        Args:
          datasets: in the order of time, alike in grid, levels, step and the physical constants of the data. Those that
            are `apart` follow in any order.
          names: variables that all of them need, in the same units and on the same dimensions; None for all of the first.

        Raises `ValueError` where no time is left, or the stores are not alike or not in order.
        """
        stretches, outside = [], None
        for number, dataset in enumerate(datasets):
            try:
                chosen = select_period(dataset, start, end)
            except ValueError as error:
                outside = error
                continue
            first = int(np.searchsorted(dataset["time"].values, chosen["time"].values[0]))
            stretches.append(Stretch(number, chosen, first))
        if not stretches:
            raise outside
        for stretch in stretches[1:]:
            check_alike(stretches[0].dataset, stretch.dataset, names)
        times = np.concatenate([stretch.dataset["time"].values for stretch in stretches])
        edges = np.cumsum([0, *(stretch.dataset.sizes["time"] for stretch in stretches)])
        return cls(stretches, times, edges, _breaks(stretches, times))

    @property
    def step(self) -> TimeStep:
        """Between neighbouring times; of no length for one time."""
        return max((TimeStep.of(stretch.dataset) for stretch in self.stretches), key=_length)

    @property
    def step_seconds(self) -> float:
        """Of `step`; nominal seconds of months."""
        return self.step.seconds

    @property
    def missing(self) -> np.ndarray:
        """`(time,)`: which times are slots without values."""
        parts = [stretch.dataset for stretch in self.stretches]
        return np.concatenate(
            [p["missing"].values.astype(bool) if "missing" in p else np.zeros(p.sizes["time"], bool) for p in parts]
        )


def _length(step: TimeStep) -> float:
    return step.seconds


def _name(dataset: xr.Dataset) -> str:
    return str(dataset.encoding.get("source", "a later store"))


def check_alike(one: xr.Dataset, other: xr.Dataset, names: Iterable[str] | None) -> None:
    """Raises `ValueError` where stores differ in grid, levels, constants, or `names` (None: all fields of the first)."""
    grids, where = [grid_of(dataset) for dataset in (one, other)], f"({_name(one)} and {_name(other)})"
    levels = [[dataset[d].values if d in dataset else None for d in VERTICAL] for dataset in (one, other)]
    if not (grids[0].same_as(grids[1]) and all(map(np.array_equal, *levels))):
        raise ValueError(
            f"Expected stores of one grid and the same levels, got {grids[0].describe()} and {grids[1].describe()} {where}"
        )
    if one.attrs.get("vertical_coordinate") != other.attrs.get("vertical_coordinate"):
        kinds = [dataset.attrs.get("vertical_coordinate") for dataset in (one, other)]
        raise ValueError(f"Expected stores on one kind of levels, got {kinds[0]} and {kinds[1]} {where}")
    if constants_of(one) != constants_of(other):
        raise ValueError(f"Expected stores with the same physical constants, got others {where}")
    fixed = [n for n in ("half_level_a", "half_level_b") if n in one]
    wanted = (
        [str(name) for name in one.data_vars if name not in ("missing", "interpolated")] if names is None else names
    )
    for name in [*fixed, *wanted]:
        if name not in other:
            raise ValueError(f"Expected {name} in every store, got none in {_name(other)}")
        pair = one[name], other[name]
        if pair[0].dims != pair[1].dims:
            raise ValueError(f"Expected {name} on {pair[0].dims} in every store, got {pair[1].dims} in {_name(other)}")
        for what in ("units", "cell_methods", "domain"):
            got = [str(array.attrs.get(what, "")).split(" (")[0] for array in pair]  # the step has a check of its own
            if got[0] != got[1]:
                raise ValueError(
                    f"Expected {name} with the same {what} in every store, got {got[0]!r} and {got[1]!r} {where}"
                )
        if "time" not in pair[0].dims and not np.allclose(*pair, rtol=1e-5, atol=1e-6, equal_nan=True):
            raise ValueError(f"Expected the same {name} in every store, got other values {where}")


def _breaks(stretches, times) -> np.ndarray:
    steps = {TimeStep.of(s.dataset) for s in stretches if s.dataset.sizes["time"] > 1}
    if len(steps) > 1:
        raise ValueError(f"Expected stores of one time step, got {', '.join(map(str, sorted(steps, key=_length)))}")
    if len({getattr(stretch.dataset["time"].values.flat[0], "calendar", "standard") for stretch in stretches}) > 1:
        raise ValueError("Expected stores of one calendar, got several")
    between = seconds_between(times)
    edges = np.cumsum([stretch.dataset.sizes["time"] for stretch in stretches])[:-1]
    anew = np.zeros(len(between), bool)
    anew[[edge - 1 for edge, stretch in zip(edges, stretches[1:], strict=True) if APART in stretch.dataset.attrs]] = (
        True
    )
    if (wrong := (between <= 0) & ~anew).any():
        at = int(np.argmax(wrong))
        raise ValueError(f"Expected stores in the order of time, got {times[at]} and then {times[at + 1]}")
    return anew | (np.abs(between - next(iter(steps), TimeStep()).lengths(times[1:])) > 1e-3)
