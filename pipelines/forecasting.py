"""Forecasts of a group of initial times and members: states in, blocks of named fields out, resumable at every block."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from emulator.conservation.budgets import Anchor
from emulator.data.forcing import Forcing
from emulator.files.whole_file import whole_file
from emulator.forecast.perturbations import bred, noise, perturbed
from emulator.model.noise import forecast_key
from emulator.model.rollout import rollout as steps_of
from emulator.model.step import Step
from emulator.sphere.random_fields import SphericalNoise, generator_of, power_law
from pipelines.config import ConfigError, EnsembleConfig

BLOCK_BYTES = 1 << 27


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Which steps are written.

    Attributes:
      ends: numbers of the steps at whose ends fields are written, increasing.
      mean: whether they are means over the steps since the one before, rather than the state itself; else the initial
        state is written too.
    """

    ends: tuple[int, ...]
    mean: bool = False

    @classmethod
    def every(cls, steps: int, stride: int = 1, mean: bool = False) -> "Schedule":
        return cls(tuple(range(stride, steps + 1, stride)), mean)

    @property
    def numbers(self) -> list[int]:
        """Step numbers of all leads."""
        return [*self.ends] if self.mean else [0, *self.ends]


@dataclasses.dataclass
class Position:
    """Where a group of forecasts stands after a number of steps: states and anchors of its batches of rows."""

    number: int
    states: list[Tensor]
    masses: list[Tensor | None]

    def save(self, path: Path) -> None:
        """Written beside and renamed: whole or not there. Raises `OSError` when the disk is full."""
        tensors = {f"state{i}": state.contiguous() for i, state in enumerate(self.states)}
        tensors |= {f"mass{i}": mass for i, mass in enumerate(self.masses) if mass is not None}
        with whole_file(path) as partial:
            try:
                save_file(tensors, partial, {"number": str(self.number)})
            except SafetensorError as error:
                raise OSError(f"could not write {path}: {error}") from error

    @classmethod
    def load(cls, path: Path) -> "Position | None":
        if not path.exists():
            return None
        with safe_open(path, "pt") as file:
            names, number = set(file.keys()), int(file.metadata()["number"])
            count = sum(name.startswith("state") for name in names)
            masses = [file.get_tensor(f"mass{i}") if f"mass{i}" in names else None for i in range(count)]
            return cls(number, [file.get_tensor(f"state{i}") for i in range(count)], masses)


