"""Tables of series as text: a column `time` in ISO 8601, and one of numbers for each series, `name` or `name [units]`."""

import csv
import io
import re

import numpy as np
import xarray as xr

from emulator.sources.open import Format, Request, register

HEAD = re.compile(rb"\A(?:\xef\xbb\xbf)?(?:#[^\n]*\n)*\s*\"?time\"?\s*[,;]", re.IGNORECASE)
COLUMN = re.compile(r"\s*(.*?)\s*(?:\[(.*)\]\s*)?")


def opens(location: str, path: str, request: Request) -> list[xr.Dataset]:
    """One dataset of series `(time,)`, float64. Lines that begin with `#` are left out; an empty cell is a missing value.

    Raises `ValueError` naming the path and the line for what is no number and no time.
    """
    with open(location, encoding="utf-8-sig", newline="") as file:
        lines = [line for line in file if line.strip() and not line.startswith("#")]
    mark = ";" if ";" in lines[0] and "," not in lines[0] else ","
    header, *rows = csv.reader(io.StringIO("".join(lines)), delimiter=mark)
    names, units = zip(*((m[1], m[2]) for m in map(COLUMN.fullmatch, header)), strict=True)
    table = np.empty((len(rows), len(names) - 1))
    times = np.empty(len(rows), "datetime64[ns]")
    for number, row in enumerate(rows):
        try:
            times[number] = np.datetime64(row[0].strip().removesuffix("Z"), "ns")
            table[number] = [float(cell) if cell.strip() else np.nan for cell in row[1 : len(names)]]
        except ValueError:
            text = mark.join(row)
            raise ValueError(
                f"Expected a time and {len(names) - 1} numbers in row {number + 1} of {path}, got {text!r}"
            ) from None
    if not len(rows):
        raise ValueError(f"Expected rows of times and numbers in {path}, got a header alone")
    attributes = [{"units": unit.strip()} if unit else {} for unit in units[1:]]
    fields = {n: ("time", column, a) for n, column, a in zip(names[1:], table.T, attributes, strict=True)}
    return [xr.Dataset(fields, {"time": times})]


register(Format("csv", "CSV", opens, begins=lambda start: HEAD.match(start) is not None, suffixes=(".csv",)))
