"""Ten thousand steps of a toy model: with a scheme dry mass stays, without it drifts out of sight."""

import numpy as np
import pytest
import torch
from planets import CONSTANTS, STEP, VARIANCES, Auditor

from emulator.conservation import Atmosphere, SchemeOptions, build, fluxes
from emulator.planet.grid import Grid
from emulator.planet.vertical import Levels

STEPS = 10_000
SLOW = (pytest.mark.slow, pytest.mark.timeout(1800))


def toy(atmosphere, seed=0):
    """A model that relaxes to a resting state, stirs at random, and leaks a little mass, water and heat each step."""
    random = torch.Generator().manual_seed(seed)
    space = tuple(atmosphere.area.shape)
    rest = {
        "surface_pressure": torch.full((1, *space), 98_000.0),
        "temperature": torch.linspace(230, 285, 3).reshape(1, 3, 1, 1).expand(1, 3, *space).clone(),
        "specific_humidity": torch.linspace(2e-3, 8e-3, 3).reshape(1, 3, 1, 1).expand(1, 3, *space).clone(),
    }
    size = {"surface_pressure": (30.0, 0.5), "temperature": (0.3, 2e-3), "specific_humidity": (3e-5, 1e-6)}
    means = {fluxes.PRECIPITATION: 3e-5, fluxes.EVAPORATION: -3e-5, fluxes.LATENT_HEAT: -75.0}
    means |= dict(
        zip((*fluxes.TOP_FLUXES, *fluxes.SURFACE_FLUXES[:3]), (240.0, -235.0, 160.0, -60.0, -20.0), strict=True)
    )

    def step(state):
        following = {}
        for name, field in state.items():
            noise, leak = size[name]
            stirred = noise * torch.randn(field.shape, generator=random) + leak
            # Relaxation of the pattern alone: the mean of surface pressure is free to wander.
            target = rest[name] - rest[name].mean() + field.mean() if name == "surface_pressure" else rest[name]
            following[name] = field + 0.05 * (target - field) + stirred
        return following, {name: mean * torch.ones(1, *space) for name, mean in means.items()}

    return rest, step


@pytest.mark.parametrize(
    "options",
    [
        SchemeOptions(budgets=("dry_air",)),
        pytest.param(SchemeOptions(kinetic=False), marks=SLOW),
        pytest.param(SchemeOptions(kind="projection", kinetic=False), marks=SLOW),
    ],
    ids=["dry air alone", "sequential", "projection"],
)
def test_dry_mass_after_ten_thousand_steps(options):
    grid = Grid.gaussian(4, 6)
    atmosphere = Atmosphere(torch.as_tensor(grid.area), Levels.sigma([0, 0.3, 0.7, 1]), CONSTANTS, None, STEP)
    start, step = toy(atmosphere)
    auditor = Auditor(atmosphere, kinetic=False)
    scheme = build(options, atmosphere, {*start, *step(start)[1]}, VARIANCES)
    anchor, mass = scheme.anchor(start), auditor.dry_mass(start)
    state, worst, saturated = start, 0.0, 0.0
    watched = {"sequential": "saturation_water", "projection": "saturation_projection"}[options.kind]
    with torch.no_grad():
        for number in range(STEPS):
            predicted, rates = step(state)
            changed, record = scheme(state, predicted | rates, anchor)
            state = {name: changed.get(name, value) for name, value in predicted.items()}
            anchor = scheme.advance(anchor)
            saturated += float(record.get(watched, record["saturation_specific_humidity"])[0])
            if number % 500 == 499:
                worst = max(worst, abs(float(auditor.dry_mass(state)[0] / mass[0]) - 1))
        assert worst < 1e-6
        assert saturated == 0
        assert all(bool(torch.isfinite(value).all()) for value in state.values())

        state = start
        for _ in range(STEPS // 10):
            state, _ = step(state)
    drift = abs(float(auditor.dry_mass(state)[0] / mass[0]) - 1)
    assert drift > 1e-3
    np.testing.assert_array_less(1000 * worst, drift)
