"""4D-Var through the emulator: the state at a window's first time from which the model passes all observations best.

The model is a strong constraint. `lbfgs` follows the gradient of the full cost, which is torch's through every step of the
emulator; `gauss_newton` is the incremental form, with conjugate gradients on the quadratic cost about the last trajectory,
and needs a model that torch can differentiate twice (Le Dimet and Talagrand 1986; Courtier et al. 1994). With a
window of one time it is 3D-Var.
"""

import dataclasses
from typing import Literal

from emulator.assimilation.kinds.registry import assimilation
from emulator.assimilation.kinds.variational import Cost, gauss_newton, quasi_newton
from emulator.assimilation.window import Analysis, Window
from emulator.options import Options, option


@dataclasses.dataclass(frozen=True)
class FourDimensionalOptions(Options):
    """The cost of a window of several times, minimised through the model."""

    kind: Literal["4dvar"] = option("4dvar")
    method: Literal["lbfgs", "gauss_newton"] = option("lbfgs", "lbfgs needs the model's adjoint alone")
    outer: int = option(2, "linearisations about the last trajectory, of gauss_newton", minimum=1)
    tolerance: float = option(1e-2, "of the gradient or of each linear system, relative", above=0, below=1)
    iterations: int = option(20, "of L-BFGS, or of conjugate gradients in each linearisation, at most", minimum=1)


@assimilation("4dvar", FourDimensionalOptions)
class FourDimensional:
    """See the file's docstring; needs a static covariance and a model with gradients."""

    ensemble, static, several_times = False, True, True

    def __init__(self, options: FourDimensionalOptions):
        self.options = options

    def analyse(self, window: Window) -> Analysis:
        options = self.options
        if options.method == "lbfgs":
            return quasi_newton(Cost(window), options.tolerance, options.iterations)
        return gauss_newton(Cost(window), options.outer, options.tolerance, options.iterations)
