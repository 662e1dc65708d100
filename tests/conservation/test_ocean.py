"""The slab ocean takes the flux that the atmosphere gave, so that both together keep their energy."""

import pytest
import torch
from planets import GRIDS, LEVELS, STEP, VARIANCES, make_atmosphere, random_step

from emulator.conservation import Energy, SchemeOptions, build, fluxes
from emulator.conservation.ocean import Ocean
from emulator.planet.slab import heat_capacity

HEAT = heat_capacity(1.0)


def setting(kind="sequential", dtype=torch.float64, batch=2, fraction=None):
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    state0, state1 = random_step(atmosphere, dtype, batch=batch)
    scheme = build(SchemeOptions(kind=kind), atmosphere, state1, VARIANCES)
    final = state1 | scheme(state0, state1)[0]
    fraction = torch.ones(8, 14, dtype=dtype) if fraction is None else fraction
    return Ocean(scheme.budgets["energy"], 50.0, fraction), state0, final


def test_warming_of_a_slab():
    """100 W m-2 for six hours into 50 m of sea water."""
    ocean, _, state1 = setting()
    state1 = state1 | {name: torch.zeros_like(state1[name]) for name in fluxes.SURFACE_FLUXES}
    state1["mean_surface_net_short_wave_radiation_flux"] += 80
    before = torch.full((2, 8, 14), 290.0, dtype=torch.float64)
    after = ocean.step(before, state1, convergence=20.0)
    torch.testing.assert_close(after - before, torch.full_like(before, 100 * STEP / (HEAT * 50)), rtol=1e-10, atol=0)


@pytest.mark.parametrize("kind", ["sequential", "projection"])
def test_coupled_energy_closes(kind):
    fraction = torch.rand(8, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ocean, state0, state1 = setting(kind, fraction=fraction)
    before = 285 + 10 * torch.rand(2, 8, 14, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    currents = 30 * torch.randn(8, 14, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    after = ocean.step(before, state1, currents)
    residual = ocean.coupled_residual((state0, state1), (before, after), currents)
    assert float(residual.abs().max() / STEP) < 1e-6
    assert float((after - before).abs().max()) > 1e-3


def test_coupled_energy_closes_in_float32():
    """A step's warming is some hundred units in the last place of 290 K: unbiased rounding keeps its mean."""
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    _, state1 = random_step(atmosphere, torch.float32, batch=1)
    ocean = Ocean(Energy(atmosphere), 200.0, torch.ones(8, 14))
    calm = {name: torch.zeros_like(state1[name]) for name in fluxes.SURFACE_FLUXES}
    calm["mean_surface_sensible_heat_flux"] = calm["mean_surface_sensible_heat_flux"] + 0.2
    before = torch.full((1, 8, 14), 290.0)
    after = ocean.step(before, state1 | calm)
    gained = float((after.double() - before.double()).mean()) * HEAT * 200 / STEP
    assert abs(gained - 0.2) < 0.1 * 0.2
    assert torch.equal(before + torch.full_like(before, 0.2 * STEP / (HEAT * 200)), before)  # plain addition loses it


def test_prescribed_ocean_tells_the_heat_it_needs():
    """The slab with the implied convergence gives the prescribed temperatures."""
    ocean, state0, state1 = setting()
    before = torch.full((2, 8, 14), 290.0, dtype=torch.float64)
    after = before + 0.1 * torch.randn(2, 8, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    needed = ocean.implied_convergence(before, after, state1)
    torch.testing.assert_close(ocean.step(before, state1, needed), after, rtol=1e-13, atol=0)
    residual = ocean.coupled_residual((state0, state1), (before, after), needed)
    assert float(residual.abs().max() / STEP) < 1e-6


@pytest.mark.parametrize(
    ("depth", "fraction", "message"),
    [
        (50.0, torch.ones(8, 13), "ocean's fraction of shape"),
        (50.0, 1.5 * torch.ones(8, 14), "fraction within 0 to 1"),
        (0.0, torch.ones(8, 14), "positive depth"),
    ],
)
def test_wrong_oceans_are_refused(depth, fraction, message):
    ocean, _, _ = setting()
    with pytest.raises(ValueError, match=message):
        Ocean(ocean.energy, depth, fraction)
