"""3D-Var: the state of one time that weighs its distance from the background against that from the observations.

For linear operators it is optimal interpolation, found in the space of the control variable; for others the operators are
linearised anew about the last state (`outer`), as incremental systems do (Courtier et al. 1994).
"""

import dataclasses
from typing import Literal

from emulator.assimilation.kinds.registry import assimilation
from emulator.assimilation.kinds.variational import Cost, gauss_newton
from emulator.assimilation.window import Analysis, Window
from emulator.options import Options, option


@dataclasses.dataclass(frozen=True)
class ThreeDimensionalOptions(Options):
    """Gauss-Newton with conjugate gradients on the cost of one time."""

    kind: Literal["3dvar"] = option("3dvar")
    outer: int = option(2, "linearisations about the last state", minimum=1)
    tolerance: float = option(1e-3, "of the residual of each linear system, relative", above=0, below=1)
    iterations: int = option(60, "of conjugate gradients in each, at most", minimum=1)


@assimilation("3dvar", ThreeDimensionalOptions)
class ThreeDimensional:
    """See the file's docstring; needs a static covariance, and a window of one time."""

    ensemble, static, several_times = False, True, False

    def __init__(self, options: ThreeDimensionalOptions):
        self.options = options

    def analyse(self, window: Window) -> Analysis:
        return gauss_newton(Cost(window), self.options.outer, self.options.tolerance, self.options.iterations)
