"""Cold sampling of DYffusion (Cachay et al. 2023): the steps of a window from a forecaster and an interpolator.

The forecaster tells the state at the end of a window of `horizon` steps from that at any step in it; the interpolator, which
is stochastic by its dropout, tells a state between the window's start and its end. Both are functions:
`forecast(state, step) -> end` and `interpolate(start, end, step) -> state`, with steps counted from 0 at the window's start.
"""

from collections.abc import Callable

from torch import Tensor

Forecast = Callable[[Tensor, int], Tensor]
Interpolate = Callable[[Tensor, Tensor, int], Tensor]


def sampled_step(
    forecast: Forecast, interpolate: Interpolate, start: Tensor, state: Tensor, step: int, horizon: int
) -> tuple[Tensor, Tensor]:
    """The state one step on, and the end of the window as it is foreseen from here.

    What is emitted is `state + (I(step + 1) - I(step))` with both interpolated to the same end (algorithm 2): what the
    interpolator gets wrong alike at both is not added up. It is one step alone, so that a caller can put budgets right before
    the next and stop anywhere inside a window: `start`, `state` and `step` are all that the next one needs.

    Args:
      start: at the window's begin, `(batch, channel, *space)`. state: at `step`. horizon: steps of the window.
    Raises `ValueError` for a step outside the window.
    """
    if not 0 <= step < horizon:
        raise ValueError(f"Expected a step of at least 0 and below the horizon {horizon}, got {step}")
    end = forecast(state, step)
    following = end if step == horizon - 1 else interpolate(start, end, step + 1)
    here = state if step == 0 else interpolate(start, end, step)
    return state + (following - here), end


def cold_sampled(
    forecast: Forecast, interpolate: Interpolate, start: Tensor, horizon: int, refine: bool = False
) -> list[Tensor]:
    """The `horizon` states of a window from `start`, that at its end last.

    `refine`: those before the end are interpolated once more, to the end as it came out.
    """
    states, state = [], start
    for step in range(horizon):
        state, _ = sampled_step(forecast, interpolate, start, state, step, horizon)
        states.append(state)
    if refine:
        states = [interpolate(start, state, step) for step in range(1, horizon)] + [state]
    return states
