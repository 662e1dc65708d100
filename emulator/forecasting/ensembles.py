"""Initial states of ensembles: Gaussian noise on the sphere, bred vectors, and lagged forecasts."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulator.data.channels import Channels, Layout, kept_within, outside_of
from emulator.data.forcing import Forcing
from emulator.forecasting.options import EnsembleOptions
from emulator.model.gaps import REFUSED
from emulator.model.noise import forecast_key
from emulator.model.rollout import rollout
from emulator.model.step import Step
from emulator.model.stepper import Stepper
from emulator.parallel.host_copies import to_device
from emulator.parallel.space import ALONE, Space
from emulator.planet.calendar import TimeStep
from emulator.sphere.random_fields import SphericalNoise, generator_of, power_law
from emulator.store.schema import missing_times

HOURS = {"bred": "cycle_hours", "lagged": "lag_hours"}  # between the analyses that members come from, by kind


class InitialStates:
    """States at the initial times of forecasts, and of the members of ensembles.

    Args:
      step: the emulator; states are made on its device.
      dataset: the analysis store, or this process's rows of it, as `forcing` has it.
      forcing: of the store.
      batch_size: forecasts computed at a time.
      options: of the ensemble; None for single forecasts.
    Raises `ValueError` as `check_ensemble` does.
    """

    def __init__(
        self, step: Step, dataset: xr.Dataset, forcing: Forcing, batch_size: int, options: EnsembleOptions | None
    ):
        check_ensemble(options, step.layout, forcing.step)
        self.step, self.dataset, self.forcing = step, dataset, forcing
        self.batch_size, self.options, self._source = batch_size, options, None

    def __call__(self, times: Sequence) -> tuple[Tensor, Tensor]:
        """What forecasts start from, and diagnostics at lead 0, of all rows, `(time and member, [history,] channel, *space)`.

        Raises `ValueError` as `check` does.
        """
        self.check(times)
        layout, options = self.step.layout, self.options
        state, diagnostic = self._states(times), self._read(layout.diagnostic, times)
        if options is None:
            return state, diagnostic
        diagnostic = diagnostic.repeat_interleave(options.members, 0)
        if options.kind == "none":
            return state.repeat_interleave(options.members, 0), diagnostic
        if options.kind != "lagged" and not hasattr(self.step, "change_std"):
            raise ValueError(
                f"Expected a model with change_std, lower and upper for an ensemble of kind {options.kind}, got "
                f"{type(self.step).__name__} without; lagged members need none"
            )
        make = {"noise": self._noisy, "bred": self._bred, "lagged": self._lagged}[options.kind]
        return torch.cat([make(time, one) for time, one in zip(times, state, strict=True)]), diagnostic

    def check(self, times: Sequence) -> None:
        """Raises `ValueError` for an initial time, or an analysis before it that the states need, that the store lacks."""
        stored = set(self.dataset["time"].values[~missing_times(self.dataset)].tolist())

        def first_absent(whens):
            return next((when for when in whens if np.array(when).tolist() not in stored), None)

        for time in times:
            past = self._past(time)
            back = [self.forcing.later(each, -k) for each in (time, *past) for k in range(1, self.step.layout.history)]
            if first_absent([time]) is not None:
                raise ValueError(f"Expected initial times that the store has, it has no fields at {time}")
            for what, whens in {"the ensemble": past, "a history": back}.items():
                if (absent := first_absent(whens)) is not None:
                    raise ValueError(f"Expected analyses before {time} for {what}, the store has none at {absent}")

    def _refuse_gaps(self, fields: Mapping[str, np.ndarray], outside: np.ndarray | None) -> None:
        """Raises `ValueError` for fields of the state that lack values within their domain where the step needs them."""
        layout, bred_too = self.step.layout, self.options is not None and self.options.kind == "bred"
        if not isinstance(self.step, Step) or (layout.gaps != REFUSED and not bred_too):
            return
        lacking = []
        for name, where in layout.prognostic.slices.items():
            missing = np.isnan(fields[name]).reshape(len(fields[name]), where.stop - where.start, -1)
            if outside is not None:
                missing &= ~outside[where].reshape(1, where.stop - where.start, -1)
            lacking += [name] * bool(missing.any())
        if lacking:
            what = "bred vectors" if layout.gaps != REFUSED else "a network that was trained without train.gaps"
            raise ValueError(f"Expected whole initial states for {what}, got missing values of {', '.join(lacking)}")

    def _past(self, time) -> list:
        """Earlier analyses that members of an ensemble come from: of bred ones the oldest first, of lagged the newest."""
        kind = self.options and self.options.kind
        if kind == "bred":
            return [self.forcing.later(time, -self._spacing * back) for back in range(self.options.cycles, 0, -1)]
        if kind == "lagged":
            return [self.forcing.later(time, -self._spacing * back) for back in range(1, self.options.members)]
        return []

    @property
    def _spacing(self) -> int:
        """Steps between the analyses that the members of an ensemble come from."""
        return spacing_of(self.options, self.forcing.step)

    def _states(self, times: Sequence) -> Tensor:
        """What steps start from at some times, `(time, [history,] channel, *space)`."""
        layout = self.step.layout
        if layout.history == 1:
            return self._read(layout.prognostic, times)
        back = range(1 - layout.history, 0)
        steps = [self._read(layout.prognostic, [self.forcing.later(time, k) for time in times]) for k in back]
        return torch.stack([*steps, self._read(layout.prognostic, times)], 1)

    def _read(self, channels: Channels, times: Sequence) -> Tensor:
        part = self.dataset.sel(time=list(times))
        values = {n: np.asarray(part[n].values, np.float32) for n in channels.names}
        outside = outside_of(self.dataset, channels)
        if channels is self.step.layout.prognostic:
            self._refuse_gaps(values, outside)
        fields = {n: torch.from_numpy(array) for n, array in values.items()}
        packed = channels.pack(fields) if fields else torch.zeros(len(times), 0, *self.forcing.shape)
        if outside is not None:
            packed = kept_within(packed, torch.from_numpy(~outside))
        return to_device(packed, self.step.device)

    def _draws(self, time) -> Tensor:
        """Noise of every perturbed member, `(member, channel, *space)`, in units of the change over a step."""
        options, channels = self.options, self.step.layout.prognostic
        if self._source is None:
            self._source = SphericalNoise(self.forcing.grid, options.spectrum)
            if options.spectrum is None:
                power = power_law(self._source.degrees, options.slope, options.lowest_wavenumber)
                self._source = SphericalNoise(self.forcing.grid, power)
        members = range(int(options.control), options.members)
        draws = [
            noise(self._source, channels, generator_of(options.seed, time, member), options.vertical_correlation)
            for member in members
        ]
        return to_device(space_of(self.step).cut(torch.stack(draws)), self.step.device)

    def _with_control(self, state: Tensor, perturbed_states: Tensor) -> Tensor:
        return torch.cat([state[None], perturbed_states]) if self.options.control else perturbed_states

    def _noisy(self, time, state: Tensor) -> Tensor:
        """All times of a history are moved alike, so that what they tell of the change stays."""
        draws = self._like(self._draws(time), state)
        return self._with_control(state, perturbed(self.step, state[None], self.options.amplitude * draws))

    def _like(self, draws: Tensor, state: Tensor) -> Tensor:
        """Perturbations `(member, channel, *space)` with an axis for the history where a state has one."""
        return draws if draws.dim() > state.dim() else draws[:, None]

    def _bred(self, time, state: Tensor) -> Tensor:
        options, cycle, past = self.options, self._spacing, self._past(time)
        states = [*self._states(past), state]
        area = to_device(space_of(self.step).cut(torch.as_tensor(self.forcing.grid.area)), self.step.device)

        def advance(batch, index):
            return self._forecast(batch, past[index], cycle)

        vectors = bred(self.step, states, self._like(self._draws(time), state), advance, area, options.amplitude)
        return self._with_control(state, perturbed(self.step, state[None], vectors))

    def _lagged(self, time, state: Tensor) -> Tensor:
        """Member m has started m lags before: its state at `time` is a forecast."""
        lag, past = self._spacing, self._past(time)
        older = self._states(past) if past else state[None][:0]
        late = [
            self._forecast(one[None], start, lag * back)
            for back, (start, one) in enumerate(zip(past, older, strict=True), 1)
        ]
        return torch.cat([state[None], *late])

    def _forecast(self, batch: Tensor, start, steps: int) -> Tensor:
        """States `(row, [history,] channel, *space)` from `start` some steps later, all with the noise of its first member.

        So bred vectors differ by how they began, and a lagged member is the forecast that had started then.
        """

        def inputs(rows: int):
            for number in range(1, steps + 1):
                given = self.forcing.inputs([self.forcing.later(start, number - 1)])
                if self.step.noise is not None:
                    keys = [forecast_key(self.options.seed, start, 0, number)]
                    given = given._replace(noise=self.step.noise.rows(keys, self.options.noise_amplitude))
                yield given.to(self.step.device).repeated(rows)

        ends = []
        for rows in batch.split(self.batch_size):
            for result in rollout(self.step, rows, inputs(len(rows))):
                end = result.onward
            ends.append(end)
        return torch.cat(ends)


def check_ensemble(options: EnsembleOptions | None, layout: Layout, step: TimeStep) -> None:
    """Raises `ValueError` for initial states that members cannot differ by, and for hours that are no whole steps."""
    if options is None or options.kind == "none":
        return
    if not layout.prognostic.count:
        raise ValueError(
            f"Expected a model with prognostic variables for an ensemble of kind {options.kind}, whose members differ by "
            "their initial states, got one without"
        )
    if options.kind in HOURS:
        spacing_of(options, step)


def spacing_of(options: EnsembleOptions, step: TimeStep) -> int:
    """Steps between the analyses that bred or lagged members come from. Raises `ValueError` for part of a step."""
    name = HOURS[options.kind]
    if step.months:
        raise ValueError(
            f"Expected an ensemble of kind none or noise for a step of {step}, got {options.kind}, which counts in hours "
            f"({name})"
        )
    hours = getattr(options, name)
    steps = hours * 3600 / step.seconds
    if round(steps) < 1 or abs(steps - round(steps)) > 1e-9:
        raise ValueError(f"Expected {name} as a multiple of {step.seconds / 3600:g}, got {hours:g}")
    return round(steps)


def noise(
    source: SphericalNoise, channels: Channels, generator: np.random.Generator, vertical_correlation: float = 0.8
) -> Tensor:
    """Noise of unit variance for every channel, `(channel, *space)`, correlated between neighbouring levels of a variable.

    Levels follow a first-order autoregression from the top down.
    """
    fields = source.draw(generator, channels.count)
    rest = (1 - vertical_correlation**2) ** 0.5
    for where in channels.slices.values():
        for level in range(where.start + 1, where.stop):
            fields[level] = vertical_correlation * fields[level - 1] + rest * fields[level]
    return fields


def space_of(step: Stepper) -> Space:
    """The processes that hold a stepper's states together; those of other code know of none."""
    return getattr(step, "space", ALONE)


