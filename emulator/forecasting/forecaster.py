"""Forecasts from a group of initial times: states in, blocks of named fields out, resumable at every block."""

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulator.data.boundary import Boundary
from emulator.data.channels import Channels, outside_of
from emulator.data.climatology import Climatology
from emulator.data.forcing import Forcing, StepInputs
from emulator.data.trained_range import TrainedRange
from emulator.forecasting.blocks import Block, Entry, Naming
from emulator.forecasting.ensembles import InitialStates, space_of
from emulator.forecasting.finite import Finite
from emulator.forecasting.leads import Lead, joined
from emulator.forecasting.nudging import NudgedBy
from emulator.forecasting.options import EnsembleOptions, check_sea
from emulator.forecasting.position import Position
from emulator.forecasting.restoring import RestoredTo
from emulator.forecasting.schedule import Schedule
from emulator.forecasting.sea import Sea
from emulator.forecasting.together import together
from emulator.model.bounds import outside
from emulator.model.coupled import SEA_TEMPERATURE, Coupled, check_single_steps
from emulator.model.noise import forecast_key
from emulator.model.nudging import Nudged
from emulator.model.restoring import Restored
from emulator.model.rollout import rollout
from emulator.model.stepper import Carry, Stepper, newest
from emulator.parallel.host_copies import HostCopies, to_device
from emulator.parallel.space import ALONE, Fetch, Space
from emulator.planet.calendar import lead_text
from emulator.planet.grid import Grid
from emulator.store.schema import grid_of

BLOCK_BYTES = 1 << 27
MOVED = 0.02  # of a variable's values beyond the envelope at initial times, from which on that is told

log = logging.getLogger(__name__)


