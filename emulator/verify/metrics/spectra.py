"""Power spectra: per total wavenumber on Gaussian and equal-angle grids, per zonal wavenumber on other globes, and in the
plane on a limited area.

Total wavenumber: `sum_m |a_lm|^2` of orthonormal harmonics over 4 pi, so that the spectrum of a band-limited field sums to
its mean square. Equal-angle rows are first carried to Gaussian latitudes by exact trigonometric interpolation, even for
even and odd for odd zonal wavenumbers (the field continued over the poles), which makes the quadrature exact up to the
grid's own resolution.
"""

import functools

import numpy as np
import xarray as xr

from emulator.planet.grid import Grid
from emulator.verify.filling import filled
from emulator.verify.metric import FIELDS, Sample, Statistics, metric
from emulator.verify.plane_spectrum import plane_spectrum, ring_count

NO_POWER = 1e-12
CLIFF, FIRST_CLIFF = 0.1, 12


def spectrum_kind(grid: Grid) -> str | None:
    """ "total", "zonal", "plane" of a box or a map, or None of a list of points and of a box that goes round."""
    if grid.is_points or (grid.goes_round and not grid.is_global()):
        return None
    if not grid.is_global():
        return "plane"
    if grid.kind == "gaussian" or (grid.kind == "equiangular" and _is_fourier(grid.latitude)):
        return "total"
    return "zonal"


def wavenumber_count(grid: Grid) -> int:
    """Length of the spectrum: wavenumbers 0 ... count - 1."""
    kind = spectrum_kind(grid)
    if kind == "plane":
        return ring_count(grid.shape)
    return len(grid.latitude) if kind == "total" else len(grid.longitude) // 2 + 1


def power_spectrum(field: np.ndarray, grid: Grid) -> np.ndarray:
    """Power per wavenumber, `(..., latitude, longitude)` -> `(..., wavenumber)`, in the unit squared.

    Raises `ValueError` on a grid without a spectrum. A field with a missing value has a missing spectrum.
    """
    kind = spectrum_kind(grid)
    if kind is None:
        raise ValueError(f"Expected a globe with rows, a box or a map for a spectrum, got {grid.describe()}")
    if kind == "plane":
        return plane_spectrum(field)
    return total_spectrum(field, grid) if kind == "total" else zonal_spectrum(field, grid)


