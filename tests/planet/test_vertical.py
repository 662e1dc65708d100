import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from emulator.planet.vertical import Levels

SIGMA = Levels.sigma([0, 0.1, 0.4, 0.8, 1])
HYBRID = Levels.hybrid([0, 5000, 10000, 3000, 0], [0, 0, 0.2, 0.7, 1])
PRESSURE = Levels.pressure([50, 250, 500, 850, 1000])


@hypothesis.given(st.floats(5e4, 1.08e5))
def test_layers_fill_the_column(pressure):
    ps = np.array([pressure])
    for levels, top in ((SIGMA, 0), (HYBRID, 0), (PRESSURE, 5000)):
        thickness = np.stack(levels.thickness(ps))
        assert (thickness >= 0).all()
        np.testing.assert_allclose(thickness.sum(0), pressure - top, rtol=1e-12)


def test_pressure_layers_without_a_surface_are_the_trapezoidal_rule():
    values = np.array([50, 250, 500, 850, 1000]) * 100.0
    field = np.array([3.0, 1.0, 4.0, 1.0, 5.0])
    thickness = np.stack(PRESSURE.thickness(np.array(1e5), cut=False))
    np.testing.assert_allclose(thickness @ field, np.trapezoid(field, values), rtol=1e-13)


def test_levels_below_ground_vanish_and_the_lowest_reaches_the_ground():
    thickness = np.stack(PRESSURE.thickness(np.array([60000.0, 103000.0])))
    assert thickness[3, 0] == 0 and thickness[4, 0] == 0
    np.testing.assert_allclose(thickness[4, 1], 103000 - 92500)


@pytest.mark.parametrize("levels", [SIGMA, HYBRID, PRESSURE], ids=["sigma", "hybrid", "pressure"])
def test_tensors_and_arrays_agree(levels):
    ps = np.array([[101325.0, 70000.0]])
    for array, tensor in zip(levels.thickness(ps), levels.thickness(torch.from_numpy(ps)), strict=True):
        np.testing.assert_allclose(tensor.numpy(), np.broadcast_to(array, ps.shape), rtol=0)


def test_labels():
    assert PRESSURE.label(2) == "500 hPa"
    assert Levels.sigma([0, 0.42, 0.6, 1]).label(1) == "510 hPa (sigma 0.51)"
    assert HYBRID.label(3) == "level 4"


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Levels.sigma([0, 0.5, 0.4, 1]), "increasing"),
        (lambda: Levels.pressure([500]), "at least 2"),
        (lambda: Levels.pressure([1000, 500]), "from the top"),
        (lambda: Levels("height", np.array([1.0]), np.zeros(2), np.array([0, 1.0])), "pressure, sigma or hybrid"),
        (lambda: Levels("sigma", np.array([0.5]), np.zeros(3), np.zeros(3)), "2 interface coefficients"),
    ],
)
def test_bad_levels_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
