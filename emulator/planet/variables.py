"""The variable table: what each canonical name means, so that units, signs and time cells are checked and never guessed.

Names are ERA5's long names as in WeatherBench 2 and ARCO-ERA5. Fluxes are mean rates over the step that ends at `time`,
ECMWF sign: downward positive, so evaporation and surface heat losses are negative. The table is knowledge, not a gate:
fields that it does not know have entries of their own, which a store keeps (`emulator.store.schema.entry`).
"""

import dataclasses
import re

from emulator.planet.table import atmosphere, composition, fluxes, land, ocean
from emulator.planet.table.entries import Variable as Variable

_TABLE = (*atmosphere.TABLE, *fluxes.TABLE, *land.TABLE, *ocean.TABLE, *composition.TABLE)


class _Table(dict):
    """The table by name; asked for a layer mean (`temperature_mean_300_850`), it answers with the entry of that."""

    def __missing__(self, name: str) -> Variable:
        if (layer := layer_mean(name)) is None:
            raise KeyError(name)
        base = self[layer[0]]
        return dataclasses.replace(base, name=name, role="diagnostic", vertical=None, standard_name=None, short="")


VARIABLES: dict[str, Variable] = _Table({variable.name: variable for variable in _TABLE})


# CF attributes of coordinates, alike in all files that are written.
COORDINATES = {
    "time": {"standard_name": "time", "axis": "T"},
    "member": {"standard_name": "realization", "axis": "E"},
    "latitude": {"units": "degrees_north", "standard_name": "latitude", "axis": "Y"},
    "longitude": {"units": "degrees_east", "standard_name": "longitude", "axis": "X"},
}


def layer_mean(name: str) -> tuple[str, float, float] | None:
    """Variable, upper and lower pressure in hPa that the name of a layer mean says; None for any other name."""
    match = re.fullmatch(r"(.+)_mean_(\d+)_(\d+)", name)
    if match is None or match[1] not in _ON_LEVELS or not float(match[2]) < float(match[3]):
        return None
    return match[1], float(match[2]), float(match[3])


_ON_LEVELS = {variable.name for variable in _TABLE if variable.vertical == "level"}


def known(name: str) -> Variable | None:
    """The table's entry for a name, those of layer means included; None for a name that the table does not know."""
    try:
        return VARIABLES[name]
    except KeyError:
        return None


def variable(name: str) -> Variable:
    """The table's entry for a canonical name. Raises `ValueError`, naming close matches, for an unknown one."""
    if (entry := known(name)) is not None:
        return entry
    import difflib

    near = difflib.get_close_matches(name, VARIABLES, n=3, cutoff=0.5)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    raise ValueError(f"Expected a variable of the table (ERA5 long name), got {name!r}{hint}")
