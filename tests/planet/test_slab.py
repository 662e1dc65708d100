"""The slab in closed form, in NumPy and in torch."""

import numpy as np
import pytest
import torch

from emulator.planet import slab
from emulator.planet.variables import variable


def test_a_steady_flux_warms_by_flux_times_time_over_heat_capacity():
    """100 W m-2 for a day into 50 m: 86400 s x 100 / (1025 x 3991.868 x 50) = 0.042232 K."""
    assert slab.warming(60.0, 40.0, 50.0, 86400.0) == pytest.approx(0.0422322, rel=1e-5)
    assert slab.heat_capacity(1.0) == pytest.approx(1025 * 3991.86795711963)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_the_convergence_that_a_change_implies_brings_it_about(kind):
    draw = np.random.default_rng(0)
    change, flux, depth = (kind(draw.uniform(low, high, (4, 5))) for low, high in ((-1, 1), (-300, 300), (10, 200)))
    convergence = slab.implied_convergence(change, flux, depth, 21600.0)
    np.testing.assert_allclose(slab.warming(flux, convergence, depth, 21600.0), change, rtol=0, atol=1e-12)


def test_cells_of_half_land_or_more_have_none():
    np.testing.assert_array_equal(slab.is_sea(np.array([0, 0.49, 0.5, 1])), [True, True, False, False])


def test_its_fields_are_in_the_table():
    assert [variable(name).units for name in (slab.DEPTH, slab.CONVERGENCE)] == ["m", "W m-2"]
    assert variable(slab.CONVERGENCE).cell == "mean"
