"""Random coefficients of real fields, and sizes that meet every way of the transform."""

import math

import torch

PEER_GRID = {("gaussian", False): "legendre-gauss", ("equiangular", True): "equiangular"}
GRIDS = [("gaussian", False), ("equiangular", True), ("equiangular", False)]
# nlat, nlon, lmax: even and odd rows; one and two folds of the longitudes, and the FFT; several blocks of orders; odd
# truncations; the highest order that an even number of longitudes holds
SIZES = [
    (16, 32, 16),
    (17, 32, 15),
    (15, 30, 14),
    (9, 20, 11),
    (12, 25, 12),
    (24, 192, 24),
    (25, 200, 23),
    (48, 96, 47),
]


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def coefficients(lmax, *channels, seed=0):
    """Random coefficients of real fields: nothing for l < m, nor imaginary parts for m = 0."""
    c = random(lmax, lmax, 2, *channels, seed=seed)
    c *= torch.ones(lmax, lmax).tril()[:, :, None].reshape(lmax, lmax, *[1] * (1 + len(channels)))
    c[:, 0, 1] = 0
    return c


def dimensionless(shape):
    return {"rtol": 0, "atol": 1e-12 * math.sqrt(max(shape))}
