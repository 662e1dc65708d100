"""Steps that belong to windows of several: the states between two that are known, and cold sampling of DYffusion.

Cachay et al. (2023), algorithm 2: from the state x at step s of a window the forecaster tells the one at its end; the
interpolator I, to that end, tells what comes a step on, and `x + I(s + 1) - I(s)` is the state there. So what the
interpolator gets wrong alike at both is not added up. Here every such state has its budgets closed before the next is made of
it. Diagnostics of a step are what the interpolator tells of it, at the last step what the forecaster tells.

A window needs its first state, and what the step before was given; they go on beside the state in a `Carry`.
"""

import copy
import dataclasses

import torch
from torch import Tensor

from emulator.data.batch import Batch
from emulator.data.channels import kept_within
from emulator.data.forcing import StepInputs
from emulator.model.given import expect_given
from emulator.model.noise import NetworkNoise, Seeds
from emulator.model.step import Step
from emulator.model.stepper import Carry, StepResult
from emulator.networks.dropout import leaving_out
from emulator.networks.dyffusion import Timed

Made = tuple[
    Tensor, Tensor
]  # a state and the diagnostics of the step that ends with it, `(batch, channel, *space)` each


class WindowStep(Step):
    """Base: what both trainings share. `horizon` and `pairing` are set by whoever makes it.

    It is made with all the noise of `emulator.networks.dyffusion.noise_of`, of which it draws what it uses.

    Attributes:
      noise: of a step outside a training: seeds, or fields, of every length scale those of a first and of a second
        interpolation; an interpolator has the second alone.
      taught: of a window in training: seeds, or the fields of a second interpolation and one number everywhere, which gives
        the place in the window; that of a sample's first member counts.
    """

    pairing = 0.0  # correlation of the noise of the two interpolations of a step
    forecasts = True  # whether it makes some

    def __init__(self, *parts):
        super().__init__(*parts)
        self.taught = noise = self.noise
        if isinstance(noise, NetworkNoise):
            fields = range(noise.count - noise.style)
            second = [n for n in fields if n // (noise.channels // 2) % 2]
            self.noise = noise.picked(fields if self.forecasts else second)
            self.taught = noise.picked([*second, *range(len(fields), noise.count)])

    def interpolated(
        self, network: Timed, ends: tuple[Tensor, Tensor], place: Tensor, given: StepInputs, drawn: Tensor
    ) -> Made:
        """The state at steps between the ends of windows, and the diagnostics of the steps that end there.

        The network predicts the departure from the straight line between both, in units of a step's change.

        Args:
          ends: states `(batch, channel, *space)`. place: steps from the start, `(batch,)` from 1 on and below the horizon.
          given: of the steps that end there.
          drawn: seeds of what the network leaves out, `(batch,)`, or noise `(batch, channel, *space)`, of which it is given
            the first channels that it takes.
        """
        first, last = ends
        second = kept_within(self.state_scale(self.as_shown(last)), self.exists)
        x = torch.cat([self.inputs(first, given.forcing, given.clock), second], 1)
        time = place / self.horizon
        if isinstance(self.noise, Seeds):
            with leaving_out(network, drawn):
                predicted = network(x, self._scalars(given), time)
        else:
            predicted = network(x, self._scalars(given), time, drawn)
        change, diagnosed = predicted.split([self.layout.prognostic.count, self.layout.diagnostic.count], 1)
        share = time.to(first.dtype).view(-1, *[1] * (first.dim() - 1))
        state = first + (share * (last - first) + self.change_std * change)
        diagnostic = kept_within(self.diagnostic_scale.inverse(diagnosed), self.diagnostic_exists)
        return kept_within(state, self.exists), diagnostic

    def _first(self, noise: Tensor) -> Tensor:
        """What the one interpolation of a training or a validation takes of what was drawn for a window."""
        return noise[:, 1] if isinstance(self.noise, Seeds) else noise

    def _place(self, noise: Tensor, places: int) -> Tensor:
        """One of so many places for every row, `(batch,)`, from 0 on, all as likely."""
        if isinstance(self.noise, Seeds):
            return noise[:, 0] % places
        share = torch.special.ndtr(noise[:, -1].flatten(1)[:, 0])  # the last channel is one normal number everywhere
        return (share * places).long().clamp(max=places - 1)

    def _scalars(self, given: StepInputs) -> Tensor | None:
        return self.scalars and self.scalars(self.forcing_scale(given.forcing), given.clock)

    def _bounded(self, state: Tensor) -> Tensor:
        return kept_within(torch.minimum(torch.maximum(state, self.lower), self.upper), self.exists)


class Interpolator(WindowStep):
    """Learns the states inside windows; it makes no forecasts."""

    forecasts = False

    def learned(self, batch: Batch, members: int = 1) -> tuple[Made, Made]:
        """What the network makes of the windows of a batch, at one step of each, and the truth.

        `members`: rows of every sample, one after the other, which share the step.
        """
        place = 1 + self._place(batch.noise[:, 0], self.horizon - 1)
        return self.between(batch, place[::members].repeat_interleave(members))

    def between(self, batch: Batch, place: Tensor | int) -> tuple[Made, Made]:
        """What it makes of the windows of a batch at steps `place`, `(batch,)` or one number, and the truth."""
        rows = torch.arange(len(batch.state), device=batch.state.device)
        place = torch.full_like(rows, place) if isinstance(place, int) else place
        ends = batch.state[:, 0], batch.state[:, self.horizon]
        drawn = self._first(batch.noise[:, 0])
        made = self.interpolated(self.network, ends, place, _given(batch, rows, place - 1), drawn)
        return made, (batch.state[rows, place], batch.diagnostic[rows, place - 1])

    def forward(self, *given, **more) -> StepResult:
        raise ValueError(f"Expected a network that forecasts, got an interpolator {HINT}")


HINT = "between states that are known: it is for train.objective {kind: dyffusion, interpolator: CHECKPOINT}"


class DYffusionStep(WindowStep):
    """The forecaster, in training, and steps by cold sampling.

    Attributes:
      place: of the step within its window, from 0 on; `at` gives those of the others.
    """

    place = 0

    def at(self, number: int) -> "DYffusionStep":
        place = (number - 1) % self.horizon
        if place == self.place:
            return self
        other = copy.copy(self)
        other.place = place
        return other

    def forecast(self, state: Tensor, place: Tensor, given: StepInputs) -> Made:
        """The state at the end of windows, from those at steps `place`, `(batch,)`, and the last step's diagnostics.

        The network predicts the change until there in units of a step's change, times the square root of the steps, on top of
        damped persistence. `given`: of the steps that begin at `place`.
        """
        x = self.inputs(state, given.forcing, given.clock)
        predicted = self.network.forecaster(x, self._scalars(given), place / self.horizon)
        change, diagnosed = predicted.split([self.layout.prognostic.count, self.layout.diagnostic.count], 1)
        left = (self.horizon - place).to(state.dtype).view(-1, *[1] * (state.dim() - 1))
        known = self.known(state)
        known = dataclasses.replace(
            known, change=known.change * left.sqrt(), damping=1 - (1 - known.damping) ** left.to(known.damping.dtype)
        )
        end = self._bounded(self.prediction.following(known, change))
        return end, kept_within(self.diagnostic_scale.inverse(diagnosed), self.diagnostic_exists)

    def _drawn(self, noise: Tensor, number: int) -> Tensor:
        """What interpolation 1 or 2 of a step takes of its noise.

        That is a column of seeds, or of two sets of fields the second, and for the first interpolation a mixture of both
        whose correlation with the second is `pairing`.
        """
        if isinstance(self.noise, Seeds):
            return noise[:, number]
        other, own = noise.unflatten(1, (-1, 2, self.noise.channels // 2)).transpose(1, 2).flatten(2, 3).unbind(1)
        return own if number == 2 else self.pairing * own + (1 - self.pairing**2) ** 0.5 * other

    def learned(self, batch: Batch, members: int = 1) -> tuple[Made, Made]:
        """What the forecaster makes of the end of the windows of a batch, from one step of each, and the truth.

        The state at a step other than the first is what the interpolator makes of both ends.
        """
        drawn, rows = batch.noise[:, 0], torch.arange(len(batch.state), device=batch.state.device)
        place = self._place(drawn, self.horizon)
        ends, inside = (batch.state[:, 0], batch.state[:, self.horizon]), place.clamp(min=1)
        with torch.no_grad():
            before = _given(batch, rows, inside - 1)
            between = self.interpolated(self.network.interpolator, ends, inside, before, self._first(drawn))[0]
            begins = (place == 0).view(-1, *[1] * (between.dim() - 1))
            state = torch.where(begins, ends[0], self._bounded(between))
        return self.forecast(state, place, _given(batch, rows, place)), (ends[1], batch.diagnostic[:, self.horizon - 1])

    def forward(
        self,
        state: Tensor,
        forcing: Tensor,
        clock: Tensor,
        anchor=None,
        noise: Tensor | None = None,
        length: Tensor | float | None = None,
        reference: Tensor | None = None,
        boundary: Tensor | None = None,
        outflow: Tensor | None = None,
    ) -> StepResult:
        """The step at `place`, from `state`; arguments as those of a `Step`, `noise` being seeds `(batch, number)` where the
        interpolator leaves out.

        Raises `ValueError` within a window without what the steps before have left in the `anchor`.
        """
        expect_given(self, noise, length, reference, boundary, outflow)
        state, given = kept_within(state, self.exists), StepInputs(forcing, clock)
        carry = anchor if isinstance(anchor, Carry) else Carry(anchor)
        if self.place and not carry.kept:
            raise ValueError(f"Expected what steps before step {self.place + 1} of a window have left, got none")
        start = carry.kept["start"] if self.place else state
        place = torch.full((len(state),), self.place, device=state.device)
        end, diagnostic = self.forecast(state, place, given)
        ends, following, here = (start, end), end, state
        if self.place:
            before = StepInputs(carry.kept["forcing"], carry.kept["clock"])
            here, _ = self.interpolated(self.network.interpolator, ends, place, before, self._drawn(noise, 1))
        if self.place + 1 < self.horizon:
            following, diagnostic = self.interpolated(
                self.network.interpolator, ends, place + 1, given, self._drawn(noise, 2)
            )
        made = self._bounded(state + (following - here)), diagnostic
        closing = (None, None) if self.scheme is None else self._closing(length, None)
        result = self._ended(state, made, forcing, carry.anchor, (boundary, outflow), closing)
        if self.place + 1 == self.horizon:
            return result
        kept = {"start": start, "forcing": forcing, "clock": clock}
        return dataclasses.replace(result, anchor=Carry(result.anchor, kept))


def _given(batch: Batch, rows: Tensor, place: Tensor) -> StepInputs:
    """What the steps of windows that begin at `place` are given, a row each."""
    return StepInputs(batch.forcing[rows, place], batch.clock[rows, place])
