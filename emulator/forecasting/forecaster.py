"""Forecasts from a group of initial times: states in, blocks of named fields out, resumable at every block."""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from emulator.conservation.budgets import Anchor
from emulator.data.channels import Channels, outside_of
from emulator.data.climatology import Climatology
from emulator.data.forcing import Forcing, StepInputs
from emulator.data.trained_range import TrainedRange
from emulator.files.whole_file import whole_file
from emulator.forecasting.blocks import Block, Entry, Naming
from emulator.forecasting.ensembles import InitialStates, space_of
from emulator.forecasting.options import EnsembleOptions
from emulator.forecasting.schedule import Schedule
from emulator.model.noise import forecast_key
from emulator.model.rollout import rollout
from emulator.model.stepper import Stepper, StepResult, newest
from emulator.parallel.host_copies import HostCopies, Landing, to_device
from emulator.parallel.space import Fetch, Space
from emulator.store.schema import grid_of

BLOCK_BYTES = 1 << 27


@dataclasses.dataclass
class Position:
    """Where a group of forecasts stands after a number of steps: what the next starts from and anchors, by batch of rows."""

    number: int
    states: list[Tensor]
    masses: list[Tensor | None]
    landing: Landing | None = None  # of all of these, where they are still on their way to the host

    def towards_host(self, copies: HostCopies) -> "Position":
        """The same, on its way to the host's memory: it can be saved beside the forecast."""
        here = [mass is not None for mass in self.masses]
        landing = copies.begin([*self.states, *itertools.compress(self.masses, here)])
        landed = iter(landing.tensors)
        states = [next(landed) for _ in self.states]
        return Position(self.number, states, [next(landed) if one else None for one in here], landing)

    def save(self, path: Path) -> None:
        """Written beside and renamed: whole or not there. Raises `OSError` when the disk is full."""
        if self.landing is not None:
            self.landing.arrive()
        tensors = {f"state{i}": state.cpu().contiguous() for i, state in enumerate(self.states)}
        tensors |= {f"mass{i}": mass.cpu() for i, mass in enumerate(self.masses) if mass is not None}
        with whole_file(path) as partial:
            try:
                save_file(tensors, partial, {"number": str(self.number)})
            except SafetensorError as error:
                raise OSError(f"could not write {path}: {error}") from error

    @classmethod
    def load(cls, path: Path) -> "Position | None":
        """The position in a file; None where there is none."""
        if not path.exists():
            return None
        with safe_open(path, "pt") as file:
            names, number = set(file.keys()), int(file.metadata()["number"])
            count = sum(name.startswith("state") for name in names)
            masses = [file.get_tensor(f"mass{i}") if f"mass{i}" in names else None for i in range(count)]
            return cls(number, [file.get_tensor(f"state{i}") for i in range(count)], masses)