def zonal_spectrum(field: np.ndarray, grid: Grid) -> np.ndarray:
    """Power per zonal wavenumber 0 ... nlon // 2, averaged over rows by area; sums to the mean square (Parseval).

    With an even number of longitudes the last bin is its own conjugate and counts once.
    """
    nlon = field.shape[-1]
    power = np.abs(np.fft.rfft(field, axis=-1) / nlon) ** 2
    power[..., 1 : (nlon + 1) // 2] *= 2
    rows = grid.area.sum(axis=1)
    return np.einsum("...ym,y->...m", power, rows)


def total_spectrum(field: np.ndarray, grid: Grid) -> np.ndarray:
    """Power per total wavenumber 0 ... nlat - 1, as the module says: `(..., latitude, longitude)` -> `(..., nlat)`."""
    field = np.asarray(field, np.float64)
    nlat, nlon = field.shape[-2:]
    rows = np.moveaxis(np.fft.rfft(field.reshape(-1, nlat, nlon), axis=-1) / nlon, 0, -1)  # (nlat, m, field)
    _, weights = _quadrature(nlat)
    carry = None if grid.kind == "gaussian" else _to_gaussian(tuple(grid.latitude.tolist()))
    power = np.zeros((nlat, rows.shape[-1]))
    for order in range(min(nlat, nlon // 2 + 1)):
        row = rows[:, order] if carry is None else carry[order % 2] @ rows[:, order]
        coefficients = (_functions(order, nlat) * (weights / 2)) @ row
        # -m mirrors m for a real field, except where there is no -m (0) or it is the same wave on the grid (Nyquist).
        twice = 1.0 if order == 0 or 2 * order == nlon else 2.0
        power[order:] += twice * np.abs(coefficients) ** 2
    return power.T.reshape(*field.shape[:-2], nlat)


def _functions(order: int, nlat: int) -> np.ndarray:
    """`_legendre` at the Gaussian latitudes, kept for grids whose whole table is below 30 MB."""
    return _kept(order, nlat) if nlat <= 192 else _legendre(order, nlat, _quadrature(nlat)[0])


@functools.lru_cache(maxsize=400)
def _kept(order, nlat):
    return _legendre(order, nlat, _quadrature(nlat)[0])


@functools.lru_cache(maxsize=8)
def _quadrature(nlat: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian nodes (sines of latitude, north first) and weights. Kept: they took as long as the whole transform."""
    nodes, weights = np.polynomial.legendre.leggauss(nlat)
    return nodes[::-1], weights[::-1]


def _legendre(order: int, count: int, x: np.ndarray) -> np.ndarray:
    """Associated Legendre functions of degrees order ... count - 1, `(count - order, x)`, with mean square 1 over [-1, 1].

    Three-term recursion in the degree (Holmes and Featherstone 2002, eq. 11, in this normalisation).
    """
    sine = np.sqrt((1 - x) * (1 + x))
    degrees = np.arange(1, order + 1)
    # Through the logarithm: sine ** order underflows near the poles, where the function is zero anyway.
    scale = 0.5 * np.sum(np.log((2 * degrees + 1) / (2 * degrees))) if order else 0.0
    with np.errstate(divide="ignore"):
        start = np.exp(scale + order * np.log(sine)) if order else np.ones_like(x)
    result = np.empty((count - order, len(x)))
    result[0] = start
    if count - order > 1:
        result[1] = np.sqrt(2 * order + 3) * x * start
    for degree in range(order + 2, count):
        factor = np.sqrt((4 * degree**2 - 1) / (degree**2 - order**2))
        past = np.sqrt(((degree - 1) ** 2 - order**2) / (4 * (degree - 1) ** 2 - 1))
        index = degree - order
        result[index] = factor * (x * result[index - 1] - past * result[index - 2])
    return result


def _is_fourier(latitude: np.ndarray) -> bool:
    """Whether equal-angle rows include both poles, or lie half a spacing from both."""
    step = 180.0 / len(latitude)
    poles = np.allclose(latitude[[0, -1]], [90, -90], atol=1e-3)
    offset = np.allclose(latitude[[0, -1]], [90 - step / 2, -90 + step / 2], atol=1e-3)
    return bool(poles or offset)


@functools.lru_cache(maxsize=4)
def _to_gaussian(latitude: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Matrices `(nlat, nlat)` from equal-angle rows to Gaussian ones, for even and for odd zonal wavenumbers."""
    count = len(latitude)
    source, target = np.radians(90 - np.array(latitude)), np.arccos(_quadrature(count)[0])
    poles = np.isclose(latitude[0], 90, atol=1e-3)
    even, odd = np.arange(count), np.arange(1, count - 1 if poles else count + 1)
    matrices = []
    for waves, function in ((even, np.cos), (odd, np.sin)):
        at_source, at_target = function(np.outer(source, waves)), function(np.outer(target, waves))
        matrices.append(at_target @ np.linalg.pinv(at_source))
    return tuple(matrices)


def relative_power(power: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Power relative to the truth's, `(..., wavenumber)`; NaN where the truth has none but rounding, or is truncated.

    Below `NO_POWER` of its mean square, single-precision fields hold no more than noise. Beyond the truncation of the model
    that made it, a truth holds what products and limits on the grid have left: too little to be a measure.
    """
    measurable = truth > NO_POWER * truth.sum(axis=-1, keepdims=True)
    measurable &= np.arange(truth.shape[-1]) <= truncation(truth)[..., None]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(measurable, power / truth, np.nan)


def truncation(power: np.ndarray) -> np.ndarray:
    """The last wavenumber before power falls off a cliff, `(..., wavenumber)` -> `(...)`; the last one where it does not.

    A cliff is where all that follows stays below `CLIFF` of the median of the six wavenumbers before. Powers of the
    wavenumber as steep as -5 fall by less from wavenumber `FIRST_CLIFF` on.
    """
    count = power.shape[-1]
    last = np.full(power.shape[:-1], count - 1)
    beyond = np.maximum.accumulate(power[..., ::-1], axis=-1)[..., ::-1]
    for wave in range(count - 2, FIRST_CLIFF - 1, -1):
        before = np.median(power[..., wave - 5 : wave + 1], axis=-1)
        last = np.where(beyond[..., wave + 1] < CLIFF * before, wave, last)
    return last


def last_resolved(ratio: np.ndarray, threshold: float = 0.5) -> float:
    """Largest wavenumber up to which the power relative to the truth's stays above `threshold`; NaN where it never does."""
    known = ratio[1:][np.isfinite(ratio[1:])]
    below = np.flatnonzero(known < threshold)
    last = below[0] if len(below) else len(known)
    return float(last) if last else float("nan")


def power_where_it_exists(fields: np.ndarray, sample: Sample) -> np.ndarray:
    """Power of fields of a sample's variable, `(n, lead, level, cell)` -> `(n, lead, level, wavenumber)`.

    What does not exist is filled smoothly, in every field alike.
    """
    grid, exists = sample.binning.grid, sample.exists
    fields = fields.reshape(*fields.shape[:-1], *grid.shape)
    return power_spectrum(fields if exists is None else filled(fields, exists.reshape(-1, *grid.shape)), grid)


def _of(samples: list[Sample]) -> dict:
    """Power of every source by one transform; of an ensemble the mean over members, each of which has a member's spectrum."""
    power = power_where_it_exists(np.concatenate([sample.members for sample in samples]), samples[0])
    ends = np.cumsum([len(sample.members) for sample in samples])[:-1]
    return {"power": np.stack([members.mean(axis=0) for members in np.split(power, ends)])}


SPECTRA = Statistics(
    ("power",),
    _of,
    sampling=FIELDS,
    back={"wavenumber": lambda binning: np.arange(wavenumber_count(binning.grid))},
    wanted=lambda variable, binning: bool(binning.spectrum_leads),
    vector=("power",),
)


@metric("Power", (SPECTRA,), "of the channel, squared")
def power(mean):
    """power per wavenumber"""
    return mean["power"].transpose(*SPECTRA.dims)


@metric("Power ratio", (SPECTRA,), better="one")
def power_ratio(mean):
    """power relative to the truth's"""
    spectra = power(mean)
    return spectra.copy(data=relative_power(spectra.values, spectra.values[-1:]))


@metric("Effective wavenumber", (SPECTRA,), better="higher")
def effective_wavenumber(mean):
    """last wavenumber up to which the power stays above half of the truth's"""
    ratios = power_ratio(mean)
    return xr.DataArray(np.apply_along_axis(last_resolved, -1, ratios.values), dims=ratios.dims[:-1])
