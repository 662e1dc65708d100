"""What sources say of their values besides the quantity: a statistic of it, an instant, and which sign means what.

Signs of turbulent fluxes by centre (GRIB), each with where it is documented or seen:

- ECMWF, downward positive: "the meteorological convention for all vertical fluxes is that downwards is positive"
  (confluence.ecmwf.int/x/iBigBg). So are the archives that it keeps for others, TIGGE, S2S (display/S2S/Surface+latent+
  heat+flux) and UERRA (x/-RAVAw), whichever centre made the message.
- DWD, downward positive: "fluxes to the surface are in general positive" of COSMO, whose ALHFL_S is a
  surface_downward_latent_heat_flux (CLM community, forum on AEVAP_S); ICON follows it.
- Meteo-France, downward positive: ARPEGE shares its code with ECMWF's IFS; a page of its own has not been seen.
- NCEP, upward positive, and stresses are what the air gains: in a GFS forecast the mean over the globe is +84 W m-2 of
  latent and +7 W m-2 of sensible heat, and the eastward stress is correlated with the wind at 10 m by -0.81.
- Met Office, upward positive: STASH m01s03i217 and m01s03i234 are surface_upward_sensible_heat_flux and
  surface_upward_latent_heat_flux in the tables of Iris and of the CMIP suites.
- JMA, upward positive: JRA-55's atlas has both upward in the surface's net flux (jra.kishou.go.jp, C_NET-HEATFLX).

CMIP6's hfls, hfss and evspsbl are upward by their standard names and `positive: up` (cmip6dr.ceda.ac.uk).
"""

import logging
import re
from collections.abc import Mapping

import xarray as xr

from emulator.planet.variables import Variable, variable

log = logging.getLogger(__name__)

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
# productionStatusOfProcessedData of TIGGE, S2S and UERRA (WMO's code table 1.3), tests included.
SHARED_ARCHIVES = (4, 5, 6, 7, 8, 9)

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
    r"(?:max|min|std)\d*$|(?:^|_)(?:max|min|maximum|minimum|mx|mn|std|stddev|sd|anom|anomaly|spread)(?:_|\d|$)|^t(?:max|min)"
    r"|^m[xn]\d?t|^(?:10)?fg\d*$",  # ECMWF's fg10 is the largest gust of an interval, its i10fg that of an instant
    re.IGNORECASE,
)
_DESCRIBED = re.compile(
    r"\b(?:maximum|minimum|max|min|standard deviation|variance|anomaly|anomalies|spread|uncertainty|"
    r"since previous post-processing)\b",
    re.IGNORECASE,
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


def is_its_mean(name: str, array: xr.DataArray, path: str) -> bool:
    """Whether a field that the table has as a mean over the step is no snapshot in a source.

    Snapshots, and signs that nothing tells, are named in the log.
    """
    entry = variable(name)
    if entry.cell == "mean" and time_method(array.attrs) == "point":
        log.warning(
            "%s is an instantaneous field in %s and no mean: left out of %s; to ingest it, give it a name of its own, as in "
            "define: {%s: {cell: point}}", array.name, path, name, array.name,
        )  # fmt: skip
        return False
    if not sign_is_known(entry, array.attrs):
        log.warning(
            "The sign of %s from the centre %s (%s) is not known; taken as %s, see negate",
            array.name, array.attrs.get("GRIB_centre"), path, entry.sign,
        )  # fmt: skip
    return True


def with_centre(dataset: xr.Dataset) -> xr.Dataset:
    """Variables that cfgrib wrote, with the centre and edition that it leaves to the file."""
    shared = {key: dataset.attrs[key] for key in ("GRIB_centre", "GRIB_edition") if key in dataset.attrs}
    if not shared:
        return dataset
    dataset = dataset.copy()
    for array in dataset.data_vars.values():
        if "GRIB_shortName" in array.attrs:
            array.attrs.update(shared | array.attrs)
    return dataset


def with_methods_of_terms(dataset: xr.Dataset) -> xr.Dataset:
    """Fields of `formula_terms` without `cell_methods`, as CMOR's `ps` beside monthly means: they are of their intervals what
    the fields on those levels are."""
    for name, coordinate in dataset.variables.items():
        terms = str(coordinate.attrs.get("formula_terms", "")).replace(":", " ").split()[1::2]
        bare = [term for term in terms if term in dataset and "cell_methods" not in dataset[term].attrs]
        users = [array for own, array in dataset.data_vars.items() if name in array.dims and own not in terms]
        methods = {time_method(array.attrs) for array in users} - {None}
        if bare and len(methods) == 1:
            (method,) = methods
            dataset = dataset.assign(
                {term: dataset[term].assign_attrs(cell_methods=f"time: {method}") for term in bare}
            )
    return dataset
