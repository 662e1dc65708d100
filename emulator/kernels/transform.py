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
    "cells even odd onto twiddles radices places north south order_places",
    "longitudes truncation has_equator backward apart joined",
    "channels columns part_step",
)
_Legendre = library.task(
    "legendre",
    "coefficients even odd table blocks rows room north south north_step south_step",
    "count degrees orders half backward dense",
    "channels room_size threads",
)
_Winds = library.task("winds", "even odd doubled_even doubled_odd", "backward", "orders half batch vectors")
_Mixing = library.task(
    "mixing",
    "coefficients weight to g_coefficients g_weight room blocks",
    "count degrees batch real",
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


@functools.lru_cache(maxsize=64)
def _order_places(orders: tuple[int, ...], step: int) -> np.ndarray:
    return np.array(orders) * step


def fourier(cells, spectra, places: Places, nlat: int, truncation: int, backward: bool, onto=None) -> None:
    """Fill the two `spectra`, `(2, order, row, C)`, from `cells`, or `backward` the cells from spectra; all contiguous.

    `onto`: what the cells are added to.
    """
    _, orders, half, channels = spectra[0].shape
    columns = half * channels
    pointers = [spectrum.data_ptr() for spectrum in spectra]
    at = _order_places(tuple(range(truncation)), columns)
    _fourier(cells, pointers, places, (nlat % 2, False, backward), (channels, columns, orders * columns), at, onto)


def fourier_of_rows(cells, spectrum, order_places: tuple[int, ...], backward: bool, onto=None) -> None:
    """`fourier` row by row: cells `(nlon, row, C)` and their spectrum `(order, 2, row, C)`.

    `order_places`: where each order stands in the spectrum.
    """
    nlon, rows, channels = cells.shape
    places, first = folded_places(rows, channels, tuple(range(nlon))), spectrum.data_ptr()
    pointers = [first, first + int(places.south[0]) * spectrum.element_size()]
    at, step = _order_places(order_places, 2 * rows * channels), rows * channels
    columns = (rows + 1) // 2 * channels
    _fourier(cells, pointers, places, (rows % 2, True, backward), (channels, columns, step), at, onto)


def _fourier(cells, spectra, places, kind, sizes, at, onto):
    nlon = len(places.longitudes)
    has_equator, apart, backward = kind
    channels, columns, part_step = sizes
    task = _Fourier(
        cells.data_ptr(),
        *spectra,
        onto=None if onto is None else onto.data_ptr(),
        twiddles=_twiddles(nlon).ctypes.data,
        radices=_radices(nlon).ctypes.data,
        places=places.longitudes.ctypes.data,
        north=places.north.ctypes.data,
        south=places.south.ctypes.data,
        order_places=at.ctypes.data,
        longitudes=nlon,
        truncation=len(at),
        has_equator=has_equator,
        backward=backward,
        apart=apart,
        joined=places.joined,
        channels=channels,
        columns=columns,
        part_step=part_step,
    )
    library.call("emulator_fourier", task, places, at)


Blocks = tuple[tuple[int, int], ...]  # of orders, where each starts and stops


@functools.cache
def _bounds(blocks: Blocks) -> np.ndarray:
    return np.array(blocks, np.intc)


def legendre(coefficients, spectra, table, degrees: int, blocks: Blocks, dense: bool, backward: bool) -> None:
    """Fill `coefficients`, `(count, C)`, from the two spectra of the blocks' orders, or `backward` these orders.

    `dense`: coefficients are `(degree, order, part, C)` rather than in blocks. All contiguous.
    """
    _, orders, half, channels = spectra[0].shape
    even, odd = (spectrum.data_ptr() for spectrum in spectra)
    _legendre(
        coefficients,
        table,
        (degrees, blocks, backward),
        even=even,
        odd=odd,
        orders=orders,
        half=half,
        dense=dense,
        channels=channels,
    )


class RowPlaces(NamedTuple):
    """Where rows of the hemisphere and their mirror images lie among those of all processes, in floats, -1 for none.

    Of the first order's real part; steps lead to its imaginary part, then to the next order's real one, and so on.
    """

    north: np.ndarray
    south: np.ndarray
    north_step: np.ndarray
    south_step: np.ndarray


def legendre_of_rows(
    coefficients, rows, table, places: RowPlaces, degrees: int, blocks: Blocks, backward: bool
) -> None:
    """`legendre` of the rows themselves in place of the spectra that they add up to."""
    half, channels = len(places.north), coefficients.shape[1]
    room = library.empty(torch.get_num_threads(), 2 * half * channels + LANES)
    _legendre(
        coefficients,
        table,
        (degrees, blocks, backward),
        places,
        rows=rows.data_ptr(),
        room=room.data_ptr(),
        **{name: values.ctypes.data for name, values in places._asdict().items()},
        half=half,
        channels=channels,
        room_size=room.shape[1],
    )


def _legendre(coefficients, table, kind, *kept, **rest):
    degrees, blocks, backward = kind
    task = _Legendre(
        coefficients.data_ptr(),
        table=table.data_ptr(),
        blocks=_bounds(blocks).ctypes.data,
        count=len(blocks),
        degrees=degrees,
        backward=backward,
        **rest,
    )
    library.call("emulator_legendre", task, table, *kept)


def winds(spectra, doubled, vectors: int, backward: bool) -> None:
    """Fill the `doubled` spectra of `emulator.sphere.winds` from `spectra` of winds, or `backward` those; all contiguous."""
    _, orders, half, channels = spectra[0].shape
    pointers = [spectrum.data_ptr() for spectrum in (*spectra, *doubled)]
    sizes = {"orders": orders, "half": half, "batch": channels // (2 * vectors), "vectors": vectors}
    library.call("emulator_winds", _Winds(*pointers, backward=backward, **sizes))


def mixes(c: torch.Tensor, weight: torch.Tensor, half: bool) -> bool:
    """Whether the compiled kernels multiply by these weights; products of bfloat16, if `half`, are of complex ones."""
    whole, is_complex = c.shape[2] % LANES == weight.shape[-1] % LANES == 0, weight.ndim == 4
    return library.takes(c, weight, fits=(whole and is_complex) if half else (whole or is_complex), half=half)


def mixing(c, weight, out, blocks: Blocks, half: bool) -> None:
    """Fill `out`, `(count, batch, C')`, with coefficients `(count, batch, C)` times weights.

    These are complex ones, `(l, C, 2, C')`, or real ones, `(l, C, C')`.
    """
    _mix(c, weight, out, blocks, half, None, None)


def mixing_backward(g, c, weight, g_c, g_weight, blocks: Blocks, half: bool) -> None:
    """Fill `g_c` and `g_weight` with the gradients of `mixing` for that of its result, `g`. All contiguous."""
    _mix(c, weight, g, blocks, half, g_c, g_weight)


def _mix(c, weight, out, blocks, half, *gradients):
    batch, inputs, outputs = c.shape[1], c.shape[2], out.shape[2]
    widest = max((stop - start for start, stop in blocks), default=0)
    size = 3 * inputs * outputs + 2 * widest * batch * max(inputs, outputs)
    room = library.empty(torch.get_num_threads(), size + LANES)
    task = _Mixing(
        c.data_ptr(),
        weight.data_ptr(),
        out.data_ptr(),
        *(None if x is None else x.data_ptr() for x in gradients),
        room=room.data_ptr(),
        room_size=room.shape[1],
        blocks=_bounds(blocks).ctypes.data,
        count=len(blocks),
        degrees=len(weight),
        batch=batch,
        real=weight.ndim == 3,
        inputs=inputs,
        outputs=outputs,
    )
    library.call("emulator_mixing_half" if half else "emulator_mixing", task, weight)
