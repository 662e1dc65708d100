"""A cycle of analyses and forecasts: background, quality control, analysis, what it does to the budgets, and again."""

import dataclasses
import time as clocks
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from emulator.assimilation.forecasts import Forecasts
from emulator.assimilation.geometry import Geometry
from emulator.assimilation.increments import Increments
from emulator.assimilation.observations import Observations
from emulator.assimilation.operators import equivalents
from emulator.assimilation.options import QualityOptions
from emulator.assimilation.places import SpherePlaces
from emulator.assimilation.quality import counts, screen, screen_background
from emulator.assimilation.window import Assimilation, Covariance, Observed, Window
from emulator.model.stepper import StepResult
from emulator.sphere.random_fields import generator_of

PRESSURE = "surface_pressure"


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """What all windows of a cycle share.

    Attributes:
      forecasts: the model. assimilation: the kind of analysis. geometry: of the model's states.
      increments: what analyses keep. dry_mass: kg m-2, which all of them have; None where states make up no columns.
      covariance: of the background's errors, where there is a static one. quality: which observations are used.
      additive: standard deviation of random errors, in those of the covariance, that members get before an analysis.
      seed: of these.
    """

    forecasts: Forecasts
    assimilation: Assimilation
    geometry: Geometry
    increments: Increments
    dry_mass: float | None
    covariance: Covariance | None = None
    quality: QualityOptions = dataclasses.field(default_factory=QualityOptions)
    additive: float = 0.0
    seed: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Feedback:
    """What came of the observations of one time, as `emulator.assimilation.feedback.write_feedback` takes it.

    `background`, `analysis`: equivalents of the members' means, `(row,)`; `members`: of the background's members, else None.
    """

    observations: Observations
    rejected: np.ndarray
    background: np.ndarray
    analysis: np.ndarray
    members: np.ndarray | None


@dataclasses.dataclass(frozen=True, eq=False)
class Cycled:
    """A window's results.

    Attributes:
      times: of the window. results: of the model at each, the analysis among them, `(member, channel, *space)` fields.
      feedback: of each time. record: numbers of the analysis, by name; `seconds` of processor time that it took.
    """

    times: Sequence
    results: list[StepResult]
    feedback: list[Feedback]
    record: dict


@torch.no_grad()
def next_window(setup: Setup, before, times: Sequence, states: Tensor, observations: Observations) -> Cycled:
    """The window after the states `(member, channel, *space)` of a time: forecast to each of its times, and analysed.

    `observations`: any, of which those of the window are used. Raises `ArithmeticError` for a forecast that is not finite.
    """
    background = list(setup.forecasts.steps(states, before, len(times)))
    return analysed(setup, before, times, background, observations)


@torch.no_grad()
def analysed(setup: Setup, before, times: Sequence, background: list[StepResult], observations: Observations) -> Cycled:
    """The analysis of a window whose background is known at each of its times, a step after `before` and on.

    Observations count that are nearest to one of the times.
    """
    for time, result in zip(times, background, strict=True):
        if not bool(torch.isfinite(result.state).all()):
            raise ArithmeticError(f"Expected a background with finite values, that of {time} has others")
    half = (setup.forecasts.forcing.later(times[-1], 1) - times[-1]) / 2
    rows = observations.within((before + half, times[-1] + half))
    slots = rows.slots(times)
    screened = [_Screened.of(setup, rows.where(slots == k), result.state) for k, result in enumerate(background)]
    began = clocks.process_time()
    members = _perturbed(setup, times[0], background[0].state, any(len(each.observed) for each in screened))
    at = setup.geometry
    places = SpherePlaces(at.grid, at.channels, at.at, at.constants.earth_radius)
    window = Window(
        members, [each.observed for each in screened], _trajectory(setup, times), setup.covariance, places, at
    )
    analysis = setup.assimilation.analyse(window)
    state, told = setup.increments.kept(analysis.state, background[0].state, setup.dry_mass)
    seconds = clocks.process_time() - began
    results = background
    if not torch.equal(state, background[0].state):
        first = dataclasses.replace(background[0], state=state)
        results = [first, *setup.forecasts.steps(state, times[0], len(times) - 1)]
    feedback = [each.feedback(result.state) for each, result in zip(screened, results, strict=True)]
    rejected = counts(np.concatenate([each.rejected for each in screened]))
    record = {"observations": window.count, "rejected": rejected, **analysis.diagnostics, **told, "seconds": seconds}
    return Cycled(times, results, feedback, record)


