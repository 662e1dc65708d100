"""Newton's method on the few numbers that close the budgets: a handful per element of the batch, float64.

They are tensors, or arrays of NumPy where compiled kernels form them.
"""

import numpy as np
import torch
from torch import Tensor

ITERATIONS = 12
# Where asking whether all are done would have the host wait for a GPU: one more than was ever seen to be needed.
UNASKED = 6
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
    if not isinstance(matrix, Tensor):
        pairs = zip(matrix.tolist(), target.tolist(), strict=True)
        return np.array([_eliminate(rows, values) for rows, values in pairs]).reshape(target.shape)
    with torch.no_grad():
        diagonal = matrix.diagonal(dim1=1, dim2=2).abs()
        dead = diagonal < TINY
        size = torch.where(dead, 1.0, diagonal).sqrt()
        scaled = matrix / (size.unsqueeze(1) * size.unsqueeze(2))
        inverse = torch.linalg.inv_ex(scaled + torch.diag_embed(torch.where(dead, 1.0, RIDGE))).inverse
    target = (target / size).masked_fill(dead, 0.0)
    return (inverse @ target.unsqueeze(2)).squeeze(2) / size


def _eliminate(matrix: list[list[float]], target: list[float]) -> list[float]:
    """The same for one system, by Gauss and Jordan without pivots: what is scaled is nearly symmetric, or triangular.

    In plain Python, since a call of a library takes longer than three equations do.
    """
    count = range(len(target))
    dead = [abs(matrix[n][n]) < TINY for n in count]
    size = [1.0 if dead[n] else abs(matrix[n][n]) ** 0.5 for n in count]
    rows = [[matrix[i][j] / (size[i] * size[j]) for j in count] for i in count]
    right = [0.0 if dead[i] else target[i] / size[i] for i in count]
    for n in count:
        rows[n][n] += 1.0 if dead[n] else RIDGE
    for n in count:
        pivot = rows[n][n] or TINY
        for i in count:
            if i != n and rows[i][n] != 0:
                factor = rows[i][n] / pivot
                rows[i] = [x - factor * y for x, y in zip(rows[i], rows[n], strict=True)]
                right[i] -= factor * right[n]
    return [right[n] / (rows[n][n] or TINY) / size[n] for n in count]


def iterate(trial, step, evaluate, scales, dtype: torch.dtype, asks: bool | None = None):
    """The last trial from a first one, and whether it is short of the tolerance, `(batch,)`.

    Args:
      trial: has `multipliers` and `residual`, `(batch, m)`.
      step: what a trial's multipliers should change by.
      evaluate: the trial for given multipliers.
      scales: what residuals are compared with, `(batch, m)`.
      dtype: of the fields.
      asks: whether the host asks if all have stopped; None: where it does not have to wait for a GPU to be told.

    Every element of the batch stops by itself, so that the result does not depend on the others, nor on asking.
    """
    of = torch if isinstance(scales, Tensor) else np
    asks = (of is np or scales.device.type == "cpu") if asks is None else asks
    best, running = of.full_like(scales[:, 0], of.inf), True
    for _ in range(ITERATIONS if asks else UNASKED):
        worst = of.amax(of.abs(trial.residual / scales), 1)
        stalled = (worst < STALLED[dtype]) & (worst > best / 2)
        running = running & (worst > TOLERANCE[dtype]) & ~stalled  # what is no number does not run
        if asks and not bool(running.any()):
            break
        best = of.minimum(best, worst)
        trial = evaluate(of.where(running[:, None], trial.multipliers + step(trial), trial.multipliers))
    return trial, running | (worst != worst)