class Run:
    """Forecasts as blocks of consecutive leads under names.

    Args:
      models: one or more sequences of `(first step, step module)`, the first from 0: a cascade by lead. Member m of an
        ensemble is computed by model m modulo their number. All have the same channels.
      dataset: the analysis store with initial states and forcing.
      batch_size: forecasts computed at a time.
      ensemble: None for single forecasts.
    """

    def __init__(self, models: list[list[tuple[int, Step]]], dataset: xr.Dataset, batch_size: int, ensemble=None):
        self.models = [[(first, step.eval()) for first, step in model] for model in models]
        self.step = self.models[0][0][1]
        self.dataset, self.batch_size = dataset, batch_size
        self.ensemble: EnsembleConfig | None = ensemble
        self.forcing = Forcing(dataset, self.step.layout.forcing)
        self.records: set[str] = set()  # names that the conservation scheme records, once a step has been taken

    @property
    def members(self) -> int:
        return self.ensemble.members if self.ensemble else 1

    @property
    def group_size(self) -> int:
        """Initial times computed together."""
        return max(1, self.batch_size // self.members)

    def blocks(self, times: list, schedule: Schedule, position: Position | None = None) -> Iterator[tuple]:
        """Pairs of the position after a block, and its fields `(time, lead, [member,] ..., *space)` and records.

        Batches are the same rows whatever the blocks and wherever the run starts again, so that the numbers are too.
        """
        rows = self._rows(len(times))
        held, first = [], position
        if first is None:
            state, diagnostic = self._start(times)
            first = Position(0, [state[r] for r in rows], [None] * len(rows))
            if not schedule.mean:
                held = [(state, diagnostic, {})]
        before = first
        size = 4 * len(times) * self.members * (self._cells() or 1)
        most = max(1, BLOCK_BYTES // size)
        for here, entry in self._steps(times, rows, first, schedule):
            if len(held) == most:
                yield before, self._named(held, len(times))
                held = []
            held.append(entry)
            before = here
        if held:
            yield before, self._named(held, len(times))

    def _cells(self) -> int:
        layout = self.step.layout
        return (layout.prognostic.count + layout.diagnostic.count) * int(np.prod(self.forcing.grid.shape))

    def _rows(self, times: int) -> list[np.ndarray]:
        """Batches of rows (time-major, then member), each computed by one model."""
        member = np.tile(np.arange(self.members), times)
        batches = []
        for model in range(len(self.models)):
            own = np.flatnonzero(member % len(self.models) == model)
            batches += [own[i : i + self.batch_size] for i in range(0, len(own), self.batch_size)]
        return batches

    def _model(self, row: int, number: int) -> Step:
        """The step module of a row (by its member) for step `number`, counted from 1."""
        cascade = self.models[(row % self.members) % len(self.models)]
        return [step for first, step in cascade if first < number][-1]

    def _steps(self, times, rows, first: Position, schedule: Schedule):
        """After every step that is written: the position, and state, diagnostics and records of all rows."""
        states, anchors = list(first.states), [None if m is None else Anchor(m) for m in first.masses]
        total, last, ends = None, first.number, set(schedule.ends)
        for number in range(first.number + 1, (schedule.ends[-1] if schedule.ends else 0) + 1):
            told = self.forcing.told([self.forcing.later(time, number - 1) for time in times])
            told = [part.repeat_interleave(self.members, 0) for part in told] if self.members > 1 else told
            results = []
            for index, row in enumerate(rows):
                step = self._model(int(row[0]), number)
                given = tuple(part[row] if len(rows) > 1 else part for part in told)
                given += self._noise(step, [(times[r // self.members], r % self.members) for r in row], number)
                (result,) = steps_of(step, states[index], [given], anchors[index])
                states[index], anchors[index] = result.state, result.anchor
                results.append(result)
            entry = self._joined(results, rows)
            if schedule.mean:
                total = _added(total, entry)
            if number in ends:
                masses = [None if anchor is None else anchor.dry_mass for anchor in anchors]
                yield Position(number, list(states), masses), _over(total, number - last) if schedule.mean else entry
                total, last = None, number

    def _noise(self, step: Step, rows, number: int) -> tuple[Tensor, ...]:
        """What a stochastic network is told for a step, counted from 1, of some (initial time, member); else nothing."""
        if step.noise is None:
            return ()
        seed = self.ensemble.seed if self.ensemble else 0
        return (step.noise.rows(forecast_key(seed, time, int(member), number) for time, member in rows),)

    def _joined(self, results, rows) -> tuple:
        if len(rows) == 1:
            return results[0].state, results[0].diagnostic, results[0].record
        order = torch.from_numpy(np.argsort(np.concatenate(rows)))
        names = {name for result in results for name in result.record}
        zeros = [torch.zeros(len(row)) for row in rows]
        record = {
            name: torch.cat([r.record.get(name, zero).float() for r, zero in zip(results, zeros, strict=True)])[order]
            for name in names
        }
        state, diagnostic = (torch.cat([getattr(r, what) for r in results])[order] for what in ("state", "diagnostic"))
        return state, diagnostic, record

    def _named(self, held, times: int) -> dict[str, np.ndarray]:
        layout, space = self.step.layout, ("member",) if self.ensemble else ()
        out: dict[str, np.ndarray] = {}

        def shaped(field):  # (time and member, lead, ...) -> (time, lead, [member,] ...)
            if not space:
                return field
            return np.moveaxis(field.reshape(times, self.members, *field.shape[1:]), 1, 2)

        for channels, part in ((layout.prognostic, 0), (layout.diagnostic, 1)):
            if channels.count:
                stacked = torch.stack([entry[part] for entry in held], dim=1).flatten(0, 1)
                for name, field in channels.unpack(stacked).items():
                    out[name] = shaped(field.numpy().reshape(-1, len(held), *field.shape[1:]))
        self.records |= {name for entry in held for name in entry[2]}
        zeros = torch.zeros(len(held[0][0]))
        for name in sorted(self.records):  # 0 at lead 0, also in a block of its own
            out[name] = shaped(torch.stack([entry[2].get(name, zeros).float() for entry in held], dim=1).numpy())
        return out

    # --- initial states ---------------------------------------------------------------------------------------------

    def _read(self, channels, times) -> Tensor:
        part = self.dataset.sel(time=list(times))
        fields = {n: torch.from_numpy(np.asarray(part[n].values, np.float32)) for n in channels.names}
        return channels.pack(fields) if fields else torch.zeros(len(times), 0, *self.forcing.grid.shape)

    def _start(self, times) -> tuple[Tensor, Tensor]:
        """States and diagnostics at lead 0 of all rows, `(time and member, channel, *space)`."""
        layout = self.step.layout
        state, diagnostic = self._read(layout.prognostic, times), self._read(layout.diagnostic, times)
        if self.ensemble is None:
            return state, diagnostic
        kind, rest = self.ensemble.kind, diagnostic.repeat_interleave(self.members, 0)
        if kind == "none":
            return state.repeat_interleave(self.members, 0), rest
        make = {"noise": self._noisy, "bred": self._bred, "lagged": self._lagged}[kind]
        found = torch.cat([make(time, one) for time, one in zip(times, state, strict=True)])
        return found, rest

    def _draws(self, time) -> Tensor:
        """Noise of every perturbed member, `(member, channel, *space)`, in units of the change over a step."""
        options, grid = self.ensemble, self.forcing.grid
        if not hasattr(self, "_source"):
            power = options.spectrum
            self._source = SphericalNoise(grid, power)
            if power is None:
                degrees = self._source.degrees
                self._source = SphericalNoise(grid, power_law(degrees, options.slope, options.lowest_wavenumber))
        return torch.stack(
            [
                noise(
                    self._source,
                    self.step.layout.prognostic,
                    generator_of(options.seed, time, member),
                    options.vertical_correlation,
                )
                for member in range(int(options.control), options.members)
            ]
        )

    def _with_control(self, state, moved) -> Tensor:
        return torch.cat([state[None], moved]) if self.ensemble.control else moved

    def _noisy(self, time, state) -> Tensor:
        moved = perturbed(self.step, state[None], self.ensemble.amplitude * self._draws(time))
        return self._with_control(state, moved)

    def _bred(self, time, state) -> Tensor:
        options = self.ensemble
        cycle = self._whole_steps(options.cycle_hours, "cycle_hours")
        past = [self.forcing.later(time, -cycle * back) for back in range(options.cycles, 0, -1)]
        self._check_known(past, time)
        states = [*self._read(self.step.layout.prognostic, past), state]
        area = torch.as_tensor(self.forcing.grid.area)

        def advance(batch, index):
            return self._carried(batch, past[index], cycle)

        vectors = bred(self.step, states, self._draws(time), advance, area, options.amplitude)
        return self._with_control(state, perturbed(self.step, state[None], vectors))

    def _lagged(self, time, state) -> Tensor:
        """Member m has started m lags before: its state at `time` is a forecast."""
        lag = self._whole_steps(self.ensemble.lag_hours, "lag_hours")
        past = [self.forcing.later(time, -lag * back) for back in range(1, self.members)]
        self._check_known(past, time)
        older = self._read(self.step.layout.prognostic, past) if past else state[None][:0]
        late = [
            self._carried(one[None], start, lag * back)
            for back, (start, one) in enumerate(zip(past, older, strict=True), 1)
        ]
        return torch.cat([state[None], *late])

    def _carried(self, batch: Tensor, start, steps: int) -> Tensor:
        """States `(row, channel, *space)` from `start` carried on by some steps, all with the noise of its first member.

        So bred vectors differ by how they began, and a lagged member is the forecast that had started then.
        """

        def told(step):
            fields = self.forcing.told([self.forcing.later(start, step)])
            return *fields, *self._noise(self.step, [(start, 0)], step + 1)

        parts = []
        for rows in batch.split(self.batch_size):
            given = (tuple(part.expand(len(rows), *part.shape[1:]) for part in told(k)) for k in range(steps))
            for result in steps_of(self.step, rows, given):
                last = result.state
            parts.append(last)
        return torch.cat(parts)

    def _whole_steps(self, hours: float, name: str) -> int:
        steps = hours * 3600 / self.forcing.step_seconds
        if round(steps) < 1 or abs(steps - round(steps)) > 1e-9:
            raise ConfigError(f"Expected {name} as a multiple of {self.forcing.step_seconds / 3600:g}, got {hours:g}")
        return round(steps)

    def _check_known(self, past, time) -> None:
        known = set(self.dataset["time"].values.tolist())
        missing = [when for when in past if np.array(when).tolist() not in known]
        if missing:
            raise ConfigError(f"Expected analyses before {time} for the ensemble, the store has none at {missing[0]}")


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
