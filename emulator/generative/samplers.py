"""From noise to a sample along a differential equation: a fixed number of steps of first or second order.

The equations are those of `emulator.generative.objectives`; here they are only integrated. `drift(x, time)` gives the
derivative of states `(batch, channel, *space)` at a time that all of them share.
"""

import itertools
from collections.abc import Callable, Sequence

from torch import Tensor

Drift = Callable[[Tensor, float], Tensor]


def ordinary(drift: Drift, x: Tensor, times: Sequence[float], order: int = 2, euler_end: bool = False) -> Tensor:
    """`dx/dt = drift(x, t)` from `times[0]` to `times[-1]`.

    Order 1 is Euler's rule, order 2 Heun's (Karras et al. 2022, algorithm 1), of two calls a step. `euler_end`: the last step
    is Euler's, where the drift does not exist at the last time.
    """
    return stochastic(drift, x, times, [None] * (len(times) - 1), order, euler_end)


def stochastic(
    drift: Drift,
    x: Tensor,
    times: Sequence[float],
    increments: Sequence[Tensor | None],
    order: int = 2,
    euler_end: bool = False,
) -> Tensor:
    """`dx = drift(x, t) dt + dn` with given increments of the noise `n`, one a step, None for no noise.

    The noise does not depend on `x`. Order 1 is Euler-Maruyama, order 2 the stochastic Heun rule: so fast converge
    means and variances.
    """
    for number, ((now, then), increment) in enumerate(zip(itertools.pairwise(times), increments, strict=True), 1):
        slope, step = drift(x, now), then - now
        noise = 0.0 if increment is None else increment
        following = x + step * slope + noise
        if order == 2 and not (euler_end and number == len(increments)):
            following = x + 0.5 * step * (slope + drift(following, then)) + noise
        x = following
    return x
