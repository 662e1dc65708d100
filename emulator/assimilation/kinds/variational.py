"""Minimising the cost of a variational analysis, `J(v) = v.v / 2 + |R^-1/2 (y - H(M(x_b + L v)))|^2 / 2`.

v is the control variable that the square root L of the background's covariance turns into an increment, which
preconditions the problem: the Hessian of the first term is 1 (Courtier et al. 1994; Lorenc 2003).
"""

import torch
from torch import Tensor

from emulator.assimilation.linear import conjugate_gradients, linearised
from emulator.assimilation.window import Analysis, Window


class Cost:
    """The cost of a window by its control vector `(1, size)` float64, and what its terms are."""

    def __init__(self, window: Window):
        self.window, self.background = window, window.background.double()
        self.value, self.error = window.value, window.error

    def state(self, control: Tensor) -> Tensor:
        """`x_b + L v`, float64; the background itself for 0."""
        return self.background + self.window.covariance(control)

    def departures(self, control: Tensor) -> Tensor:
        """`R^-1/2 H(M(x_b + L v))`, `(n,)` float64."""
        start = self.state(control).to(self.window.background.dtype)
        return self.window.equivalents(start)[0] / self.error

    def terms(self, control: Tensor) -> tuple[Tensor, Tensor]:
        """The background's and the observations' part."""
        misfit = self.value / self.error - self.departures(control)
        return (control * control).sum() / 2, (misfit * misfit).sum() / 2

    def __call__(self, control: Tensor) -> Tensor:
        return sum(self.terms(control))

    def analysis(self, control: Tensor, found: dict[str, float]) -> Analysis:
        """The state of a control vector, with what the cost was and is."""
        with torch.no_grad():
            before = float(self(torch.zeros_like(control)))
            of_background, of_observations = map(float, self.terms(control))
            state = self.state(control).to(self.window.background.dtype)
        costs = {"cost_before": before, "cost_background": of_background, "cost_observations": of_observations}
        return Analysis(state, found | costs)


def gauss_newton(cost: Cost, outer: int, tolerance: float, inner: int) -> Analysis:
    """Incremental: `outer` times the quadratic cost about the last trajectory, each minimised by conjugate gradients.

    Its system is `(1 + G^T G) dv = G^T (d - G'...) - v` with G the derivative of the departures. Needs operators and a
    model that torch can differentiate twice.
    """
    control = cost.background.new_zeros(1, cost.window.covariance.size)
    iterations, residual = 0, 0.0
    for _ in range(outer):
        about = linearised(cost.departures, control)
        right = about.adjoint(cost.value / cost.error - about.value) - control
        solved = conjugate_gradients(lambda v, a=about: v + a.adjoint(a.tangent(v)), right, tolerance, inner)
        control, iterations, residual = control + solved.x, iterations + solved.iterations, solved.residual
    return cost.analysis(control, {"iterations": float(iterations), "residual": residual})


def quasi_newton(cost: Cost, tolerance: float, iterations: int) -> Analysis:
    """L-BFGS on the full cost (Liu and Nocedal 1989), until the gradient has shrunk by `tolerance`; needs adjoints alone."""
    control = cost.background.new_zeros(1, cost.window.covariance.size).requires_grad_()
    with torch.enable_grad():
        first = float(torch.autograd.grad(cost(control), control)[0].norm())
    search = torch.optim.LBFGS(
        [control],
        max_iter=iterations,
        max_eval=2 * iterations,
        history_size=20,
        line_search_fn="strong_wolfe",
        tolerance_grad=tolerance * first / control.numel() ** 0.5,  # torch compares the largest entry
        tolerance_change=0.0,
    )

    def closure():
        value = cost(control)
        (control.grad,) = torch.autograd.grad(value, control)  # of nothing else: the model's weights need none
        return value

    with torch.enable_grad():
        search.step(closure)
    state = search.state[control]
    found = {"iterations": float(state["n_iter"]), "residual": float(control.grad.norm()) / first if first else 0.0}
    return cost.analysis(control.detach(), found | {"evaluations": float(state["func_evals"])})
