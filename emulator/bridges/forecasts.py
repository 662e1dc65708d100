"""Forecasts of foreign models as blocks of named fields, which the writer of forecast stores takes as those of our own."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.bridges.analysis_source import AnalysisSource
from emulator.bridges.foreign.registry import ForeignError, ForeignModel
from emulator.bridges.lexicon import Name
from emulator.data.channels import Channels
from emulator.data.forcing import Forcing
from emulator.data.trained_range import TrainedRange
from emulator.forecasting.forecaster import BLOCK_BYTES
from emulator.forecasting.schedule import Schedule
from emulator.parallel.space import ALONE
from emulator.planet.variables import VARIABLES
from emulator.store.schema import missing_times, time_step_seconds, variables_by_role

HELD = ("half_level_a", "half_level_b", "cell_area")


@dataclasses.dataclass(frozen=True)
class FromTheStart:
    """Where a forecast stands, and cannot go on from: a foreign model keeps its state, so a stopped one begins anew."""

    number: int

    def towards_host(self, copies: None) -> "FromTheStart":
        return self

    def save(self, path: Path) -> None:
        """Saves nothing."""


@dataclasses.dataclass(frozen=True)
class NamedBlock:
    """Consecutive leads of one forecast, fields by name for each."""

    entries: Sequence[Mapping[str, np.ndarray]]

    @property
    def leads(self) -> int:
        return len(self.entries)

    def fields(self) -> dict[str, np.ndarray]:
        """`(1, lead, [level,] lat, lon)` by name."""
        return {name: np.stack([each[name] for each in self.entries])[None] for name in self.entries[0]}


class ForeignForecaster:
    """What `emulator.forecasting.writing` asks of a forecaster, of one foreign model and single forecasts.

    Fields that the analysis lacks have the variable table's attributes. The initial state has what the analysis has, and all
    else missing; so is a level at which the model has no field of a variable that it has at others.

    Raises `ForeignError` for a model whose steps are no multiples of the analysis's.
    """

    space, ensemble, members, group_size, batch_size, rows, copies, sea = ALONE, None, 1, 1, 1, None, None, None
    restoring = None

    def __init__(self, model: ForeignModel, source: AnalysisSource):
        self.model, self._source, analysis = model, source, source.dataset
        length = model.step / np.timedelta64(1, "s") / time_step_seconds(analysis)
        if length < 1 or abs(length - round(length)) > 1e-9:
            raise ForeignError(
                f"Expected a model whose step is a multiple of the analysis's {time_step_seconds(analysis) / 3600:g} h, got "
                f"{model.step / np.timedelta64(1, 'h'):g} h"
            )
        axes = {VARIABLES[n.variable].vertical for n in model.outputs if n.variable in VARIABLES}
        if others := axes - {None, "level"}:
            raise ForeignError(
                f"Expected fields without levels or on those of the atmosphere, got some on {', '.join(others)}"
            )
        self.forcing = Forcing(analysis, Channels((), ()), round(length))
        self.trained_sea = TrainedRange({})
        self._plain = [dataclasses.replace(name, factor=1.0) for name in model.outputs]  # in our units
        self._places: dict[str, list[tuple[int, int | None]]] = {}
        for row, name in enumerate(model.outputs):
            self._places.setdefault(name.variable, []).append((row, name.level))
        levels = {name.level for name in model.outputs if name.level is not None}
        self._levels = sorted(levels)
        self.dataset = self._described(analysis)

    def see(self, fields: Mapping[str, np.ndarray], inits: Sequence, leads: Sequence) -> None:
        """Nothing: these models step no ocean of ours, and whole levels may be missing of what they forecast."""

    @property
    def length(self) -> int:
        """Of the model's step, in steps of the analysis."""
        return self.forcing.length

    def check(self, times: Sequence) -> None:
        """Raises `ValueError` for initial times whose states, or those before that the model needs, the analysis lacks."""
        analysis = self._source.dataset
        stored = set(analysis["time"].values[~missing_times(analysis)].tolist())
        for time in times:
            for start in self.model.starts:
                if (when := np.datetime64(time, "ns") + start).astype(np.int64).item() not in stored:
                    raise ValueError(
                        f"Expected analyses that a forecast from {time} starts from, the store has none at {when}"
                    )

    def blocks(self, times: Sequence, schedule: Schedule, position: None = None) -> Iterator[tuple]:
        """Pairs of the position after a block, and the `NamedBlock`, of the forecast from the only one of `times`."""
        (time,) = times
        entries, number = [], 0
        for number, fields in self._entries(np.datetime64(time, "ns"), schedule):
            entries.append(fields)
            if len(entries) * sum(field.nbytes for field in fields.values()) > BLOCK_BYTES:
                yield FromTheStart(number), NamedBlock(entries)
                entries = []
        if entries:
            yield FromTheStart(number), NamedBlock(entries)

    def _entries(self, time: np.datetime64, schedule: Schedule) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Numbers of the steps that are written, and the fields at their ends or their means since the last."""
        names, starts = list(self.model.inputs), time + np.asarray(self.model.starts)
        if not schedule.mean:
            yield 0, self._named(self._analysis(time), self._plain)
        ends, written, total = set(schedule.ends), 0, None
        last = schedule.ends[-1] if schedule.ends else 0
        forecast = self.model.forecast(time, self._source.read(names, starts))
        for number, fields in zip(range(1, last + 1), forecast, strict=False):
            if schedule.mean:
                total = fields.astype(np.float64) if total is None else total + fields
            if number in ends:
                yield number, self._named(total / (number - written) if schedule.mean else fields, self.model.outputs)
                total, written = None, number
        if written != last:
            raise ForeignError(f"Expected {last} steps of the model from {time}, it gave {written}")

    def _analysis(self, time: np.datetime64) -> np.ndarray:
        """`(output, lat, lon)` as far as the analysis has it, the rest missing."""
        analysis = self._source.dataset
        here = [row for row, name in enumerate(self._plain) if name.variable in analysis]
        found = np.full((len(self._plain), *self.forcing.grid.shape), np.nan, np.float32)
        found[here] = self._source.read([self._plain[row] for row in here], np.array([time]))[0]
        return found

    def _named(self, fields: np.ndarray, names: Sequence[Name]) -> dict[str, np.ndarray]:
        """`(output, lat, lon)` in the model's units as our variables, `([level,] lat, lon)`."""
        ours = {}
        for variable, places in self._places.items():
            if places[0][1] is None:
                ours[variable] = (fields[places[0][0]] / names[places[0][0]].factor).astype(np.float32)
                continue
            field = np.full((len(self._levels), *fields.shape[1:]), np.nan, np.float32)
            for row, level in places:
                field[self._levels.index(level)] = fields[row] / names[row].factor
            ours[variable] = field
        return ours

    def _described(self, analysis: xr.Dataset) -> xr.Dataset:
        """The analysis with the model's variables and levels alone, for their dimensions, coordinates and attributes."""
        fixed = [n for n in (*HELD, *variables_by_role(analysis)["static"]) if n in analysis]
        kept = dict.fromkeys([*fixed, *(name for name in self._places if name in analysis)])
        found = analysis[[*kept]]
        if self._levels and len(self._levels) < found.sizes.get("level", 0):
            found = found.drop_vars(HELD[:2], errors="ignore").isel(level=self._levels)
            if analysis.attrs.get("vertical_coordinate", "pressure") != "pressure":  # some of a column's layers
                found = found.assign_attrs(levels_selected=1)
        for name in (name for name in self._places if name not in analysis):
            entry = VARIABLES[name]
            dims = ("time", *(["level"] if entry.levels else []), *self.forcing.grid.dims)
            if entry.levels and "level" not in found.dims:
                found = found.assign_coords(level=analysis["level"].isel(level=self._levels))
            sizes = [found.sizes[dim] if dim in found.sizes else analysis.sizes[dim] for dim in dims]
            about = {"units": entry.units, "standard_name": entry.standard_name, "role": "diagnostic"}
            about |= {"cell_methods": "time: mean"} if entry.cell == "mean" else {}
            values = np.broadcast_to(np.float32(np.nan), sizes)
            found[name] = (dims, values, {key: value for key, value in about.items() if value})
        return found
