"""CMIP6's variables: what the fields of the variable table are called there, in which units and with which sign.

From the data request of CMIP6 (github.com/PCMDI/cmip6-cmor-tables), for the fields that the table has a
CMIP name for.
"""

import dataclasses

from emulator.planet.constants import Constants
from emulator.planet.table import land, ocean
from emulator.planet.units import WATER_DENSITY, linear
from emulator.planet.variables import Variable

SPELLED = {"sfcwind": "sfcWind"}  # the table has small letters
UNITS = {
    "zg": "m", "orog": "m", "tos": "degC", "thetao": "degC", "so": "0.001", "sos": "0.001", "clt": "%", "cl": "%",
    "sftlf": "%", "siconc": "%", "snc": "%", "hur": "%", "hurs": "%", "co2": "mol mol-1",
    "snw": "kg m-2",
}  # fmt: skip
# Where CMIP's name, sign or meaning of a field has another standard name than ours.
STANDARD = {
    "zg": "geopotential_height", "orog": "surface_altitude", "evspsbl": "water_evapotranspiration_flux",
    "hfls": "surface_upward_latent_heat_flux", "hfss": "surface_upward_sensible_heat_flux",
    "rlut": "toa_outgoing_longwave_flux", "rlutcs": "toa_outgoing_longwave_flux_assuming_clear_sky",
    "snw": "surface_snow_amount",
}  # fmt: skip
HEIGHTS = {2.0: ("tas", "tdps", "huss", "hurs"), 10.0: ("uas", "vas", "sfcWind")}  # m
OF_HEIGHT = ("zg", "orog")  # geopotential here
# CMIP6's table of a field by its frequency and kind in time: in the atmosphere, the ocean, on land and in ice.
TABLES = {
    ("mon", "mean"): {"atmos": "Amon", "ocean": "Omon", "land": "Lmon", "seaIce": "SImon"},
    ("day", "mean"): {"atmos": "day", "ocean": "Oday", "land": "Eday", "seaIce": "SIday"},
    ("6hr", "mean"): {"atmos": "6hrPlev"},
    ("6hr", "point"): {"atmos": "6hrPlevPt"},
    ("3hr", "mean"): {"atmos": "3hr", "land": "3hr"},
    ("3hr", "point"): {"atmos": "E3hrPt"},
    ("1hr", "mean"): {"atmos": "E1hr"},
    ("fx", "fixed"): {"atmos": "fx", "land": "fx"},
}
SNOW, RUNOFF = ("snw", "snd", "snc", "tsn", "snm"), ("mrro", "mrros")
# Tables that a realm's fields do not share.
OWN_TABLES = {
    ("mon", "mean"): dict.fromkeys(SNOW, "LImon"),
    ("day", "mean"): dict.fromkeys(("mrro", "mrso", "snc", "snw"), "day"),
}
_OCEAN, _LAND = ({v.name for v in part.TABLE} for part in (ocean, land))


@dataclasses.dataclass(frozen=True)
class Cmor:
    """What CMIP6 calls a field.

    Attributes:
      name: such as `rlut`. scale, offset: theirs is `scale * ours + offset`. positive: "up", "down" or "".
      realm: atmos, ocean, land, landIce land or seaIce.
    """

    name: str
    units: str
    standard_name: str
    scale: float
    offset: float
    positive: str
    realm: str

    @property
    def height(self) -> float | None:
        """Height above the ground that the name says, m."""
        return next((height for height, names in HEIGHTS.items() if self.name in names), None)

    def table(self, frequency: str, cell: str) -> str | None:
        """The table that has it at a frequency, of means, snapshots or fixed; None where none has."""
        if own := OWN_TABLES.get((frequency, cell), {}).get(self.name):
            return own
        return TABLES.get((frequency, cell), {}).get("atmos" if frequency == "fx" else self.realm.split()[-1])

    @property
    def area(self) -> str:
        """The field of cells' areas that goes with it."""
        return "areacello" if self.realm in ("ocean", "seaIce") else "areacella"


def cmor_of(field: Variable, constants: Constants) -> Cmor | None:
    """CMIP6's variable of a field; None for a field without one, or in units that do not convert.

    `field`: as its store has it. `constants`: by whose gravity a geopotential becomes a height.
    """
    if not field.cmip:
        return None
    turned, plain = field.cmip.startswith("-"), field.cmip.lstrip("-")
    name = SPELLED.get(plain, plain)
    units = UNITS.get(name, field.units)
    factor = (1 / constants.gravity, 0.0) if name in OF_HEIGHT else linear(field.units, units)
    if name == "snw" and (depth := linear(field.units, "m")):
        factor = depth[0] * WATER_DENSITY, 0.0  # ours is the depth of its water
    if factor is None:
        return None
    sign = -1.0 if turned else 1.0
    standard = STANDARD.get(name) or field.standard_name or ""
    realm = "seaIce" if name.startswith("si") else "ocean" if field.name in _OCEAN else "atmos"
    realm = "land" if (field.name in _LAND and field.cell != "fixed") or name in RUNOFF else realm
    realm = "landIce land" if name in SNOW else realm
    return Cmor(name, units, standard, sign * factor[0], sign * factor[1], _positive(field, turned), realm)


def _positive(field: Variable, turned: bool) -> str:
    """CMIP's attribute `positive`, which fluxes of energy and momentum have."""
    if field.cell != "mean" or field.units not in ("W m-2", "N m-2"):
        return ""
    upward = (field.sign or "").startswith("upward") or turned
    return "up" if upward else "down"
