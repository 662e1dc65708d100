"""Feedback of an analysis: every observation with what the background and the analysis give in its place, as Parquet."""

from pathlib import Path

import numpy as np

from emulator.assimilation.observations import UNITS, Observations
from emulator.files.column_table import write_columns
from emulator.verify.feedback import ADDED, SCHEMA


def write_feedback(
    path,
    time,
    observations: Observations,
    rejected: np.ndarray,
    background: np.ndarray,
    analysis: np.ndarray,
    members: np.ndarray | None = None,
) -> Path:
    """One file of an analysis, whole or not at all; a cycle writes its files into one folder.

    Args:
      time: of the analysis. rejected: reasons by `quality`, `(row,)`, "" of rows that were used.
      background, analysis: equivalents, `(row,)`; NaN of rows that have none.
      members: the background's equivalents in an ensemble, `(member, row)`.
    Raises `ValueError` for shapes that do not fit, and without pyarrow.
    """
    count = len(observations)
    given = {"rejected": rejected, "background": background, "analysis": analysis}
    for name, column in given.items():
        if np.shape(column) != (count,):
            raise ValueError(f"Expected {name} of {count} observations, got shape {np.shape(column)}")
    if members is not None and (np.ndim(members) != 2 or np.shape(members)[1] != count or len(members) < 2):
        raise ValueError(f"Expected equivalents of at least 2 members as (member, {count}), got {np.shape(members)}")
    none = np.full(count, np.nan)
    spread = none if members is None else np.std(members, axis=0, ddof=1)
    added = given | {
        "analysis_time": np.full(count, np.datetime64(time, "ns")),
        "background_spread": spread,
        "rank": none if members is None else _rank(observations, members, time),
        "members": none if members is None else np.full(count, float(len(members))),
    }
    columns = observations.columns() | {name: added[name] for name in ADDED}
    return write_columns(path, columns, SCHEMA, UNITS)


def _rank(observations: Observations, members: np.ndarray, time) -> np.ndarray:
    """How many members lie below each observation, `(row,)`, once they have errors like the observation's (Hamill 2001).

    The errors are a function of the analysis' time. NaN where an equivalent is.
    """
    second = int(np.datetime64(time, "s").astype(np.int64)) % (1 << 63)
    noise = np.random.default_rng([second, len(members)]).standard_normal(np.shape(members))
    with np.errstate(invalid="ignore"):
        below = (members + observations.error * noise < observations.value).sum(axis=0)
    known = np.isfinite(members).all(axis=0) & (observations.error > 0) & np.isfinite(observations.value)
    return np.where(known, below, np.nan).astype(np.float64)
