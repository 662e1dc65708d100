"""What sources say of their values besides the quantity: a statistic of it, an instant, and which sign means what.

Signs of centres: ECMWF's (and of those that share its model, or send to TIGGE and S2S) are downward positive, as are DWD's
and Meteo-France's. NCEP's turbulent fluxes (its GRIB table on LHTFL and SHTFL; stresses are tendencies of the air), those of
the Met Office's Unified Model and of JMA's reanalyses are upward positive.
"""

import re
from collections.abc import Mapping

from emulator.planet.variables import Variable

LATENT, SENSIBLE, EVAPORATION = (
    "mean_surface_latent_heat_flux",
    "mean_surface_sensible_heat_flux",
    "mean_evaporation_rate",
)
STRESS = ("mean_eastward_turbulent_surface_stress", "mean_northward_turbulent_surface_stress")
TURBULENT = (LATENT, SENSIBLE, EVAPORATION, *STRESS)
DOWNWARD = ("ecmf", "edzw", "lfpw", "98", "78", "79", "84", "85", "consensus")
UPWARD = {
    **dict.fromkeys(("kwbc", "7"), TURBULENT),
    **dict.fromkeys(("egrr", "74"), (LATENT, SENSIBLE, EVAPORATION)),
    **dict.fromkeys(("rjtd", "34"), (LATENT, SENSIBLE, EVAPORATION)),
}
SHARED_ARCHIVES = (4, 5, 6, 7)  # productionStatusOfProcessedData of TIGGE and S2S, which ask for ECMWF's signs

# Short names in GRIB of other centres than ECMWF; in other files they may be anything.
GRIB_NAMES = {
    "lhf": LATENT,
    "slhtf": LATENT,
    "shf": SENSIBLE,
    "ishf": SENSIBLE,
    "ie": EVAPORATION,
    **dict.fromkeys(("uflx", "utaua", "avg_utaua"), STRESS[0]),
    **dict.fromkeys(("vflx", "vtaua", "avg_vtaua"), STRESS[1]),
    **dict.fromkeys(("prate", "tprate"), "mean_total_precipitation_rate"),
    "cprat": "mean_convective_precipitation_rate",
    **dict.fromkeys(("srweq", "tsrwe"), "mean_snowfall_rate"),
    "sdwe": "snow_depth",
}
# ecCodes calls NCEP's snow on the ground snowfall in GRIB 1: at an instant and in these units it is none.
SNOW_ON_THE_GROUND = {"mean_snowfall_rate": ("kg m**-2", "kg m-2", "m of water equivalent", "m", "mm")}

STATISTICS = ("maximum", "minimum", "range", "mid_range", "median", "mode", "variance", "standard_deviation",
              "root_mean_square", "maximum_absolute_value", "minimum_absolute_value")  # fmt: skip
_METHOD = re.compile(rf"\w+:\s*({'|'.join(STATISTICS)})\b")
_ALONG_TIME = re.compile(r"(?:^|\s)(?:\w*time|t|T):(?:\s*\w+:)*\s*(\w+)")
_STEP_TYPES = {
    **{
        "instant": "point",
        "accum": "sum",
        "diff": "sum",
        "max": "maximum",
        "min": "minimum",
        "rms": "root_mean_square",
    },
    **{
        "sd": "standard_deviation",
        "cov": "variance",
        "ratio": "ratio",
        "range": "range",
        "severity": "mode",
        "mode": "mode",
    },
}
_NAMED = re.compile(
    r"(?:max|min|std)\d*$|(?:^|_)(?:max|min|maximum|minimum|mx|mn|std|stddev|sd|anom|anomaly|spread)(?:_|\d|$)|^t(?:max|min)|^m[xn]\d?t",
    re.IGNORECASE,
)
_DESCRIBED = re.compile(
    r"\b(?:maximum|minimum|max|min|standard deviation|variance|anomaly|anomalies|spread|uncertainty)\b", re.IGNORECASE
)


def time_method(attributes: Mapping) -> str | None:
    """What values are of their interval: "point", "mean", "sum", or a statistic ("maximum", ...); None where nothing tells.

    A statistic of any dimension counts, so also one of the members. GRIB 1 of ECMWF calls accumulations instants: there that
    says nothing.
    """
    step, methods = str(attributes.get("GRIB_stepType", "")), str(attributes.get("cell_methods", ""))
    if attributes.get("GRIB_dataType") == "es":
        return "standard_deviation"
    if found := _METHOD.search(methods):
        return found[1]
    if found := _ALONG_TIME.search(methods):
        return found[1]
    if step == "instant" and not _tells_instants(attributes):
        return None
    return "mean" if step.startswith("avg") else _STEP_TYPES.get(step)


def _tells_instants(attributes: Mapping) -> bool:
    centre, edition = attributes.get("GRIB_centre"), attributes.get("GRIB_edition")
    return str(edition) == "2" or (centre is not None and str(centre) not in ("ecmf", "98"))


def is_named_statistic(name: str, attributes: Mapping) -> bool:
    """Whether a name or a description says that a variable is a statistic of what its standard name says."""
    return bool(_NAMED.search(name) or _DESCRIBED.search(str(attributes.get("long_name", ""))))


def sign_towards_ours(entry: Variable, sign: int, attributes: Mapping) -> int:
    """The sign that turns a flux into the table's: by CMIP's `positive`, or the centre of a GRIB message; else as it is."""
    convention = str(entry.sign or "")
    if (way := attributes.get("positive")) in ("up", "down") and "ward positive" in convention:
        return 1 if (way == "up") == convention.startswith("upward") else -1
    centre = str(attributes.get("GRIB_centre", ""))
    shared = attributes.get("GRIB_productionStatusOfProcessedData") in SHARED_ARCHIVES
    return -sign if entry.name in UPWARD.get(centre, ()) and not shared else sign


def sign_is_known(entry: Variable, attributes: Mapping) -> bool:
    """Whether the sign of a turbulent flux in GRIB is known by its centre; true of everything else."""
    centre = str(attributes.get("GRIB_centre", ""))
    shared = attributes.get("GRIB_productionStatusOfProcessedData") in SHARED_ARCHIVES
    known = centre in ("", *DOWNWARD) or entry.name in UPWARD.get(centre, ()) or shared
    return entry.name not in TURBULENT or known or "positive" in attributes
