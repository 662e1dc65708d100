"""Units and tables of other archives against what those publish, written down here: nothing is taken from our own tables."""

import numpy as np
import pytest
import xarray as xr

from emulator.exports.cmor import cmor_of
from emulator.exports.targets.anemoi import AMOUNTS, columns_of
from emulator.planet.constants import ERA5
from emulator.planet.variables import VARIABLES
from emulator.sources.formats.anemoi import _units_of_ecmwf

# ECMWF's parameter database: accumulations and their units, and means of the newer encoding
ECMWF = {
    "tp": "m", "cp": "m", "lsp": "m", "sf": "m", "e": "m", "ro": "m", "sro": "m", "ssro": "m", "smlt": "m",
    "vimd": "kg m-2", "ssr": "J m-2", "str": "J m-2", "ssrd": "J m-2", "strd": "J m-2", "ssrc": "J m-2", "strc": "J m-2",
    "tisr": "J m-2", "tsr": "J m-2", "ttr": "J m-2", "tsrc": "J m-2", "ttrc": "J m-2", "sshf": "J m-2", "slhf": "J m-2",
    "ewss": "N m-2 s", "nsss": "N m-2 s",
}  # fmt: skip
RATES = {"mtpr": "kg m-2 s-1", "avg_tprate": "kg m-2 s-1", "mvimd": "kg m-2 s-1", "avg_slhtf": "W m-2"}


def test_ecmwfs_amounts_are_read_in_its_units():
    assert {name: _units_of_ecmwf(name, None) for name in ECMWF | RATES} == ECMWF | RATES


@pytest.mark.parametrize("name", AMOUNTS)
def test_ecmwfs_amounts_are_written_in_its_units(name):
    field = ("time", np.zeros(1), {"units": VARIABLES[name].units, "cell_methods": "time: mean"})
    (column,) = columns_of(xr.Dataset({name: field}), name, 21600.0)
    assert column.amount and column.factor == (0.001 if ECMWF[column.text] == "m" else 1.0)


# CMIP6's data request: name, units, standard name, theirs in ours, realm, table of monthly means, areas
CMIP6 = {
    "snow_depth": ("snw", "kg m-2", "surface_snow_amount", 1000.0, "landIce land", "LImon", "areacella"),
    "snow_thickness": ("snd", "m", "surface_snow_thickness", 1.0, "landIce land", "LImon", "areacella"),
    "snow_cover": ("snc", "%", "surface_snow_area_fraction", 100.0, "landIce land", "LImon", "areacella"),
    "temperature_of_snow_layer": ("tsn", "K", "temperature_in_surface_snow", 1.0, "landIce land", "LImon", "areacella"),
    "mean_snowmelt_rate": ("snm", "kg m-2 s-1", "surface_snow_melt_flux", 1.0, "landIce land", "LImon", "areacella"),
    "mean_runoff_rate": ("mrro", "kg m-2 s-1", "runoff_flux", 1.0, "land", "Lmon", "areacella"),
    "mean_surface_runoff_rate": ("mrros", "kg m-2 s-1", "surface_runoff_flux", 1.0, "land", "Lmon", "areacella"),
    "total_soil_water_content": ("mrso", "kg m-2", "mass_content_of_water_in_soil", 1.0, "land", "Lmon", "areacella"),
    "mean_evaporation_rate": ("evspsbl", "kg m-2 s-1", "water_evapotranspiration_flux", -1.0, "atmos", "Amon", "areacella"),
    "mean_snowfall_rate": ("prsn", "kg m-2 s-1", "snowfall_flux", 1.0, "atmos", "Amon", "areacella"),
    "sea_surface_temperature": ("tos", "degC", "sea_surface_temperature", 1.0, "ocean", "Omon", "areacello"),
    "sea_water_salinity": ("so", "0.001", "sea_water_salinity", 1.0, "ocean", "Omon", "areacello"),
    "sea_ice_cover": ("siconc", "%", "sea_ice_area_fraction", 100.0, "seaIce", "SImon", "areacello"),
}  # fmt: skip


def test_cmip6_has_its_units_tables_and_areas():
    found = {name: cmor_of(VARIABLES[name], ERA5) for name in CMIP6}
    told = {
        n: (c.name, c.units, c.standard_name, c.scale, c.realm, c.table("mon", "mean"), c.area)
        for n, c in found.items()
    }
    assert told == CMIP6
    daily = {
        "snow_depth": "day",
        "mean_runoff_rate": "day",
        "snow_thickness": "Eday",
        "mean_surface_runoff_rate": "Eday",
    }
    assert {name: found[name].table("day", "mean") for name in daily} == daily
