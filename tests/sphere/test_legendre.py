"""Quadrature and Legendre functions: closed forms, exact integrals, orthogonality, the addition theorem; to degree 2700."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from emulator.sphere.legendre import equiangular, gauss_legendre, legendre

RULES = {
    "gaussian": gauss_legendre,
    "poles": lambda count: equiangular(count, True),
    "inside": lambda count: equiangular(count, False),
}
KINDS = ("scalar", "theta", "phi")


def table(kind, orders, lmax, theta):
    """`(order, degree, theta)`, degrees from the lowest order on."""
    return np.stack([each.copy() for each in legendre(kind, orders, lmax, theta)], 1)


@pytest.mark.parametrize("count", [2, 3, 64, 181, 721, 1440])
@pytest.mark.parametrize("rule", RULES)
def test_integrals_around_the_equator_and_beside_the_poles_are_exact(rule, count):
    theta, weights = RULES[rule](count)
    assert theta.shape == weights.shape == (count,) and np.all(np.diff(theta) > 0) and np.all(weights > 0)
    assert_allclose(theta + theta[::-1], math.pi, rtol=0, atol=1e-15)
    assert_allclose(weights, weights[::-1], rtol=1e-12)
    degree = 2 * count - 1 if rule == "gaussian" else count - 1
    for waves in {0, min(2, degree // 2 * 2), degree // 4 * 2, degree // 2 * 2}:
        assert_allclose(weights @ np.cos(waves * theta), 2 / (1 - waves**2), rtol=0, atol=1e-14 + 3e-16 * count)
    # ((1 + x) / 2)^degree has its whole integral in the few rows beside the north pole
    for power in {1, degree // 2, degree}:
        assert_allclose(weights @ np.cos(theta / 2) ** (2 * power), 2 / (power + 1), rtol=1e-12)


def test_functions_of_low_degree_are_those_of_the_books():
    """Varshalovich et al. 1988, 5.13, and derivatives; small ones to their own digits, within a metre of the pole too."""
    theta = np.concatenate([[0, 1e-12, 1e-9, 1e-4, np.pi], np.linspace(0.01, 3.13, 40)])
    x, s = np.cos(theta), np.sin(theta)
    a, b, c, d = (math.sqrt(n / math.pi) for n in (3 / 4, 3 / 8, 15 / 8, 15 / 32))
    e = math.sqrt(5 / math.pi) / 4
    books = {
        (0, 0): (math.sqrt(0.25 / math.pi) + 0 * x, 0 * x, 0 * x),
        (1, 0): (a * x, -a * s, 0 * x),
        (1, 1): (-b * s, -b * x, -b + 0 * x),
        (2, 0): (e * (3 * x**2 - 1), -6 * e * x * s, 0 * x),
        (2, 1): (-c * s * x, -c * np.cos(2 * theta), -c * x),
        (2, 2): (d * s**2, 2 * d * s * x, 2 * d * s),
    }
    for place, kind in enumerate(KINDS):
        found = table(kind, range(3), 3, theta)
        for (l, m), expected in books.items():
            vanishes_between = (l, m, kind) in {(1, 0, "theta"), (2, 0, "scalar"), (2, 1, "theta")}
            assert_allclose(found[m, l], expected[place], rtol=1e-14, atol=2e-16 if vanishes_between else 1e-30)
        for m in (1, 2):
            assert not np.any(found[m, :m])


@pytest.mark.parametrize("lmax", [3, 90, 1441, 2701])
def test_the_addition_theorem_holds_everywhere(lmax):
    """Sums over orders at one place: (2 l + 1) / 4 pi, and l (l + 1) times that for both components of the gradient.

    At the latitudes nearest the poles P_mm is below 1e-308 where functions of its order and higher degree are not.
    """
    theta = np.array([0, 0.3 / lmax, 0.01, 0.1, 0.3, 0.6, 1.2, math.pi / 2, 2.9])
    orders, l = range(lmax), lmax - 1
    twice = np.where(np.arange(lmax) > 0, 2.0, 1.0)
    sums = []
    for kind in KINDS:
        for last in legendre(kind, orders, lmax, theta):
            pass
        sums.append(twice @ last**2)
    expected = (2 * l + 1) / (4 * math.pi)
    assert_allclose(sums[0], expected, rtol=1e-10)
    assert_allclose(sums[1] + sums[2], expected * l * (l + 1), rtol=1e-10)


@pytest.mark.parametrize(
    ("count", "orders"), [(48, range(48)), (721, range(1)), (721, range(360, 362)), (1440, [1380])]
)
def test_functions_are_orthonormal_on_gaussian_rows(count, orders):
    theta, weights = gauss_legendre(count)
    for m in orders:
        functions = table("scalar", range(m, m + 1), count, theta)[0]
        gram = (functions * (2 * math.pi * weights)) @ functions.T
        assert_allclose(gram, np.eye(count - m), rtol=0, atol=2e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_some_orders_are_those_of_all(kind):
    theta, lmax = np.linspace(0.001, 1.5, 30), 200
    whole = table(kind, range(lmax), lmax, theta)
    for orders in (range(0, 3), range(1, 4), range(90, 140), range(199, 200)):
        part = table(kind, orders, lmax, theta)
        assert part.shape == (len(orders), lmax - orders.start, len(theta))
        assert_allclose(part, whole[orders.start : orders.stop, orders.start :], rtol=1e-12, atol=1e-12)
