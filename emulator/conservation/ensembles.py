"""How much a projection sharpens an ensemble: the variance that is left once the budgets are known to close.

For linear budgets `G x = b` and a Gaussian error of covariance Sigma, what is known after the projection has covariance
`Sigma - Sigma G^T (G Sigma G^T)^-1 G Sigma` (ProbConserv; Hansen et al. 2023), whatever the members are. Assimilation, whose
background errors these variances are, will use it; no configuration reaches it yet.
"""

import itertools

import torch
from torch import Tensor

from emulator.conservation.cells import State, on_levels
from emulator.conservation.multipliers import REFERENCE_PRESSURE, Problem
from emulator.conservation.projection import Projection


def prior_variance(scheme: Projection, state0: State, state1: State) -> dict[str, Tensor]:
    """Error variance of every value that the projection's norm stands for, the field's units squared.

    The norm weighs cells by area and layers by mass, so that smaller cells are less certain: a value's variance is the
    control's, times the mean cell's share of area and mass over its own.
    """
    problem = _problem(scheme, state0, state1)
    air = scheme.atmosphere
    share = air.area.numel() * air.area.to(state1[scheme.setup.controls[0]].device)
    result = {}
    for name in scheme.setup.controls:
        weight = share
        if on_levels(name):
            layers = air.thickness(air.surface_pressure(state1), state1[name]).to(torch.float64)
            weight = share * layers / REFERENCE_PRESSURE
        result[name] = (problem.spread(name) / weight).expand_as(state1[name])
    return result


def reduced_variance(scheme: Projection, state0: State, state1: State) -> dict[str, Tensor]:
    """`prior_variance` less what the budgets, linearised at `state1` and without bounds, tell: float64, by control.

    Raises `ValueError` for a projection with bands.
    """
    if scheme.setup.bands is not None:
        raise ValueError("Expected a projection without bands for the reduced variance, got one with bands")
    with torch.no_grad():
        problem = _problem(scheme, state0, state1)
        matrix = problem.jacobian(None, {})
        size = matrix.diagonal(dim1=1, dim2=2).sqrt()
        inverse = torch.linalg.inv(matrix / (size.unsqueeze(1) * size.unsqueeze(2)))
        inverse = inverse / (size.unsqueeze(1) * size.unsqueeze(2))
        result = prior_variance(scheme, state0, state1)
        cells = scheme.atmosphere.area.numel()
        for name in scheme.setup.controls:
            levels = on_levels(name)
            scale = REFERENCE_PRESSURE / scheme.atmosphere.constants.gravity if levels else 1.0
            reach = scale * problem.spread(name).to(torch.float64)
            owners = [index for index, gradient in enumerate(problem.right) if name in gradient]
            known = torch.zeros_like(result[name])
            for i, j in itertools.product(owners, owners):
                product = (reach * problem.right[i][name]) * (reach * problem.right[j][name])
                known = known + scheme.atmosphere.spread(inverse[:, i, j], levels) * product
            result[name] = result[name] - known / cells
    return result


def _problem(scheme: Projection, state0: State, state1: State) -> Problem:
    scales = {name: budget.scale(state0) for name, budget in scheme.budgets.items()}
    return Problem(scheme.setup, (state0, state1, state1), None, scales)
