"""The two steps of the spherical transform, and the mixing of channels by degree between them."""

import functools
import math
from typing import NamedTuple

import numpy as np
import torch

from emulator.kernels import library
from emulator.kernels.compiled import Layout

LANES = Layout.LANES  # numbers in a vector of the kernels
LONGEST = 4096  # a thread keeps two sequences of vectors on its stack: 1 MiB
RADICES = (8, 4, 5, 3, 2)

_Fourier = library.task(
    "fourier",
    "cells even odd onto twiddles radices places north south",
    "longitudes truncation orders has_equator backward joined",
    "channels spectrum_step",
)
_Legendre = library.task(
    "legendre", "coefficients even odd table", "degrees orders width half flipped backward dense", "channels"
)
_Mixing = library.task(
    "mixing",
    "coefficients weight to g_coefficients g_weight room",
    "degrees width batch",
    "inputs outputs room_size threads",
)


def knows(longitudes: int) -> bool:
    """Whether the compiled kernels transform rows of this length."""
    return longitudes <= LONGEST and factors(longitudes) is not None


def serves(x: torch.Tensor, longitudes: int) -> bool:
    """Whether the compiled kernels transform `x`."""
    return library.takes(x, fits=knows(longitudes))


@functools.cache
def factors(longitudes: int) -> tuple[int, ...] | None:
    """Radices of the passes, or None where another prime than 2, 3 and 5 divides the number of longitudes."""
    found, rest = [], longitudes
    for radix in RADICES:
        while rest % radix == 0:
            found.append(radix)
            rest //= radix
    return tuple(found) if rest == 1 else None


@functools.cache
def _twiddles(longitudes: int) -> np.ndarray:
    """`(cos, -sin)` of 2 pi p k / n for the passes in turn: n is what is left of the length, p < n / radix, 0 < k < radix."""
    length, parts = longitudes, []
    for radix in factors(longitudes):
        angle = np.outer(np.arange(length // radix), np.arange(1, radix)) * (2 * math.pi / length)
        parts.append(np.stack([np.cos(angle), -np.sin(angle)], -1).ravel())
        length //= radix
    return np.concatenate(parts).astype(np.float32)


@functools.cache
def _radices(longitudes: int) -> np.ndarray:
    return np.array(factors(longitudes), np.intc)


class Places(NamedTuple):
    """Where cells lie in memory, in floats: longitudes from the first one's cells, rows of a hemisphere, mirrored rows.

    `joined`: the rows follow each other, so that vectors may reach from one into the next.
    """

    longitudes: np.ndarray
    north: np.ndarray
    south: np.ndarray
    joined: bool


@functools.lru_cache(maxsize=64)
def natural_places(nlat: int, nlon: int, channels: int) -> Places:
    """Of a field `(nlat, nlon, C)`."""
    half, equator, row = (nlat + 1) // 2, nlat % 2, nlon * channels
    north = np.roll(np.arange(half), equator)  # the equator first
    return Places(np.arange(nlon) * channels, north * row, (nlat - 1 - north) * row, False)


@functools.lru_cache(maxsize=64)
def folded_places(nlat: int, channels: int, order: tuple[int, ...]) -> Places:
    """Of cells `(nlon, nlat, C)`, longitudes in the given order, the southern rows mirrored behind the northern ones."""
    half, equator = (nlat + 1) // 2, nlat % 2
    rows = np.arange(half) * channels
    return Places(np.argsort(order) * (nlat * channels), rows, rows + (half - equator) * channels, True)


def fourier(cells, spectra, places: Places, nlat: int, truncation: int, backward: bool, onto=None) -> None:
    """Fill the two `spectra`, `(2, order, row, C)`, from `cells`, or `backward` the cells from spectra; all contiguous.

    `onto`: what the cells are added to.
    """
    nlon = len(places.longitudes)
    _, orders, half, channels = spectra[0].shape
    task = _Fourier(
        cells.data_ptr(),
        *(spectrum.data_ptr() for spectrum in spectra),
        onto=None if onto is None else onto.data_ptr(),
        twiddles=_twiddles(nlon).ctypes.data,
        radices=_radices(nlon).ctypes.data,
        places=places.longitudes.ctypes.data,
        north=places.north.ctypes.data,
        south=places.south.ctypes.data,
        longitudes=nlon,
        truncation=truncation,
        orders=orders,
        has_equator=nlat % 2,
        backward=backward,
        joined=places.joined,
        channels=channels,
        spectrum_step=half * channels,
    )
    library.call("emulator_fourier", task, places)


def legendre(
    coefficients, spectra, table, degrees: int, width: int, flipped: bool, dense: bool, backward: bool
) -> None:
    """Fill `coefficients`, `(count, C)`, from the two spectra, or `backward` the orders below `degrees` of the spectra.

    `width`: orders in a block; `flipped`: the table's functions have the opposite parity; `dense`: coefficients are
    `(degree, order, part, C)` rather than in blocks. All contiguous.
    """
    _, orders, half, channels = spectra[0].shape
    task = _Legendre(
        coefficients.data_ptr(),
        *(spectrum.data_ptr() for spectrum in spectra),
        table=table.data_ptr(),
        degrees=degrees,
        orders=orders,
        width=width,
        half=half,
        flipped=flipped,
        backward=backward,
        dense=dense,
        channels=channels,
    )
    library.call("emulator_legendre", task, table)


def mixes(c: torch.Tensor, weight: torch.Tensor, half: bool) -> bool:
    """Whether the compiled kernels multiply by complex weights, with products of bfloat16 if `half`."""
    whole = weight.ndim == 4 and c.shape[2] % LANES == weight.shape[3] % LANES == 0
    return library.takes(c, weight, fits=whole if half else weight.ndim == 4, half=half)


def mixing(c, weight, out, degrees: int, width: int, half: bool) -> None:
    """Fill `out`, `(count, batch, C')`, with coefficients `(count, batch, C)` times weights `(l, C, 2, C')`."""
    _mix(c, weight, out, degrees, width, half, None, None)


def mixing_backward(g, c, weight, g_c, g_weight, degrees: int, width: int, half: bool) -> None:
    """Fill `g_c` and `g_weight` with the gradients of `mixing` for that of its result, `g`. All contiguous."""
    _mix(c, weight, g, degrees, width, half, g_c, g_weight)


def _mix(c, weight, out, degrees, width, half, *gradients):
    batch, inputs, outputs = c.shape[1], c.shape[2], out.shape[2]
    size = 3 * inputs * outputs + 2 * min(width, degrees) * batch * max(inputs, outputs)
    room = library.empty(torch.get_num_threads(), size + LANES)
    task = _Mixing(
        c.data_ptr(),
        weight.data_ptr(),
        out.data_ptr(),
        *(None if x is None else x.data_ptr() for x in gradients),
        room=room.data_ptr(),
        room_size=room.shape[1],
        degrees=degrees,
        width=width,
        batch=batch,
        inputs=inputs,
        outputs=outputs,
    )
    library.call("emulator_mixing_half" if half else "emulator_mixing", task, weight)
