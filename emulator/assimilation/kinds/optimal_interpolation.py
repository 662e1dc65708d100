"""Optimal interpolation: the best linear unbiased estimate, solved in the space of the observations.

`x_a = x_b + B H^T (H B H^T + R)^-1 (y - H(x_b))` with H linearised about the background (Gandin 1963; Daley 1991, ch. 4).
The system, one equation for each observation, is solved by conjugate gradients for all of them together, without a selection
of observations around each cell; preconditioned by the errors of the observations (Cohn et al. 1998).
"""

import dataclasses
from typing import Literal

import torch

from emulator.assimilation.kinds.registry import assimilation
from emulator.assimilation.linear import conjugate_gradients, linearised
from emulator.assimilation.window import Analysis, Window
from emulator.options import Options, option


@dataclasses.dataclass(frozen=True)
class OptimalInterpolationOptions(Options):
    """One linear solution in the space of the observations."""

    kind: Literal["optimal_interpolation"] = option("optimal_interpolation")
    tolerance: float = option(1e-3, "of the residual of the linear system, relative", above=0, below=1)
    iterations: int = option(100, "of conjugate gradients, at most", minimum=1)


@assimilation("optimal_interpolation", OptimalInterpolationOptions)
class OptimalInterpolation:
    """See the file's docstring; needs a static covariance, and a window of one time."""

    ensemble, static, several_times = False, True, False

    def __init__(self, options: OptimalInterpolationOptions):
        self.options = options

    def analyse(self, window: Window) -> Analysis:
        background, covariance, error = window.background.double(), window.covariance, window.error

        def departures(control):
            """What the observations change in units of their errors."""
            return window.equivalents(background + covariance(control))[0] / error

        about = linearised(departures, background.new_zeros(1, covariance.size))
        solved = conjugate_gradients(
            lambda w: w + about.tangent(about.adjoint(w)),
            window.value / error - about.value,
            self.options.tolerance,
            self.options.iterations,
        )
        with torch.no_grad():
            state = background + covariance(about.adjoint(solved.x))
        found = {"iterations": float(solved.iterations), "residual": solved.residual}
        return Analysis(state.to(window.background.dtype), found)
