"""Checks of units, signs, time cells and plausible means, before any budget is formed from the fields.

A published configuration fed J m-2 into a slot for W m-2, a factor of 21 600, and nothing noticed: here the variable
table says what a field is, and the data must agree, by their attributes and by their means over the training period.
"""

from collections.abc import Mapping

from emulator.conservation import fluxes
from emulator.planet.constants import ERA5, Constants
from emulator.planet.variables import VARIABLES, Variable

# Global means over at least some weeks, on an Earth-like planet, generously. Anything outside is a unit or a sign.
PLAUSIBLE = {
    "surface_pressure": (5e4, 1.2e5),
    "temperature": (150.0, 350.0),
    "specific_humidity": (0.0, 0.05),
    fluxes.PRECIPITATION: (2e-6, 3e-4),
    fluxes.SNOWFALL: (0.0, 1e-4),
    fluxes.EVAPORATION: (-3e-4, -2e-6),
    "mean_top_net_short_wave_radiation_flux": (80.0, 450.0),
    "mean_top_net_long_wave_radiation_flux": (-450.0, -80.0),
    "mean_surface_net_short_wave_radiation_flux": (30.0, 400.0),
    "mean_surface_net_long_wave_radiation_flux": (-250.0, -1.0),
    "mean_surface_sensible_heat_flux": (-200.0, 10.0),
    fluxes.LATENT_HEAT: (-600.0, -4.0),
}
LATENT_TOLERANCE = 0.25  # sublimation takes 13 % more heat than evaporation
EITHER_WAY = ("mean_surface_sensible_heat_flux",)  # of a region's mean: cold ground takes heat from the air


def check_units(attributes: Mapping[str, Mapping]) -> None:
    """Compare variables' attributes with the table.

    Args:
      attributes: by variable, its attributes: `units` must be there; `cell_methods`, `standard_name` and `sign` are
        checked where they are. Names outside the table are passed over.

    Raises:
      ValueError: naming the variable, what was expected and what came.
    """
    for name, given in attributes.items():
        if name not in VARIABLES:
            continue
        entry = VARIABLES[name]
        units = " ".join(str(given.get("units", "")).split())
        if units != entry.units:
            raise ValueError(f"Expected {name} in {entry.units}, got {units or 'no units'!r}{_hint(entry, units)}")
        method = str(given.get("cell_methods") or "")
        wrong = {"mean": ("sum", "point"), "point": ("sum", "mean")}.get(entry.cell, ())
        words = {part.split("(")[0].strip() for part in method.removeprefix("time:").split(" within ")}
        if method.startswith("time:") and words & set(wrong):
            kind = "a mean over the step" if entry.cell == "mean" else "a snapshot"
            raise ValueError(f"Expected {name} as {kind}, got cell_methods {method!r}")
        _check_sign(entry, given)


def check_means(means: Mapping[str, float], constants: Constants = ERA5, region: bool = False) -> None:
    """Compare means over the training period with what is possible on an Earth-like planet.

    Args:
      means: by variable, the area mean in the table's units (over levels as well).
      constants: the data's own, for the latent heat.
      region: they are not of the whole globe. A desert has no rain and a polar night no sun, so that sizes are not compared;
        a mean that would be plausible with the other sign still tells of a sign that is turned round.

    Raises:
      ValueError: naming the variable and whether its sign or its size is wrong.
    """
    for name, mean in means.items():
        if name not in PLAUSIBLE:
            continue
        low, high = PLAUSIBLE[name]
        units, sign = VARIABLES[name].units, VARIABLES[name].sign
        turned = f" The sign convention is {sign}." if sign and low <= -mean <= high else ""
        if low <= mean <= high or (region and (not turned or name in EITHER_WAY)):
            continue
        reason = "its sign is turned round" if turned else "its unit or its time cell is another"
        raise ValueError(
            f"Expected a {'regional' if region else 'global'} mean of {name} between {low:g} and {high:g} {units}, got "
            f"{mean:.4g}: {reason}.{turned}"
        )
    hardly = region and abs(means.get(fluxes.EVAPORATION, 0.0)) < -PLAUSIBLE[fluxes.EVAPORATION][1]
    if fluxes.EVAPORATION in means and fluxes.LATENT_HEAT in means and not hardly:
        expected = constants.latent_heat_vaporisation * means[fluxes.EVAPORATION]
        if not abs(means[fluxes.LATENT_HEAT] / expected - 1) <= LATENT_TOLERANCE:
            raise ValueError(
                f"Expected {fluxes.LATENT_HEAT} near the latent heat of {fluxes.EVAPORATION}, {expected:.4g} W m-2, got "
                f"{means[fluxes.LATENT_HEAT]:.4g}: one of the two has another unit"
            )


def _check_sign(entry: Variable, given: Mapping) -> None:
    sign = given.get("sign")
    if sign is not None and sign != entry.sign:
        raise ValueError(f"Expected {entry.name} with the sign {entry.sign!r}, got {sign!r}")
    standard = str(given.get("standard_name") or "")
    downward = entry.standard_name is not None and "downward" in entry.standard_name
    if downward and ("upward" in standard or "outgoing" in standard):
        raise ValueError(
            f"Expected {entry.name} downward positive ({entry.standard_name}), got the standard_name {standard!r}: turn "
            "its sign round"
        )


def _hint(entry: Variable, units: str) -> str:
    if entry.cell == "mean" and units in ("J m-2", "J m**-2", "kg m-2", "kg m**-2", "m"):
        return ", an amount over an interval: divide it by the interval's seconds"
    return ""
