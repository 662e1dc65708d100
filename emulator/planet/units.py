"""Units of a source turned into the table's, by pint; accumulations and water depths into mean rates."""

import functools
import logging

from emulator.planet.variables import Variable

STANDARD_GRAVITY = 9.80665  # m s-2; defines the geopotential metre (WMO), whatever gravity a model has
WATER_DENSITY = 1000.0  # kg m-3; ECMWF's depth of water equivalent

# Spellings in meteorological files that pint does not know or takes for something else (mb is its millibarn).
SPELLINGS = {
    "(0 - 1)": "1",
    "~": "1",
    "fraction": "1",
    "proportion": "1",
    "numeric": "1",
    "unitless": "1",
    "none": "1",
    "mb": "hPa",
    "mbar": "hPa",
    "m of water equivalent": "m",
    "m of water": "m",
    "c": "degC",
    "degree true": "degree",
    "(code table 4.213)": "1",
    "(code table 4.234)": "1",
    "psu": "g kg-1",  # cf-xarray takes it for a pure number
    "ppb": "1e-9",
    "ppt": "1e-12",
}
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


def _unit(text: str):
    import pint

    text = SPELLINGS.get(text.strip().lower(), text.strip())
    try:
        return _registry().Unit(text)
    except (pint.errors.UndefinedUnitError, pint.errors.DefinitionSyntaxError, ValueError, AssertionError, TypeError):
        raise ValueError(f"Expected units that pint knows, got {text!r}") from None


def _number(text: str) -> float | None:
    """A pure number other than 1 that stands for units."""
    try:
        number = float(SPELLINGS.get(text.strip().lower(), text))
    except ValueError:
        return None
    return number if number > 0 and number != 1 else None


def linear(source: str, target: str) -> tuple[float, float] | None:
    """`(scale, offset)` with `target = scale * source + offset`; None when the units do not convert."""
    if source.replace("**", "") == target:
        return 1.0, 0.0
    if (source, target) in COMMON:
        return COMMON[source, target]
    if (number := _number(source)) is not None:  # CMIP's salinity is in units of 0.001, input4MIPs' CO2 in 1.e-6
        one = linear("1", target)
        return one and (one[0] * number, one[1])
    source_unit, target_unit = _unit(source), _unit(target)
    if source_unit.dimensionality != target_unit.dimensionality or ("mol" in source) != ("mol" in target):
        return None  # a mole fraction and a mass fraction are both without dimension
    quantity = _registry().Quantity
    offset = float(quantity(0.0, source_unit).to(target_unit).magnitude)
    return float(quantity(1.0, source_unit).to(target_unit).magnitude) - offset, offset


def conversion(units: str, variable: Variable, interval_seconds: float | None = None) -> tuple[float, float]:
    """`(scale, offset)` from `units` to the table's.

    A height becomes a geopotential by standard gravity, and a mass of snow or water a depth of it; a pure number (ppm) is one
    of molecules for a mole fraction. For step means, a depth of water becomes a mass per area, and an amount per area is
    divided by the interval over which the source accumulated it.

    Raises `ValueError` for units that do not convert, and for an accumulation whose interval is not known.
    """
    if direct := linear(units, variable.units):
        return direct
    if variable.standard_name in ("geopotential", "surface_geopotential") and (metres := linear(units, "m")):
        return metres[0] * STANDARD_GRAVITY, 0.0
    if str(variable.standard_name).startswith("lwe_thickness") and (mass := linear(units, "kg m-2")):
        return mass[0] / WATER_DENSITY, 0.0
    if variable.units == MOLE_FRACTION and "kg" not in units and (number := linear(units, "1")):
        return number
    if variable.cell == "mean":
        density = WATER_DENSITY if variable.units.startswith("kg") else 1.0
        if density > 1 and (depth := linear(units, "m s-1")):
            return depth[0] * density, 0.0
        amount = linear(units, f"{variable.units} s") or (density > 1 and linear(units, "m"))
        if amount:
            if interval_seconds is None:
                raise ValueError(
                    f"Expected interval_hours for {variable.name}: its units {units!r} are those of an accumulation"
                )
            scale = amount[0] if linear(units, f"{variable.units} s") else amount[0] * density
            return scale / interval_seconds, 0.0
    raise ValueError(f"Expected units of {variable.name} that convert to {variable.units!r}, got {units!r}")
