"""What fields are that the variable table does not know: from their definitions, their CF metadata, or a store of ours.

A definition says what its file does not, or says otherwise than it; a name of the table stays what the table says, so that a
definition of one adds where the field exists and what its bounds are. Two statements that contradict each other are refused.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence

import xarray as xr

from emulator.planet.units import linear
from emulator.planet.variables import Variable, known
from emulator.planet.vertical import VERTICAL
from emulator.sources.axes import time_coordinates, vertical_coordinate
from emulator.sources.harmonise import matches
from emulator.sources.horizontal import on_the_sphere
from emulator.sources.options import Definition, SourceOptions
from emulator.store.schema import time_cell

log = logging.getLogger(__name__)
KEPT = ("standard_name", "cell", "sign")  # of which the table has the last word
ROLES = ("prognostic", "forcing", "diagnostic", "static")
Opened = Sequence[tuple[str, xr.Dataset, SourceOptions]]  # path, content under the names of the store, options


def entries(opened: Opened, define: Mapping[str, Definition], chosen: Sequence[str]) -> dict[str, Variable]:
    """Entries of the fields that the table does not know, or that are defined, by name.

    Args:
      opened: the sources; define: name -> definition; chosen: names that are asked for.

    Raises `ValueError` for a definition that contradicts the table, a rename or its file; and for a field without units.
    """
    _check_renames(opened, define)
    found, told = {}, set()
    for path, dataset, options in opened:
        for own in dataset.data_vars:
            variable = dataset.variables[own]
            ours = variable.attrs.get("role") in ROLES and "units" in variable.attrs
            if variable.dtype.kind not in "fiu" or not (define or ours or own in chosen):
                continue
            array = dataset[own]
            if (meant := _meant(str(own), array, define, chosen, options)) and own not in told:
                told.add(own)
                log.warning(
                    "%s of %s is taken for a field of its own, without units, bounds and sign of the variable table, which "
                    "knows it as %s; to mean that, name it so under define, variables and roles",
                    own,
                    path,
                    meant,
                )
            for name in _names(str(own), array, define, chosen):
                if name in found:
                    continue
                try:
                    found[name] = _entry(name, array, define.get(name, Definition()), options)
                except ValueError as error:
                    raise ValueError(f"{error} ({path})") from None
    return found


def _names(own: str, array: xr.DataArray, define: Mapping[str, Definition], chosen: Sequence[str]) -> list[str]:
    """The names of the store under which a variable of a source has an entry: its own, and what the table takes it for."""
    ours = array.attrs.get("role") in ROLES and "units" in array.attrs
    if own in define or (known(own) is None and (ours or own in chosen)):
        return [own]
    return [match.name for match in matches(own, array) if match.name in define and not match.term]


def _meant(own: str, array: xr.DataArray, define, chosen: Sequence[str], options: SourceOptions) -> str | None:
    """What the table calls a variable that is defined or chosen by its file's name; None where it does not know it."""
    ours = array.attrs.get("role") in ROLES and "units" in array.attrs
    if own not in {*define, *chosen} or known(own) is not None or ours or own in options.rename.values():
        return None
    return next((match.name for match in matches(own, array) if not match.term), None)


def _check_renames(opened: Opened, define) -> None:
    for path, _, options in opened:
        for old, new in options.rename.items():
            if old in define and old != new:
                raise ValueError(
                    f"Expected {old} of {path} either defined or renamed, got it renamed to {new} and defined; define {new}"
                )