def _trajectory(setup: Setup, times: Sequence) -> Callable[[Tensor], list[Tensor]]:
    """States at the window's times from those at its first."""

    def states(first: Tensor) -> list[Tensor]:
        return [first, *(result.state for result in setup.forecasts.steps(first, times[0], len(times) - 1))]

    return states


def _perturbed(setup: Setup, time, members: Tensor, observed: bool) -> Tensor:
    """Members with random errors of the covariance whose mean is 0; a function of the seed and the time."""
    if not (setup.additive and setup.covariance is not None and len(members) > 1 and observed):
        return members
    draws = setup.covariance.draw(generator_of(setup.seed, time, len(members)), len(members))
    return (members.double() + setup.additive * (draws - draws.mean(0))).to(members.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class _Screened:
    """Observations of one time after quality control.

    Attributes:
      rows: all of them; rejected: reasons, "" of those that count. observed: what counts.
      known: rows with equivalents. operator: of these. before: their equivalents of the background, `(member, row)`.
    """

    rows: Observations
    rejected: np.ndarray
    observed: Observed
    known: np.ndarray
    operator: Callable[[Tensor], Tensor]
    before: np.ndarray

    @classmethod
    def of(cls, setup: Setup, rows: Observations, background: Tensor) -> "_Screened":
        rejected = screen(rows, setup.geometry, setup.quality)
        known = np.flatnonzero(rejected == "")
        seen = rows.where(known)
        operator = equivalents(setup.geometry, seen)
        before = operator(background.double()).cpu().numpy()
        spread = before.std(0, ddof=1) if len(before) > 1 else None
        pressure = surface_pressure(setup.geometry, seen, background)
        rejected[known] = screen_background(seen, before.mean(0), spread, pressure, setup.quality)
        good = rows.where(rejected == "")
        columns = torch.from_numpy(good.value), torch.from_numpy(good.error)
        place = good.latitude, good.longitude, good.level
        observed = Observed(equivalents(setup.geometry, good), *columns, *place, good)
        return cls(rows, rejected, observed, known, operator, before)

    def feedback(self, analysis: Tensor) -> Feedback:
        after = self.operator(analysis.double()).cpu().numpy()
        members = self._filled(self.before) if len(self.before) > 1 else None
        return Feedback(
            self.rows, self.rejected, self._filled(self.before.mean(0)), self._filled(after.mean(0)), members
        )

    def _filled(self, values: np.ndarray) -> np.ndarray:
        """Of all rows, NaN of those without equivalents."""
        whole = np.full((*values.shape[:-1], len(self.rows)), np.nan)
        whole[..., self.known] = values
        return whole


def surface_pressure(geometry: Geometry, rows: Observations, background: Tensor) -> np.ndarray | None:
    """The background's surface pressure at every row, Pa, where levels are pressures that the ground may cut."""
    if geometry.levels is None or geometry.levels.kind != "pressure" or PRESSURE not in geometry.channels.names:
        return None
    count = len(rows)
    nothing = {"elevation": np.full(count, np.nan), "level": np.full(count, np.nan)}
    at = rows.replace(operator=np.full(count, "point"), variable=np.full(count, PRESSURE), **nothing)
    return equivalents(geometry, at)(background.double().mean(0, keepdim=True))[0].cpu().numpy()