def perturbed(step: Step, state: Tensor, perturbation: Tensor) -> Tensor:
    """State plus perturbation in units of the change over a step, `(..., channel, *space)`, inside the step's bounds."""
    moved = state + step.change_std * perturbation
    # A state of the analysis may lie outside the bounds itself: it is not pulled in.
    lower, upper = torch.minimum(step.lower, state), torch.maximum(step.upper, state)
    return torch.minimum(torch.maximum(moved, lower), upper)


def size_of(step: Step, difference: Tensor, area: Tensor) -> Tensor:
    """Root mean square over channels and area of a difference of states, in units of the change over a step: `(...)`."""
    scaled = (difference / step.change_std).double().square()
    return space_of(step).total((scaled * area).sum((-2, -1))).mean(-1).sqrt()


def bred(
    step: Step,
    states: Sequence[Tensor],
    start: Tensor,
    advance: Callable[[Tensor, int], Tensor],
    area: Tensor,
    amplitude: float,
) -> Tensor:
    """Bred vectors (Toth and Kalnay 1993) for the last of `states`, in units of the change over a step.

    Args:
      step: the emulator, which gives bounds and units.
      states: analyses one cycle apart, oldest first, `([history,] channel, *space)` each.
      start: perturbations of the oldest, `(member, [1,] channel, *space)` in the same units.
      advance: `(state, cycle) -> state` at the end of the cycle, for `(member, [history,] channel, *space)` states.
      area: cell areas of this process's rows, summing to 1 over the globe.
      amplitude: root mean square (`size_of`) to which the difference at the last time is rescaled after every cycle.
    """

    def scaled(vectors: Tensor, size: Tensor) -> Tensor:
        last = size if size.dim() == 1 else size[:, -1]
        return vectors * (amplitude / last.clamp(min=1e-12)).float().view(-1, *[1] * (vectors.dim() - 1))

    vectors = scaled(start, size_of(step, step.change_std * start, area))
    for cycle, analysis in enumerate(states[:-1]):
        control = advance(analysis[None], cycle)
        grown = advance(perturbed(step, analysis[None], vectors), cycle) - control
        vectors = scaled(grown / step.change_std, size_of(step, grown, area))
    return vectors
