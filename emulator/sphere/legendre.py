"""Latitudes, quadrature weights and associated Legendre functions in float64: NumPy alone, to degrees in the thousands."""

import math
from collections.abc import Iterator

import numpy as np

RADIX = 960  # binary digits by which numbers that float64 cannot hold are scaled
LARGE = 2.0 ** (RADIX // 2)
CHECKED = 16  # degrees after which numbers may have to be scaled anew; in as many they grow by less than 2^128


def gauss_legendre(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Colatitudes of the Gaussian rows in radians, north to south, and their weights summing to 2: each `(count,)`.

    Newton's steps in the colatitude, from Tricomi's asymptotic zeros. NumPy's `leggauss` solves an eigenvalue problem, which
    takes a hundred times as long for 721 rows, and its weights beside the poles are wrong by 3e-9 of themselves.
    """
    theta = (np.arange(1, (count + 1) // 2 + 1) - 0.25) * (math.pi / (count + 0.5))
    theta += 1 / (8 * (count + 0.5) ** 2 * np.tan(theta))
    for _ in range(4):
        value, slope = _polynomial(count, theta)
        theta -= value / slope
    if count % 2:
        theta[-1] = math.pi / 2
    weights = 2 / _polynomial(count, theta)[1] ** 2
    north = slice(count // 2)
    return np.concatenate([theta, math.pi - theta[north][::-1]]), np.concatenate([weights, weights[north][::-1]])


def _polynomial(degree: int, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P_degree(cos theta) and its derivative by theta, by differences of successive degrees: exact beside the pole too."""
    fall = 2 * np.sin(theta / 2) ** 2  # 1 - cos(theta)
    value, difference = np.ones_like(theta), np.zeros_like(theta)
    for l in range(1, degree + 1):
        difference = ((l - 1) * difference - (2 * l - 1) * fall * value) / l
        value = value + difference
    return value, degree * (difference - fall * value) / np.sin(theta)


def equiangular(count: int, poles: bool) -> tuple[np.ndarray, np.ndarray]:
    """As `gauss_legendre`, of rows at equal angles: Clenshaw-Curtis with rows at both poles, Fejer's first rule without.

    Both integrate the interpolating sum of cosines (Waldvogel 2006).
    """
    spaces = count - 1 if poles else count
    theta = (np.arange(count) + (0 if poles else 0.5)) * (math.pi / spaces)
    j = np.arange(1, spaces // 2 + 1)
    share = np.where(
        poles & (2 * j == spaces), 1.0, 2.0
    )  # without rows at the poles this last cosine is 0 in every row
    weights = (1 - np.cos(2 * np.outer(theta, j)) @ (share / (4.0 * j**2 - 1))) * (2 / spaces)
    if poles:
        weights[[0, -1]] /= 2
    return theta, weights


def legendre(kind: str, orders: range, lmax: int, theta: np.ndarray) -> Iterator[np.ndarray]:
    """Associated Legendre functions, orthonormal over the sphere and with the Condon-Shortley phase, degree by degree.

    Yields for the degrees l = orders.start ... lmax - 1 arrays `(order, theta)`, zero where l < m, to be read before the step
    after next. Derivatives are sums of neighbouring orders, exact at the poles too (Varshalovich et al. 1988, 5.8.3).

    Args:
      kind: "scalar" for P_lm(cos theta), "theta" for its derivative by theta, "phi" for m P_lm / sin(theta).
      orders: successive orders m, not negative.
      lmax: number of degrees.
      theta: colatitudes in radians, poles included.
    """
    if kind == "scalar":
        yield from _functions(orders, lmax, theta)
        return
    first = max(orders.start - 1, 0)
    m = np.arange(orders.start, orders.stop, dtype=np.float64)[:, None]
    before = np.zeros((len(orders) + 2, len(theta)))
    for l, now in enumerate(_functions(range(first, orders.stop + 1), lmax, theta), first):
        if orders.start == 0:  # P_l,-1 = -P_l1
            now = np.concatenate([-now[1:2], now])
        if l >= orders.start and kind == "theta":
            up, down = np.sqrt(((l - m) * (l + m + 1)).clip(0)), np.sqrt(((l + m) * (l - m + 1)).clip(0))
            yield (up * now[2:] - down * now[:-2]) / 2
        elif l >= orders.start:
            up, down = np.sqrt((l - m) * (l - m - 1)), np.sqrt((l + m) * (l + m - 1))
            yield (up * before[2:] + down * before[:-2]) * (-math.sqrt((2 * l + 1) / max(2 * l - 1, 1)) / 2)
        before = now


def _functions(orders: range, lmax: int, theta: np.ndarray) -> Iterator[np.ndarray]:
    """P_lm: from P_mm upwards in the degree (Holmes and Featherstone 2002, eq. 11).

    P_mm is sin(theta)^m, which float64 cannot hold beside a pole where functions of higher degrees matter again. So numbers
    are scaled by powers of 2^RADIX of their own (Fukushima 2012), which become 1 as they grow.
    """
    m = np.arange(orders.start, orders.stop)[:, None]
    step = RADIX * math.log(2)
    grown = np.cumsum(np.log1p(0.5 / np.arange(1, orders.stop)))
    size = np.concatenate([[0.0], grown])[orders.start :, None] / 2 - math.log(4 * math.pi) / 2
    size = size + m * np.log(np.sin(theta).clip(1e-300))
    powers = np.minimum(np.round(size / step), 0)
    sectoral = np.where(m % 2, -1.0, 1.0) * np.exp(size - powers * step)
    scale, small = np.exp2(RADIX * powers), bool(powers.any())
    x, now, before, room = np.cos(theta), *(np.zeros_like(size) for _ in range(3))
    for l in range(orders.start, lmax):
        below = slice(min(l - orders.start, len(orders)))  # orders that have a function of degree l - 1
        square = m[below] ** 2
        np.multiply(now[below], x, out=room[below])
        before[below] *= np.sqrt(((l - 1) ** 2 - square) / (4 * (l - 1) ** 2 - 1))
        np.subtract(room[below], before[below], out=before[below])
        before[below] *= np.sqrt((4 * l**2 - 1) / (l**2 - square))
        before, now = now, before
        if below.stop < len(orders):
            now[below.stop] = sectoral[below.stop]
        if small and l % CHECKED == 0:
            large = np.abs(now) > LARGE
            for numbers in (now, before):
                numbers[large] *= 2.0**-RADIX
            powers[large] += 1
            scale, small = np.exp2(RADIX * powers), bool(powers.any())
        yield now * scale if small else now
