"""Units and tables of other archives against what those publish, written down here: nothing is taken from our own tables."""

import numpy as np
import pytest
import xarray as xr

from emulator.exports.targets.anemoi import AMOUNTS, columns_of
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
