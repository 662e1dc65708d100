"""Units of a source turned into the table's, by pint; accumulations and water depths into mean rates."""

import functools
import logging
import re
import tokenize

from emulator.planet.spellings import capitals, factor, spelled
from emulator.planet.variables import Variable

STANDARD_GRAVITY = 9.80665  # m s-2; defines the geopotential metre (WMO), whatever gravity a model has
WATER_DENSITY = 1000.0  # kg m-3; ECMWF's depth of water equivalent
IN_MASS = ("mean_vertically_integrated_moisture_divergence", "mean_virtual_salt_flux_into_sea_water")

MOLE_FRACTION = "mol mol-1"

# What pint would say: its definitions take half a second to read, and most files need no others.
COMMON = {("hPa", "Pa"): (100.0, 0.0), ("degrees_north", "Pa"): None, ("degrees_east", "Pa"): None}


@functools.lru_cache(maxsize=1)
def _registry():
    logger = logging.getLogger("pint")  # which tells of every unit that cf-xarray defines anew
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import cf_xarray.units  # half a second, only where a source is read
    finally:
        logger.setLevel(before)
    return cf_xarray.units.units


def _unit(text: str) -> tuple[float, object]:
    """A number, and pint's unit that it counts. Raises `ValueError` for what pint does not know."""
    import pint

    spelling = spelled(text)
    try:
        number, rest = 1.0, spelling
        while (found := factor(rest))[1] != rest:  # spellings are numbers of other units themselves
            number, rest = number * found[0], found[1]
        if re.search(r"\(\d", rest):  # an amount in 6 hours
            quantity = _registry().parse_expression(rest)
            return number * float(quantity.magnitude), quantity.units
        return number, _registry().Unit(rest)
    except (
        pint.errors.PintError,
        ValueError,
        AssertionError,
        TypeError,
        AttributeError,
        tokenize.TokenError,
        SyntaxError,
    ):
        raise ValueError(f"Expected units that pint knows, got {text!r}") from None


def _number(text: str) -> float | None:
    """A pure number other than 1 that stands for units."""
    text = spelled(text)
    try:
        number = 10.0 ** int(text[3:]) if text.startswith("10^") else float(text)
    except ValueError:
        return None
    return number if number > 0 and number != 1 else None


def linear(source: str, target: str) -> tuple[float, float] | None:
    """`(scale, offset)` with `target = scale * source + offset`; None when the units do not convert.

    Angles are no pure numbers, and a number of molecules is none of mass. Raises `ValueError` for units that are none.
    """
    if source.replace("**", "") == target:
        return 1.0, 0.0
    if (source, target) in COMMON:
        return COMMON[source, target]
    if (number := _number(source)) is not None:  # CMIP's salinity is in units of 0.001, input4MIPs' CO2 in 1.e-6
        one = linear("1", target)
        return one and (one[0] * number, one[1])
    try:
        if (found := _linear(source, target)) is not None:
            return found
        known = True
    except ValueError:
        known = False
    try:
        return _linear(capitals(source), target)
    except ValueError:
        if known:
            return None
        raise ValueError(f"Expected units that pint knows, got {source!r}") from None


def _linear(source: str, target: str) -> tuple[float, float] | None:
    (number, source_unit), (one, target_unit) = _unit(source), _unit(target)
    alike = source_unit.dimensionality == target_unit.dimensionality
    if not alike or _of_molecules(source) != _of_molecules(target) or _is_angle(source_unit) != _is_angle(target_unit):
        return None
    quantity = _registry().Quantity
    offset = float(quantity(0.0, source_unit).to(target_unit).magnitude)
    scale = float(quantity(1.0, source_unit).to(target_unit).magnitude) - offset
    return scale * number / one, offset / one


def _is_angle(unit) -> bool:
    """Whether a unit is one of angle, which pint counts among the pure numbers."""
    return unit.dimensionless and "radian" in str(_registry().get_base_units(unit)[1])


def _of_molecules(units: str) -> bool:
    return "mol" in spelled(units)


def is_rate(units: str, variable: Variable) -> bool:
    """Whether units of a mean are those of a rate, which need no interval to convert."""
    try:
        conversion(units, variable)
    except ValueError:
        return False
    return variable.cell == "mean"


def amount_units(variable: Variable) -> str:
    """Units of ECMWF's accumulation of a step mean: lengths of water, but for what is no water that falls or flows."""
    if variable.units == "kg m-2 s-1":
        return "kg m-2" if variable.name in IN_MASS else "m"
    return {"W m-2": "J m-2", "N m-2": "N m-2 s"}[variable.units]


def conversion(units: str, variable: Variable, interval_seconds: float | None = None) -> tuple[float, float]:
    """`(scale, offset)` from `units` to the table's.

    A height becomes a geopotential by standard gravity, and a mass of snow or water a depth of it; a pure number (ppm) is one
    of molecules for a mole fraction. For step means, a depth of water becomes a mass per area, and an amount per area is
    divided by the interval over which the source accumulated it.

    Raises `ValueError` for units that do not convert, and for an accumulation whose interval is not known.
    """
    if variable.units == "g kg-1" and spelled(units) == "1e-12":  # ppt of salt is a part per thousand
        return 1.0, 0.0
    if direct := linear(units, variable.units):
        return direct
    if variable.standard_name in ("geopotential", "surface_geopotential") and (metres := linear(units, "m")):
        return metres[0] * STANDARD_GRAVITY, 0.0
    if str(variable.standard_name).startswith("lwe_thickness") and (mass := linear(units, "kg m-2")):
        return mass[0] / WATER_DENSITY, 0.0
    if variable.units == "kg m-2" and "water" in variable.name and (depth := linear(units, "m")):
        return depth[0] * WATER_DENSITY, 0.0
    if variable.units == MOLE_FRACTION and "kg" not in units and "g/g" not in units and (number := linear(units, "1")):
        return number
    if variable.cell == "mean":
        density = WATER_DENSITY if variable.units.startswith("kg") else 1.0
        if density > 1 and (depth := linear(units, "m s-1")):
            return depth[0] * density, 0.0
        amount = linear(units, f"{variable.units} s") or (density > 1 and linear(units, "m"))
        if amount:
            if interval_seconds is None:
                raise ValueError(
                    f"Expected interval_hours for {variable.name}: its units {units!r} are those of an accumulation; of "
                    "totals that run on since 00 UTC (ERA5-Land) or since the start of their forecast totals_from: midnight "
                    "or start"
                )
            scale = amount[0] if linear(units, f"{variable.units} s") else amount[0] * density
            return scale / interval_seconds, 0.0
    raise ValueError(f"Expected units of {variable.name} that convert to {variable.units!r}, got {units!r}")
