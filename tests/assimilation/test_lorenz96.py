"""Cycles of Lorenz-96 with every variable observed every 0.05 with errors of 1: analysis errors of about 0.2.

Published with tuned inflation: 0.18 to 0.22 for ensemble filters (Sakov and Oke 2008; Whitaker and Hamill 2002; Hunt et al.
2007), about 0.2 for 4D-Var with windows of several observations (Fertig et al. 2007).
"""

import numpy as np
import pytest
import torch
from lorenz96 import COUNT, Ring, climatological, everywhere, forecast, nature, step

from emulator.assimilation.kinds.registry import build
from emulator.assimilation.window import Window


def start(members: int, truth: torch.Tensor, generator) -> torch.Tensor:
    """Members about the truth with errors of observations."""
    return truth + torch.from_numpy(generator.standard_normal((members, 1, 1, COUNT)))


def letkf_errors(steps: int, members: int = 20, seed: int = 1) -> np.ndarray:
    """Root mean square error of the analysis of each time."""
    truth, generator = nature(steps, seed), np.random.default_rng(seed)
    analysis = build({"kind": "letkf", "radius_km": 15.0, "inflation": 1.06})
    states, errors = start(members, truth[:1], generator), []
    for true in truth:
        window = Window(states, [everywhere(true, generator)], places=Ring())
        found = analysis.analyse(window).state
        errors.append(float((found.mean(0) - true).square().mean().sqrt()))
        states = step(found)
    return np.array(errors)


def variational_errors(steps: int, window_of: int, config: dict, scale: float, seed: int = 2) -> np.ndarray:
    """Root mean square error of the analysed trajectories of each time."""
    truth, generator = nature(steps, seed), np.random.default_rng(seed)
    analysis, covariance = build(config), climatological(scale)
    state, errors = start(1, truth[:1], generator), []
    for first in range(0, steps, window_of):
        times = truth[first : first + window_of]
        observed = [everywhere(true, generator) for true in times]
        window = Window(state, observed, lambda x: forecast(x, window_of), covariance)
        found = forecast(analysis.analyse(window).state, len(times))
        errors += [float((x[0] - true).square().mean().sqrt()) for x, true in zip(found, times, strict=True)]
        state = step(found[-1])
    return np.array(errors)


NEWTON = {"kind": "4dvar", "method": "gauss_newton", "outer": 2, "tolerance": 1e-3, "iterations": 30}


def test_letkf_reaches_the_published_error_soon():
    errors = letkf_errors(160)
    assert 0.1 < np.sqrt((errors[60:] ** 2).mean()) < 0.26
    assert errors[0] > 0.2


def test_four_dimensional_analyses_reach_it_too():
    errors = variational_errors(96, 8, NEWTON, 0.12)
    assert 0.1 < np.sqrt((errors[32:] ** 2).mean()) < 0.32


@pytest.mark.slow
def test_a_free_run_forgets_the_truth():
    errors = variational_errors(160, 8, {"kind": "none"}, 0.1)
    assert errors[-40:].mean() > 2.5


@pytest.mark.slow
def test_letkf_keeps_the_published_error():
    errors = letkf_errors(1500)
    assert np.sqrt((errors[400:] ** 2).mean()) == pytest.approx(0.2, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [NEWTON, {"kind": "4dvar", "tolerance": 1e-3, "iterations": 40}], ids=["newton", "lbfgs"]
)
def test_four_dimensional_analyses_keep_it(config):
    errors = variational_errors(800, 8, config, 0.12)
    assert np.sqrt((errors[200:] ** 2).mean()) == pytest.approx(0.22, abs=0.06)


@pytest.mark.slow
def test_three_dimensional_analyses_are_about_twice_as_far_off():
    errors = variational_errors(1000, 1, {"kind": "3dvar", "outer": 1}, 0.15)
    assert 0.3 < np.sqrt((errors[200:] ** 2).mean()) < 0.6
