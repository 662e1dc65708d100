"""Forecasts between analyses: a stepper with its forcing, from the states of one time to those of later ones."""

from collections.abc import Iterator, Sequence

import torch
import xarray as xr
from torch import Tensor

from emulator.data.forcing import Forcing, StepInputs
from emulator.forecasting.forecaster import climatology_of
from emulator.model.noise import forecast_key
from emulator.model.rollout import Execution, rollout
from emulator.model.stepper import Stepper, StepResult
from emulator.store.schema import grid_of


class Forecasts:
    """What a cycle asks of a model.

    Args:
      model: a stepper of one input time, with the step of the store.
      dataset: the store with the forcing.
      batch_size: members computed at a time. seed: of the noise of a stochastic network.

    The model steps on its own device; states, observations and covariances of analyses stay where they are, on the host.
    Every forecast is pinned to the dry mass of the state that it starts from. Noise is a function of the seed, the time and
    the member, so that a cycle that goes on gives the same. Raises `ValueError` for a model of another kind.
    """

    def __init__(self, model: Stepper, dataset: xr.Dataset, batch_size: int = 8, seed: int = 0):
        self.model, self.batch_size, self.seed = model.at(1), batch_size, seed
        layout = self.model.layout
        if layout.history != 1:
            raise ValueError(f"Expected a model that steps from one state, got one of {layout.history} input times")
        if layout.lengths != (1,):
            raise ValueError(f"Expected a model with the store's step, got one of {layout.lengths} such steps")
        self.layout = layout
        reference = climatology_of([model], grid_of(dataset), None)
        self.forcing = Forcing(dataset, layout, climatology=reference)

    def steps(self, state: Tensor, time, count: int) -> Iterator[StepResult]:
        """Results of `count` steps of the states `(member, channel, *space)` of a time, all members together.

        Results lie where `state` does, and carry gradients back to it where these are enabled, each step computed again in
        the backward pass.
        """
        gradients = torch.is_grad_enabled() and state.requires_grad
        execution = Execution(gradients=gradients, recompute=gradients)
        batches, first = [], 0
        for rows in state.split(self.batch_size):
            members, there = range(first, first + len(rows)), rows.to(self.model.device)
            batches.append(rollout(self.model, there, self._inputs(members, time, count), execution=execution))
            first += len(rows)
        for results in zip(*batches, strict=True):
            if len(results) == 1 and results[0].state.device == state.device:
                yield results[0]
            else:
                joined = (torch.cat([getattr(r, name) for r in results]) for name in ("state", "diagnostic"))
                yield StepResult(*(fields.to(state.device) for fields in joined), {})

    def each(self, states: Tensor, times: Sequence, numbers: Sequence[int]) -> Tensor:
        """The states a step later of `states` `(row, channel, *space)`, each of a time of its own; no gradients.

        `numbers`: what tells the rows of a time from each other, for the noise of a stochastic network.
        """
        found = []
        for first in range(0, len(states), self.batch_size):
            part = slice(first, first + self.batch_size)
            given = self.forcing.inputs(list(times[part])).to(self.model.device)
            if self.model.noise is not None:
                keys = [forecast_key(self.seed, *key, 1) for key in zip(times[part], numbers[part], strict=True)]
                given = given._replace(noise=self.model.noise.rows(keys).to(self.model.device))
            found += [result.state for result in rollout(self.model, states[part].to(self.model.device), [given])]
        return torch.cat(found).to(states.device)

    def _inputs(self, members: range, time, count: int) -> Iterator[StepInputs]:
        for number in range(1, count + 1):
            given = self.forcing.inputs([self.forcing.later(time, number - 1)])
            given = given.to(self.model.device).repeated(len(members))
            if self.model.noise is not None:
                keys = [forecast_key(self.seed, time, member, number) for member in members]
                given = given._replace(noise=self.model.noise.rows(keys).to(self.model.device))
            yield given