class Forecaster:
    """Forecasts as blocks of consecutive leads under names.

    Args:
      models: one or more steppers with the same channels, on one device: member m of an ensemble is computed by model m
        modulo their number.
      dataset: the analysis store with initial states and forcing.
      batch_size: forecasts computed at a time.
      ensemble: None for single forecasts.
      length: of the steps, in steps of the store, of those that the models make; None: the shortest.
      climatology: path of the store that a network which predicts departures from it needs; None: as it was trained.
      offsets: added to the forcing, by variable.

    Where a field does not exist, it is missing (NaN) in what comes out.
    """

    def __init__(
        self,
        models: Sequence[Stepper],
        dataset: xr.Dataset,
        batch_size: int = 8,
        ensemble: EnsembleOptions | None = None,
        length: int | None = None,
        climatology: str | os.PathLike | None = None,
        offsets: Mapping[str, float] | None = None,
    ):
        self.models, self.dataset, self.batch_size, self.ensemble = list(models), dataset, batch_size, ensemble
        self.step = self.models[0].at(1)
        layout = self.step.layout
        self.space = space_of(self.step)
        reference = _climatology(self.models, dataset, climatology, self.space)
        steps = layout.lengths[0] if length is None else length
        self.forcing = Forcing(dataset, layout, steps, reference, self.space, offsets)
        saved = getattr(self.step, "metadata", None)
        self.forcing.trained = TrainedRange.of_checkpoint(saved, layout.forcing.names)
        self.rows: np.ndarray | None = None
        self._fetch: Fetch | None = None
        self._outside: dict[str, np.ndarray | None] = {}
        self.give_rows(None)
        self.copies = HostCopies(self.step.device)
        self._records: set[str] = set()  # names that the conservation scheme records, once a step has been taken
        self._initial = InitialStates(self.step, self.forcing.dataset, self.forcing, batch_size, ensemble)

    def give_rows(self, of: Callable[[int], np.ndarray] | None) -> None:
        """Which rows of the grid the fields of `blocks` have, by the rank of the process that asks: so many write one store.

        None: all, where one process computes forecasts alone. `rows` are then this process's, None for all.
        """
        layout, dataset = self.step.layout, self.dataset
        if of is not None:
            bounds = self.space.bounds(len(self.forcing.grid.latitude))
            self._fetch = Fetch(self.space, bounds, of).to(self.step.device)
            self.rows = of(self.space.rank)
            dataset = dataset.isel(latitude=self.rows)
        self._outside = {
            name: outside_of(dataset, Channels.of(dataset, [name]))
            for name in (*layout.prognostic.names, *layout.diagnostic.names)
        }

    def _given(self, entry: tuple) -> tuple:
        """State, diagnostics and records of a lead, the fields on the rows that are asked for."""
        if self._fetch is None:
            return entry
        state, diagnostic, record = entry
        fields = self._fetch(torch.cat([state, diagnostic], 1).movedim(-2, 0)).movedim(0, -2)
        return *fields.split([state.shape[1], diagnostic.shape[1]], 1), record

    @property
    def members(self) -> int:
        return self.ensemble.members if self.ensemble else 1

    @property
    def group_size(self) -> int:
        """Initial times computed together."""
        return max(1, self.batch_size // self.members)

    def check(self, times: Sequence) -> None:
        """Raises `ValueError` for initial times whose states, or those of their ensemble, the store lacks."""
        self._initial.check(times)

    def blocks(
        self, times: Sequence, schedule: Schedule, position: Position | None = None
    ) -> Iterator[tuple[Position, Block]]:
        """Pairs of the position after a block, and the `Block`.

        Every lead's copy to the host begins when the lead is computed, and nothing here waits for one. Batches are the same
        rows whatever the blocks and wherever the forecasts start again, so that the numbers are too.
        """
        rows = self._rows(len(times))
        entries, start = [], position
        if start is None:
            state, diagnostic = self._initial(times)
            start = Position(0, [state.index_select(0, self._index(r)) for r in rows], [None] * len(rows))
            if not schedule.mean:
                entries = [Entry.begin(*self._given((newest(state, self.step.layout), diagnostic, {})), self.copies)]
        before = start
        most = max(1, BLOCK_BYTES // (4 * len(times) * self.members * (self._numbers() or 1)))
        for here, entry in self._entries(times, rows, start, schedule):
            if len(entries) == most:
                yield before, self._block(entries, len(times))
                entries = []
            entries.append(Entry.begin(*entry, self.copies))
            self._records.update(entry[2])
            before = here
        if entries:
            yield before, self._block(entries, len(times))

    def _block(self, entries: list[Entry], times: int) -> Block:
        naming = Naming(self.step.layout, self._outside, times, self.members if self.ensemble else None)
        return Block(entries, naming, tuple(sorted(self._records)))

    def _numbers(self) -> int:
        """Numbers that a process has of a state and its diagnostics."""
        layout = self.step.layout
        whole = (layout.prognostic.count + layout.diagnostic.count) * int(np.prod(self.forcing.grid.shape))
        return whole // self.space.size  # the same on all, whose blocks have to be alike

    def _rows(self, times: int) -> list[np.ndarray]:
        """Batches of rows (time-major, then member), each computed by one model."""
        member = np.tile(np.arange(self.members), times)
        batches = []
        for model in range(len(self.models)):
            own = np.flatnonzero(member % len(self.models) == model)
            batches += [own[i : i + self.batch_size] for i in range(0, len(own), self.batch_size)]
        return batches

    def _entries(self, times, rows, start: Position, schedule: Schedule):
        """After every step that is written: the position, and state, diagnostics and records of all rows."""
        last = schedule.ends[-1] if schedule.ends else 0
        numbers = range(start.number + 1, last + 1)
        shared: dict[int, StepInputs] = {}  # forcing and clock of the step that the batches of rows are at

        def inputs(row: np.ndarray) -> Iterator[StepInputs]:
            index = self._index(row)
            for number in numbers:
                if number not in shared:
                    shared.clear()
                    shared[number] = self._inputs(times, number)
                given = shared[number]
                if len(rows) > 1:
                    given = given.rows(index)
                yield given._replace(noise=self._noise(times, row, number))

        forecasts = []
        for row, state, mass in zip(rows, start.states, start.masses, strict=True):
            model = self.models[(int(row[0]) % self.members) % len(self.models)]
            device = self.step.device
            anchor = None if mass is None else Anchor(to_device(mass, device))
            forecasts.append(rollout(model, to_device(state, device), inputs(row), anchor, first=start.number + 1))
        order = self._index(np.argsort(np.concatenate(rows)))
        total, written, ends = None, start.number, set(schedule.ends)
        for number, results in zip(numbers, zip(*forecasts, strict=True), strict=True):
            entry = _joined(results, order)
            if schedule.mean:
                total = _added(total, entry)
            if number in ends:
                masses = [None if result.anchor is None else result.anchor.dry_mass for result in results]
                position = Position(number, [result.onward for result in results], masses)
                yield position, self._given(_over(total, number - written) if schedule.mean else entry)
                total, written = None, number

    def _inputs(self, times, number: int) -> StepInputs:
        """Forcing, clock and more of step `number` of all rows, without noise, on the models' device."""
        given = self.forcing.inputs([self.forcing.later(time, number - 1) for time in times])
        if self.members > 1:
            given = given.rows(torch.arange(len(times)).repeat_interleave(self.members))
        return given.to(self.step.device)

    def _index(self, positions: np.ndarray) -> Tensor:
        """Positions of rows on the models' device: a list or an array would have the host wait for it."""
        return to_device(torch.from_numpy(positions), self.step.device)

    def _noise(self, times, row: np.ndarray, number: int) -> Tensor | None:
        """Noise of step `number`, counted from 1, of some rows; None for a network that takes none."""
        step = self.models[(int(row[0]) % self.members) % len(self.models)].at(number)
        if step.noise is None:
            return None
        seed = self.ensemble.seed if self.ensemble else 0
        named = [(times[r // self.members], int(r % self.members)) for r in row]
        noise = step.noise.rows(forecast_key(seed, *name, number) for name in named)
        return to_device(noise, self.step.device)


def _climatology(models: Sequence[Stepper], dataset: xr.Dataset, path, space: Space) -> Climatology | None:
    """What the models' predictions count from; None where none counts from it.

    Raises `ValueError` where it is absent, and where it is not as a model was trained.
    """
    stages = [one for model in models for _, one in getattr(model, "stages", ((0, model),))]
    asking = [one for one in stages if getattr(getattr(one, "prediction", None), "reference", False)]
    if not asking:
        return None
    path = path or getattr(asking[0], "metadata", {}).get("config", {}).get("climatology")
    if path is None:
        raise ValueError("Expected the climatology that the network's predictions count from, got none")
    found = Climatology(path, asking[0].layout.prognostic, grid_of(dataset), space)
    for one in asking:
        found.check_made(getattr(one, "metadata", {}).get("climatology"))
    return found


def _joined(results: Sequence[StepResult], order: Tensor) -> tuple:
    """State, diagnostics and records of all rows from those of their batches; `order`: where each row is among these."""
    if len(results) == 1:
        return results[0].state, results[0].diagnostic, results[0].record
    names = {name for result in results for name in result.record}
    zeros = [torch.zeros(len(result.state), device=order.device) for result in results]
    record = {
        name: torch.cat([r.record.get(name, zero).float() for r, zero in zip(results, zeros, strict=True)])
        for name in names
    }
    record = {name: values.index_select(0, order) for name, values in record.items()}
    parts = ([getattr(result, what) for result in results] for what in ("state", "diagnostic"))
    state, diagnostic = (torch.cat(part).index_select(0, order) for part in parts)
    return state, diagnostic, record


def _added(total, entry):
    state, diagnostic, record = entry
    named = {name: value.double() for name, value in record.items()}
    if total is None:
        return state.double(), diagnostic.double(), named
    before = total[2]
    return total[0] + state, total[1] + diagnostic, {n: before.get(n, 0.0) + v for n, v in named.items()}


def _over(total, count):
    state, diagnostic, record = total
    return (state / count).float(), (diagnostic / count).float(), {n: (v / count).float() for n, v in record.items()}
