"""Real spherical-harmonic transform, fast on CPU and free of complex numbers.

Fields are `(nlat, nlon, *channels)`, latitude from north to south, so that a field with its batch and channel axes last
is one matrix per latitude. Coefficients are real, `(lmax, mmax, 2, *channels)`: degree l, order m >= 0, then real and
imaginary part. They are those of torch-harmonics: orthonormal harmonics with the Condon-Shortley phase,

    f(theta, phi) = Re sum_l sum_m (2 - [m = 0]) c_lm Pbar_lm(cos theta) exp(i m phi).

The hemispheres are folded, since P_lm(-x) = (-1)^(l - m) P_lm(x): two products of half the size and half the table.
Source of the tables and of the oracle in the tests: torch-harmonics (Bonev et al. 2023).
"""

import functools
import math

import torch
from torch_harmonics.legendre import legpoly
from torch_harmonics.quadrature import precompute_latitudes

GRIDS = ("gaussian", "equiangular")


def latitudes(nlat: int, grid: str = "gaussian", poles: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Colatitudes in radians, north to south, and quadrature weights over cos(colatitude) summing to 2: `(nlat,)` float64.

    Gauss-Legendre (exact to degree 2 nlat - 1), Clenshaw-Curtis on an equiangular grid with poles and Fejer's first rule
    on one without (both exact to degree nlat - 1; Waldvogel 2006). Raises `ValueError` for another grid.
    """
    if grid == "gaussian":
        return precompute_latitudes(nlat, grid="legendre-gauss")
    if grid != "equiangular":
        raise ValueError(f"Expected a grid among {GRIDS}, got {grid!r}")
    if poles:
        return precompute_latitudes(nlat, grid="equiangular")
    theta = (torch.arange(nlat, dtype=torch.float64) + 0.5) * (math.pi / nlat)
    j = torch.arange(1, nlat // 2 + 1, dtype=torch.float64)
    series = torch.cos(2 * j * theta[:, None]) / (4 * j**2 - 1)
    return theta, (1 - 2 * series.sum(1)) * (2 / nlat)


def truncation(nlat: int, nlon: int, grid: str = "gaussian") -> int:
    """Largest number of degrees for which analysis inverts synthesis: bounded by the quadrature and by the longitudes."""
    exact = nlat if grid == "gaussian" else (nlat + 1) // 2
    return min(exact, nlon // 2 + 1)


@functools.lru_cache(maxsize=32)
def _legendre(nlat, grid, poles, lmax):
    """Synthesis and analysis tables `(parity of l, parity of m, order, degree, row)` of the northern rows, float64."""
    theta, weights = latitudes(nlat, grid, poles)
    half = (nlat + 1) // 2
    table = legpoly(lmax, lmax, torch.cos(theta[:half]))  # (m, l, row)
    weights = weights[:half].clone()
    if nlat % 2:
        weights[-1] /= 2  # the equator counts in both hemispheres
    padded = torch.zeros(lmax + lmax % 2, lmax + lmax % 2, half, dtype=torch.float64)
    padded[:lmax, :lmax] = table
    split = padded.reshape(padded.shape[0] // 2, 2, -1, 2, half).permute(3, 1, 0, 2, 4)
    return split.contiguous(), (split * (2 * math.pi * weights)).contiguous()


@functools.lru_cache(maxsize=32)
def _fourier(nlon, mmax):
    """Analysis `(2 mmax, nlon)` and synthesis `(nlon, 2 mmax)` matrices of the real Fourier transform, float64."""
    orders = torch.arange(mmax, dtype=torch.float64)
    turns = torch.outer(orders, torch.arange(nlon, dtype=torch.float64)) % nlon
    angle = turns * (2 * math.pi / nlon)
    factor = torch.full((mmax, 1), 2.0, dtype=torch.float64)
    factor[0] = 1
    if 2 * (mmax - 1) == nlon:
        factor[-1] = 1
    basis = torch.stack([torch.cos(angle), -torch.sin(angle)], 1)  # (m, re / im, nlon)
    analysis = (basis / nlon).reshape(2 * mmax, nlon)
    return analysis, (basis * factor[:, None]).reshape(2 * mmax, nlon).T.contiguous()


_CACHE: dict = {}


def _cached(kind, key, make, dtype, device):
    """One tensor per table, dtype and device in the process, so that all blocks of a network share it."""
    full = (kind, key, dtype, str(device))
    if full not in _CACHE:
        _CACHE[full] = make().to(device=device, dtype=dtype)
    return _CACHE[full]


class SphericalTransform(torch.nn.Module):
    """Analysis and synthesis between a grid and the triangular truncation with `lmax` degrees and orders.

    Args:
      nlat, nlon: rows and columns of the grid.
      grid: "gaussian" or "equiangular"; `poles`: whether an equiangular grid has rows at the poles.
      lmax: number of degrees, default `truncation(nlat, nlon, grid)`.
    Raises `ValueError` for a truncation that the longitudes cannot hold.
    """

    def __init__(self, nlat: int, nlon: int, grid: str = "gaussian", poles: bool = False, lmax: int | None = None):
        super().__init__()
        lmax = lmax or truncation(nlat, nlon, grid)
        if not 0 < lmax <= nlon // 2 + 1:
            raise ValueError(f"Expected between 1 and {nlon // 2 + 1} degrees for {nlon} longitudes, got {lmax}")
        self.nlat, self.nlon, self.grid, self.poles, self.lmax = nlat, nlon, grid, poles, lmax
        legendre = (nlat, grid, poles, lmax)
        dtype, device = torch.float32, torch.device("cpu")
        for name, key, make in (
            ("synthesis_table", legendre, lambda: _legendre(*legendre)[0]),
            ("analysis_table", legendre, lambda: _legendre(*legendre)[1]),
            ("synthesis_fourier", (nlon, lmax), lambda: _fourier(nlon, lmax)[1]),
            ("analysis_fourier", (nlon, lmax), lambda: _fourier(nlon, lmax)[0]),
        ):
            self.register_buffer(name, _cached(name, key, make, dtype, device), persistent=False)

    @property
    def shape(self) -> tuple[int, int]:
        return self.nlat, self.nlon

    def analysis(self, field: torch.Tensor) -> torch.Tensor:
        """Coefficients `(lmax, lmax, 2, *channels)` of a field `(nlat, nlon, *channels)`."""
        self._check(field, (self.nlat, self.nlon), "a field")
        channels = field.shape[2:]
        x = field.reshape(self.nlat, self.nlon, -1)
        half = (self.nlat + 1) // 2
        north, south = x[:half], x[self.nlat - half :].flip(0)
        folded = torch.stack([north + south, north - south])  # (parity, row, longitude, C)
        spectrum = torch.matmul(self.analysis_fourier, folded).view(2, half, self.lmax, -1)  # (parity, row, m, 2C)
        padded = self.lmax + self.lmax % 2
        if padded != self.lmax:
            spectrum = torch.nn.functional.pad(spectrum, (0, 0, 0, 1))
        parts = [
            [torch.bmm(self.analysis_table[q, a], spectrum[(q + a) % 2, :, a::2].transpose(0, 1)) for a in (0, 1)]
            for q in (0, 1)
        ]  # each (m / 2, l / 2, 2C)
        out = torch.stack([torch.stack(row, 0) for row in parts], 0)  # (q, a, m / 2, l / 2, 2C)
        out = out.permute(3, 0, 2, 1, 4).reshape(padded, padded, 2, *channels)
        return out[: self.lmax, : self.lmax]

    def synthesis(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Field `(nlat, nlon, *channels)` of coefficients `(lmax, lmax, 2, *channels)`."""
        self._check(coefficients, (self.lmax, self.lmax, 2), "coefficients")
        channels = coefficients.shape[3:]
        c = coefficients.reshape(self.lmax, self.lmax, -1)
        padded = self.lmax + self.lmax % 2
        if padded != self.lmax:
            c = torch.nn.functional.pad(c, (0, 0, 0, 1, 0, 1))
        half = (self.nlat + 1) // 2

        def rows(q, a):
            return torch.bmm(self.synthesis_table[q, a].transpose(1, 2), c[q::2, a::2].transpose(0, 1))

        even = torch.stack([rows(0, 0), rows(1, 1)], 1).view(padded, half, -1)[: self.lmax]  # (m, row, 2C)
        odd = torch.stack([rows(1, 0), rows(0, 1)], 1).view(padded, half, -1)[: self.lmax]
        folded = torch.stack([even, odd]).permute(0, 2, 1, 3).reshape(2, half, 2 * self.lmax, -1)
        even, odd = torch.matmul(self.synthesis_fourier, folded)  # (row, longitude, C)
        south = (even - odd)[: self.nlat - half].flip(0)
        return torch.cat([even + odd, south]).view(self.nlat, self.nlon, *channels)

    def extra_repr(self) -> str:
        return f"{self.nlat} x {self.nlon}, {self.grid}, poles={self.poles}, lmax={self.lmax}"

    @staticmethod
    def _check(tensor, shape, what):
        if tuple(tensor.shape[: len(shape)]) != shape:
            raise ValueError(f"Expected {what} of shape {(*shape, '...')}, got {tuple(tensor.shape)}")


def to_complex(coefficients: torch.Tensor) -> torch.Tensor:
    """`(l, m, 2, *channels)` real to `(*channels, l, m)` complex, torch-harmonics' layout."""
    moved = coefficients.movedim((0, 1, 2), (-3, -2, -1)).contiguous()
    return torch.view_as_complex(moved)


def from_complex(coefficients: torch.Tensor) -> torch.Tensor:
    """`(*channels, l, m)` complex to `(l, m, 2, *channels)` real."""
    return torch.view_as_real(coefficients).movedim((-3, -2, -1), (0, 1, 2))
