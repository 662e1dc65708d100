"""Newton's method on the few numbers that close the budgets: a handful per element of the batch, float64.

They are tensors, or arrays of NumPy where compiled kernels form them.
"""

import numpy as np
import torch
from torch import Tensor

ITERATIONS = 12
# Relative residual at which Newton's method stops, a little above what rounding leaves on grids of a few hundred cells.
TOLERANCE = {torch.float32: 1e-9, torch.float64: 1e-14}
STALLED = {
    torch.float32: 1e-6,
    torch.float64: 1e-11,
}  # below it, stop as well when a step no longer halves the residual
RIDGE = 1e-13  # on the scaled system, which two budgets with the same free controls would make singular
TINY = 1e-30


def solve(matrix, target):
    """Solutions of small systems scaled by their diagonals: `(batch, m, m)`, `(batch, m)` -> `(batch, m)`.

    A row whose diagonal is zero, of a budget that no free control can change, has the solution 0. The matrix gets no
    gradient.
    """
    of = torch if isinstance(matrix, Tensor) else np
    with torch.no_grad():
        diagonal = of.abs(of.diagonal(matrix, 0, 1, 2))
        dead = diagonal < TINY
        size = of.where(dead, 1.0, diagonal) ** 0.5
        scaled = matrix / (size[:, :, None] * size[:, None])
        ridge = of.where(dead, 1.0, RIDGE)
        for index in range(scaled.shape[1]):
            scaled[:, index, index] += ridge[:, index]
        inverse = _inverse(scaled)
    return (inverse @ of.where(dead, 0.0, target / size)[:, :, None])[:, :, 0] / size


def _inverse(matrix):
    """Inverse of every matrix; not finite, rather than an error, where there is none."""
    if isinstance(matrix, Tensor):
        return torch.linalg.inv_ex(matrix).inverse
    return torch.linalg.inv_ex(torch.from_numpy(matrix)).inverse.numpy()


def iterate(trial, step, evaluate, scales, dtype: torch.dtype):
    """The last trial from a first one, and whether it is not within the tolerance yet, `(batch,)`.

    Args:
      trial: has `multipliers` and `residual`, `(batch, m)`.
      step: what a trial's multipliers should change by.
      evaluate: the trial for given multipliers.
      scales: what residuals are compared with, `(batch, m)`.
      dtype: of the fields.

    Every element of the batch stops by itself, so that the result does not depend on the others.
    """
    of = torch if isinstance(scales, Tensor) else np
    best, running = of.full_like(scales[:, 0], of.inf), True
    for _ in range(ITERATIONS):
        worst = of.amax(of.abs(trial.residual / scales), 1)
        stalled = (worst < STALLED[dtype]) & (worst > best / 2)
        running = running & (worst > TOLERANCE[dtype]) & ~stalled
        if not bool(running.any()):  # on a GPU the one point where the host waits
            break
        best = of.minimum(best, worst)
        trial = evaluate(of.where(running[:, None], trial.multipliers + step(trial), trial.multipliers))
    return trial, running