def _entry(name: str, array: xr.DataArray, definition: Definition, options: SourceOptions) -> Variable:
    given = {key: value for key, value in dataclasses.asdict(definition).items() if value is not None}
    given |= {"units": str(given["units"])} if "units" in given else {}
    table, asked = known(name), given.pop("levels", None)
    axis, coordinate = found if (found := vertical_coordinate(array)) is not None else (None, None)
    axis = axis and axis.name
    if axis not in (None, "level") and coordinate.size == 1 and asked is None and not (table and table.levels):
        axis = None  # one height or depth is a surface's
    vertical = _vertical(name, asked, axis)
    theirs = str(array.attrs.get("domain", "all"))
    if given.get("domain", theirs) != theirs != "all":
        raise ValueError(f"Expected {name} in the domain {given['domain']} as it is defined, got {theirs} in its file")
    if table is not None:
        _check_against_table(given, table, vertical)
        return dataclasses.replace(table, vertical=vertical, **given)
    recorded = array.attrs
    of_file = {key: str(recorded[key]) for key in ("standard_name", "long_name", "sign", "domain") if recorded.get(key)}
    of_file |= {key: float(recorded[key]) for key in ("minimum", "maximum") if key in recorded}
    if recorded.get("short_name"):
        of_file["short"] = str(recorded["short_name"])
    cell = _cell(name, given.pop("cell", None), array, options)
    units = given.pop("units", None) or options.units.get(name) or recorded.get("units")
    if not units:
        raise ValueError(
            f"Expected units of {name}, got none in its file and none under define: {{{name}: {{units: ...}}}}"
        )
    units = str(units)
    linear(units, units + " ")  # raises for units that are none
    usual = "static" if cell == "fixed" else "diagnostic" if cell == "mean" else "prognostic"
    usual = usual if on_the_sphere(array) or usual == "static" else "forcing"  # a series in time
    role = given.pop("role", None) or recorded.get("role", usual)
    return Variable(name, units, role, vertical=vertical, cell=cell, **of_file | given)


def _vertical(name: str, asked: bool | str | None, axis: str | None) -> str | None:
    """The vertical dimension of a field whose file has it on `axis`."""
    if isinstance(asked, str) and asked not in VERTICAL:
        raise ValueError(f"Expected levels of {name} among {', '.join(VERTICAL)}, true or false, got {asked!r}")
    if asked not in (None, False) and (axis is None if asked is True else asked != axis):
        raise ValueError(
            f"Expected {name} on {'levels' if asked is True else asked} as it is defined, got it on {axis or 'none'}"
        )
    return None if asked is False else axis


def _cell(name: str, asked: str | None, array: xr.DataArray, options: SourceOptions) -> str:
    times = [c for c in time_coordinates(array, options.forecast) if c is not None]
    moves = any(set(c.dims) & set(array.dims) for c in times) or bool(times)
    recorded = time_cell(array.attrs)
    if asked is not None:
        if recorded in ("point", "mean") and asked != recorded and asked != "fixed":
            raise ValueError(
                f"Expected {name} as a {asked} as it is defined, got the cell method {recorded!r} along time"
            )
        return asked
    if recorded not in (None, "point", "mean"):
        raise ValueError(
            f"Expected a snapshot or a mean of {name}, got the cell method {recorded!r} along time; say which of the two it "
            f"is taken for: define: {{{name}: {{cell: mean}}}}"
        )
    return recorded or ("point" if moves else "fixed")


def _check_against_table(given: Mapping, table: Variable, vertical: str | None) -> None:
    units = given.get("units")
    if units is not None and linear(units, table.units) != (1.0, 0.0):
        raise ValueError(
            f"Expected {table.name} in {table.units} as the variable table has it, got it defined in {units}; a field of "
            "other units needs a name of its own (rename)"
        )
    for key in KEPT:
        mine, theirs = given.get(key), getattr(table, key)
        if mine is not None and theirs is not None and mine != theirs:
            raise ValueError(
                f"Expected {key} of {table.name} to be {theirs!r} as the variable table has it, got it defined as {mine!r}; "
                "another field needs a name of its own (rename)"
            )
    if (vertical is None) != (table.vertical is None):
        raise ValueError(
            f"Expected {table.name} on {'levels' if table.levels else 'no levels'} as the variable table has it, got it on "
            f"{vertical or 'none'}"
        )
