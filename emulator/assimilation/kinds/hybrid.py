"""The hybrid gain of Penny (2014): an ensemble's analysis, whose mean the static covariance draws on to the observations.

An ensemble's covariance knows the flow but only as many directions as it has members, the static one all directions but no
flow. With their gains K_e and K_s and a weight b, the mean becomes

    x_a = x_e + b K_s (y - H(x_e)),  x_e = x_b + K_e (y - H(x_b)),

by the gain `K_e + b K_s (1 - H K_e)`; the members' departures from it are those of LETKF.
"""

import dataclasses
from typing import Literal

from emulator.assimilation.geometry import Geometry
from emulator.assimilation.kinds.letkf import Letkf, LetkfOptions
from emulator.assimilation.kinds.optimal_interpolation import OptimalInterpolation, OptimalInterpolationOptions
from emulator.assimilation.kinds.registry import assimilation
from emulator.assimilation.window import Analysis, Window
from emulator.options import option


@dataclasses.dataclass(frozen=True)
class HybridOptions(LetkfOptions):
    """LETKF, and optimal interpolation of its mean."""

    kind: Literal["hybrid"] = option("hybrid")
    static_weight: float = option(0.5, "of the static covariance's increment of the mean", above=0, maximum=1)
    tolerance: float = option(1e-2, "of the residual of its linear system, relative", above=0, below=1)
    iterations: int = option(100, "of conjugate gradients, at most", minimum=1)


@assimilation("hybrid", HybridOptions)
class Hybrid:
    """See the file's docstring; needs members, a static covariance, and a window of one time."""

    ensemble, static, several_times = True, True, False

    def __init__(self, options: HybridOptions):
        self.weight, self._members = options.static_weight, Letkf(options)
        of_mean = OptimalInterpolationOptions(tolerance=options.tolerance, iterations=options.iterations)
        self._mean = OptimalInterpolation(of_mean)

    def expect(self, geometry: Geometry) -> None:
        """Raises `ValueError` as LETKF does."""
        self._members.expect(geometry)

    def analyse(self, window: Window) -> Analysis:
        members = self._members.analyse(window)
        mean = members.state.double().mean(0, keepdim=True)
        drawn = self._mean.analyse(dataclasses.replace(window, background=mean))
        state = members.state.double() + self.weight * (drawn.state - mean)
        return Analysis(state.to(window.background.dtype), members.diagnostics | drawn.diagnostics)
