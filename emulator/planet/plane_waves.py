"""Waves in the plane of a limited area: cosines between two sides, harmonics where rows go round, and their lengths."""

import functools

import numpy as np

from emulator.planet.cell_areas import unit_vectors
from emulator.planet.constants import ERA5
from emulator.planet.grid import Grid


@functools.lru_cache(maxsize=8)
def cosines(count: int) -> np.ndarray:
    """Orthonormal DCT-II as a matrix `(wave, place)`; wave n is n half-waves long, and goes on evenly beyond both ends."""
    wave, place = np.arange(count)[:, None], np.arange(count) + 0.5
    matrix = np.sqrt(2 / count) * np.cos(np.pi * wave * place / count)
    matrix[0] /= np.sqrt(2)
    return matrix


@functools.lru_cache(maxsize=8)
def harmonics(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal cosines and sines around a circle as a matrix `(wave, place)`, and how many waves each is, `(wave,)`."""
    number = (np.arange(count) + 1) // 2
    angle = 2 * np.pi * number[:, None] * np.arange(count) / count
    matrix = np.where(np.arange(count)[:, None] % 2, np.sin(angle), np.cos(angle))  # 1, sin, cos, sin 2, cos 2, ...
    if count % 2 == 0:
        matrix[-1] = np.cos(np.pi * np.arange(count))  # two cells a wave: its sine is zero at all of them
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True), number


def extent(grid: Grid) -> tuple[float, float]:
    """Length of a box's or a map's columns and of its rows on the sphere, m: mean spacing times number of cells."""
    places = unit_vectors(*grid.mesh())
    chords = [np.linalg.norm(np.diff(places, axis=axis), axis=-1) for axis in (0, 1)]
    spacing = [2 * np.arcsin(chord / 2).mean() * ERA5.earth_radius for chord in chords]
    return spacing[0] * grid.shape[0], spacing[1] * grid.shape[1]


def waves_of(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Orthonormal waves down the columns and along the rows of a box or a map, and how long they are together.

    Returns matrices `(row, row)` and `(column, column)`, waves first, and wavelengths in m, `(row, column)`: a wave of
    wavenumbers `(k, l)` in cycles per m is `1 / sqrt(k^2 + l^2)` long (Denis, Cote and Laprise 2002), the mean infinitely.
    """
    (rows, columns), (down, along) = grid.shape, extent(grid)
    north, north_waves = cosines(rows), np.arange(rows) / (2 * down)
    if grid.goes_round:
        east, number = harmonics(columns)
        east_waves = number / along
    else:
        east, east_waves = cosines(columns), np.arange(columns) / (2 * along)
    wavenumber = np.hypot(north_waves[:, None], east_waves)
    with np.errstate(divide="ignore"):
        return north, east, 1 / wavenumber
