"""The library of compiled kernels, if there is one, and the numbers that it and its callers count with."""

import ctypes
import importlib.util
import warnings


class Layout:
    """Constants of kernels.c: sizes of portions, and places among the sums of a correction (structures.h describes them)."""

    LANES, NORM_PORTION, TILE, BLOCK = 16, 256, 32, 128
    CONTROLS, FLUXES = 5, 8
    # Totals that controls are moved by: one for each, of pressure also along the derivatives of air, water and energy, and
    # what precipitation and evaporation get everywhere.
    ALONG, UNIFORM, TOTALS = 5, 8, 10
    SIZED, SIGNED = 1, 2  # variances per unit of a control's magnitude, or of its value
    FIRST, AFTER = 1, 2  # negative values are clipped before a control moves, or afterwards
    RAIN, EVAPORATION, GAIN, CLIPPED_HUMIDITY, CLIPPED_RAIN = 3, 4, 5, 6, 7
    SQUARES, ON_BOUND, PRESSED, PRESSED_ALONG = 8, 13, 18, 21
    RAIN_SIZE, EVAPORATION_SIZE, PRESSURE_SIZE, HEATED, MEASURED = 30, 31, 32, 33, 34
    PULLED_PRESSURE, PULLED_ALONG, PULLED_RAIN, PULLED_RAIN_UNIFORM = 0, 1, 4, 5
    PULLED_EVAPORATION, PULLED_EVAPORATION_UNIFORM, PULLED = 6, 7, 8

    @classmethod
    def numbers(cls) -> dict[str, int]:
        return {name: value for name, value in vars(cls).items() if name.isupper()}


def exported(library: ctypes.CDLL) -> dict[str, int | None]:
    """The same numbers as a library has them, None for those that it lacks."""
    numbers = {}
    for name in Layout.numbers():
        try:
            numbers[name] = ctypes.c_long.in_dll(library, f"emulator_layout_{name}").value
        except ValueError:
            numbers[name] = None
    return numbers


def _load() -> ctypes.CDLL | None:
    """The library, or None where no compiler was at hand at installation or it was made for another machine or version."""
    found = importlib.util.find_spec("emulator.kernels._kernels")
    if found is None or found.origin is None:
        return None
    try:
        library = ctypes.CDLL(found.origin)
    except OSError:
        return None
    if exported(library) != Layout.numbers():
        warnings.warn(
            "The compiled kernels are those of another version of the package and stay unused: install the package again",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return library


LIBRARY = _load()  # a name rather than a function, which torch.compile would try to trace