class Forecaster:
    """Forecasts as blocks of consecutive leads under names.

    Args:
      models: one or more steppers with the same channels, on one device: member m of an ensemble is computed by model m
        modulo their number.
      dataset: the analysis store with initial states and forcing.
      batch_size: forecasts computed at a time.
      ensemble: None for single forecasts; with its `variances` "ensemble" a step's budgets are closed for all members of a
        start together.
      length: of the steps, in steps of the store, of those that the models make; None: the shortest.
      climatology: path of the store that a network which predicts departures from it needs; None: as it was trained.
      sea: an ocean that the models' forecasts are coupled with; initial states of members are made without it.
      offsets: added to the forcing, by variable.
      restoring: what the surface fluxes of an ocean's forecasts answer.

    Where a field does not exist, it is missing (NaN) in what comes out. Raises `ValueError` as `together` does.
    """

    def __init__(
        self,
        models: Sequence[Stepper],
        dataset: xr.Dataset,
        batch_size: int = 8,
        ensemble: EnsembleOptions | None = None,
        length: int | None = None,
        climatology: str | os.PathLike | None = None,
        sea: Sea | None = None,
        offsets: Mapping[str, float] | None = None,
        restoring: RestoredTo | None = None,
    ):
        check_sea(sea, offsets or {}, restoring)
        self.restoring = restoring
        if sea is not None:
            check_single_steps(models)
        self.sea, self.boundary, self.nudged = sea, None, None
        self.models, self.dataset, self.batch_size, self.ensemble = list(models), dataset, batch_size, ensemble
        self.together = together(models, ensemble, batch_size)  # they make the forecasts, not the initial states
        self.step = self.models[0].at(1)
        layout = self.step.layout
        self.space = space_of(self.step)
        reference = climatology_of(self.models, grid_of(dataset), climatology, self.space)
        steps = layout.lengths[0] if length is None else length
        self.forcing = Forcing(dataset, layout, steps, reference, self.space, offsets)
        saved = getattr(self.step, "metadata", None)
        prescribed = [name for name in layout.forcing.names if sea is None or name != SEA_TEMPERATURE]
        self.forcing.trained = TrainedRange.of_checkpoint(saved, prescribed)
        self.trained_sea = TrainedRange.of_checkpoint(saved, [] if sea is None else [SEA_TEMPERATURE])
        self.rows: np.ndarray | None = None
        self._fetch: Fetch | None = None
        self._outside: dict[str, np.ndarray | None] = {}
        self._finite = Finite(len(self.forcing.grid.shape), ensemble is not None)
        self.give_rows(None)
        self.copies = HostCopies(self.step.device)
        self._told: set[str] = set()  # variables whose initial states lie beyond the envelope
        self._records: set[str] = set()  # names that the conservation scheme records, once a step has been taken
        self._initial = InitialStates(self.step, self.forcing.dataset, self.forcing, batch_size, ensemble)

    def driven_by(self, boundary: Boundary | None, nudged: NudgedBy | None = None) -> "Forecaster":
        """Itself, with driving data at the boundary of a limited area, that may nudge states too; None: without.

        Raises `ValueError` where the models need some and there are none, and for members that are made by forecasts.
        """
        if self.step.layout.border is not None and boundary is None:
            raise ValueError("Expected driving data for the boundary of this limited area, got none")
        if boundary is not None and self.ensemble is not None and self.ensemble.kind in ("bred", "lagged"):
            raise ValueError(
                f"Expected an ensemble of kind none or noise for a limited area with a boundary, got {self.ensemble.kind}, "
                "whose members come from forecasts before the initial time"
            )
        self.boundary, self.nudged = boundary, nudged
        return self

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

    def _given(self, lead: Lead) -> Lead:
        """A lead with its fields on the rows that are asked for."""
        if self._fetch is None:
            return lead
        fields = self._rows_of(torch.cat([lead.state, lead.diagnostic], 1))
        state, diagnostic = fields.split([lead.state.shape[1], lead.diagnostic.shape[1]], 1)
        beside = {name: self._rows_of(field) for name, field in lead.beside.items()}
        return dataclasses.replace(lead, state=state, diagnostic=diagnostic, beside=beside)

    def _rows_of(self, band: Tensor) -> Tensor:
        return self._fetch(band.movedim(-2, 0)).movedim(0, -2)

    def see(self, fields: Mapping[str, np.ndarray], inits: Sequence, leads: Sequence) -> None:
        """Looks whether states are finite, and compares the sea's temperature, as an ocean stepped it, with what training has
        seen: of fields `(time, lead, ...)` from initial times."""
        self._finite.see(fields, {n: self._outside[n] for n in self.step.layout.prognostic.names}, inits, leads)
        for at, lead in enumerate(leads if self.sea is not None else ()):
            self.trained_sea.see(SEA_TEMPERATURE, fields[SEA_TEMPERATURE][:, at], f"lead {lead_text(lead)}")

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
        if self.sea is not None:
            self.sea.check(times)

    def blocks(
        self, times: Sequence, schedule: Schedule, position: Position | None = None
    ) -> Iterator[tuple[Position, Block]]:
        """Pairs of the position after a block, and the `Block`.

        Every lead's copy to the host begins when the lead is computed, and nothing here waits for one. Batches are the same
        rows whatever the blocks and wherever the forecasts start again, so that the numbers are too.
        """
        rows = self._rows(len(times))
        entries, ocean, start = [], [], position
        if start is None:
            start, entries, ocean = self._start(times, rows, schedule)
        before = start
        most = max(1, BLOCK_BYTES // (4 * len(times) * self.members * (self._numbers() or 1)))
        for here, lead, others in self._leads(times, rows, start, schedule):
            if len(entries) == most:
                yield before, self._block(entries, ocean, len(times))
                entries, ocean = [], []
            entries.append(Entry.begin(lead, self.copies))
            ocean += [Entry.begin(other, self.copies) for other in others]
            self._records.update(lead.record)
            before = here
        if entries:
            yield before, self._block(entries, ocean, len(times))

    def _start(self, times, rows, schedule: Schedule) -> tuple[Position, list[Entry], list[Entry]]:
        """Where forecasts begin, and what is written of it: of the models' states, and of another network's."""
        state, diagnostic = self._initial(times)
        self._tell_outside(newest(state, self.step.layout))
        index = [self._index(row) for row in rows]
        start = Position(0, [state.index_select(0, i) for i in index], [None] * len(rows))
        begun = None if self.sea is None else self.sea.begin(times, self.members)
        if begun is not None:
            start.kept = [{n: part.index_select(0, i) for n, part in begun.state.items()} for i in index]
        beside = begun.beside if begun else {}
        if self.restoring is not None:  # a flux is the mean over the step that ends at a lead
            unknown = state.new_full((len(state), *state.shape[-len(self.forcing.shape) :]), torch.nan)
            beside = dict.fromkeys(self.restoring.fluxes, unknown)
        lead = Lead(newest(state, self.step.layout), diagnostic, beside=beside)
        first = [] if schedule.mean else [Entry.begin(self._given(lead), self.copies)]
        other = [Entry.begin(begun.lead, self.copies)] if begun and begun.lead else []
        return start, first, other

    def _tell_outside(self, state: Tensor) -> None:
        """Logs of which variables a part of the initial states lies where the first step does not leave it, once each.

        Not of states on another device, which would have to be waited for, nor of those that several processes share.
        """
        here = state.is_cpu and self.space.size == 1
        for name, share in outside(self.step, state).items() if here else ():
            if share > MOVED and name not in self._told:
                self._told.add(name)
                log.warning(
                    "%.0f %% of the values of %s at the initial times lie beyond the envelope of the training data, into "
                    "which the first step puts them; rollout.bounds: inputs leaves states free",
                    100 * share,
                    name,
                )

    def _block(self, entries: list[Entry], ocean: list[Entry], times: int) -> Block:
        members = self.members if self.ensemble else None
        block = Block(entries, Naming(self.step.layout, self._outside, times, members), tuple(sorted(self._records)))
        if self.sea is None or self.sea.output is None:
            return block
        return dataclasses.replace(block, ocean=self.sea.output.block(ocean, times, members))

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

    def _leads(self, times, rows, start: Position, schedule: Schedule):
        """After every step that is written: the position, the lead of all rows, and those of another network since."""
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

        forecasts = [self._forecast(start, batch, row, inputs(row)) for batch, row in enumerate(rows)]
        order = self._index(np.argsort(np.concatenate(rows)))
        total, others, written, ends = None, [], start.number, set(schedule.ends)
        for number, results in zip(numbers, zip(*forecasts, strict=True), strict=True):
            lead = joined(results, order)
            if results[0].ocean is not None:
                others.append(joined([result.ocean for result in results], order))
            if schedule.mean:
                total = lead.added(total)
            if number in ends:
                mean = total.over(number - written, lead) if schedule.mean else lead
                yield Position.after(number, results), self._given(mean), others
                total, others, written = None, [], number

    def _forecast(self, start: Position, batch: int, row: np.ndarray, inputs: Iterator[StepInputs]):
        """The results of a batch of rows from a position on."""
        model = self.together[(int(row[0]) % self.members) % len(self.models)]
        state, anchor = to_device(start.states[batch], self.step.device), start.anchor(batch, self.step.device)
        model = model if self.nudged is None else Nudged(model, self.nudged.nudging)
        model = model if self.restoring is None else Restored(model, self.restoring.restoring)
        if self.sea is not None:
            if isinstance(anchor, Carry) and anchor.anchor is None:
                anchor = dataclasses.replace(anchor, anchor=model.anchor(state))
            model = Coupled(model, self.sea.ocean)
        return rollout(model, state, inputs, anchor, first=start.number + 1)

    def _inputs(self, times, number: int) -> StepInputs:
        """Forcing, clock and more of step `number` of all rows, without noise, on the models' device."""
        given = self.forcing.inputs([self.forcing.later(time, number - 1) for time in times])
        if self.sea is not None:
            given = given._replace(ocean=self.sea.inputs(times, number))
        if self.restoring is not None:
            given = given._replace(surface=self.restoring.at([self.forcing.later(time, number - 1) for time in times]))
        if self.boundary is not None:
            begins, ends = ([self.forcing.later(time, n) for time in times] for n in (number - 1, number))
            left = self.boundary.left(times, begins, ends)
            given = given._replace(boundary=self.boundary.given(times, begins, ends), outflow=left)
            if self.nudged is not None:
                given = given._replace(driving=self.nudged.at(times, ends))
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
        seed, amplitude = (self.ensemble.seed, self.ensemble.noise_amplitude) if self.ensemble else (0, 1.0)
        named = [(times[r // self.members], int(r % self.members)) for r in row]
        noise = step.noise.rows((forecast_key(seed, *name, number) for name in named), amplitude)
        return to_device(noise, self.step.device)


def climatology_of(models: Sequence[Stepper], grid: Grid, path, space: Space = ALONE) -> Climatology | None:
    """What the models' predictions count from, at `path` or as they were trained; None where none counts from it.

    Raises `ValueError` where it is absent, and where it is not as a model was trained.
    """
    stages = [one for model in models for _, one in getattr(model, "stages", ((0, model),))]
    asking = [one for one in stages if getattr(getattr(one, "prediction", None), "reference", False)]
    if not asking:
        return None
    path = path or getattr(asking[0], "metadata", {}).get("config", {}).get("climatology")
    if path is None:
        raise ValueError("Expected the climatology that the network's predictions count from, got none")
    found = Climatology(path, asking[0].layout.prognostic, grid, space)
    for one in asking:
        found.check_made(getattr(one, "metadata", {}).get("climatology"))
    return found
