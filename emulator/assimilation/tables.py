"""Real reports as observations: METAR of MADIS, CSV and verif's text by the readers of the verification, BUFR by ecCodes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emulator.assimilation.bufr import read_bufr
from emulator.assimilation.observations import Observations
from emulator.assimilation.options import TableOptions
from emulator.verify.stations import read_table

BUFR = (".bufr", ".bfr", ".buf")


def read_reports(options: TableOptions) -> Observations:
    """Reports of one table, one row for every value that it has of the variables asked for.

    Values that are missing, or that MADIS flagged, make no row. Raises `ValueError` in one sentence for a file that cannot be
    read, and for a variable that it has not.
    """
    path, variables = Path(options.path), list(options.errors)
    system = options.system or path.stem
    if path.suffix in BUFR:
        found = read_bufr(path, variables, options.vertical)
    else:
        found = _rows(read_table(path), path, variables)
    if absent := [name for name in variables if not (found.variable == name).any()]:
        had = ", ".join(sorted(set(found.variable.tolist()))) or "none of them"
        raise ValueError(f"Expected reports of {', '.join(absent)} in {path}, it has {had}")
    error = np.array([options.errors[name] for name in found.variable.tolist()])
    return found.replace(error=error, system=np.full(len(found), system))


def _rows(table, path, variables: Sequence[str]) -> Observations:
    """A table with a column for each variable as rows, in the order of the table."""
    if "init_time" in table:
        observed = [f"observed {name}" for name in variables if f"observed {name}" in table]
        if not observed:
            raise ValueError(f"Expected reports in {path}, got forecasts alone")
        columns = {name.removeprefix("observed "): table[name] for name in observed}
        table = table.assign(time=table["init_time"] + table["lead_time"])
    else:
        columns = {name: table[name] for name in variables if name in table}
    parts = []
    for name, column in columns.items():
        value = column.to_numpy(np.float64)
        parts.append(
            Observations(
                operator=np.full(len(value), "point"),
                variable=np.full(len(value), name),
                time=table["time"].to_numpy().astype("datetime64[ns]"),
                latitude=table["latitude"].to_numpy(np.float64),
                longitude=table["longitude"].to_numpy(np.float64),
                value=value,
                error=np.full(len(value), np.nan),
                station=table["station"].to_numpy(dtype=str),
                elevation=table["elevation"].to_numpy(np.float64),
            ).where(np.isfinite(value))
        )
    whole = Observations.concat(parts)
    return whole.where(np.argsort(whole.time, kind="stable"))
