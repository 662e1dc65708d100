"""The control of a slab: a simulation over prescribed seas, whose surface flux says what heat the currents have to bring."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from emulator.embedded.fluxes import SURFACE, net_surface_flux
from emulator.embedded.simulation import DEFAULT_MODEL, RECORD, SimulationOptions
from emulator.planet.grid import Grid

MONTHS = 12
LENGTHS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
DAYS = LENGTHS.sum()
MIDDLES = np.cumsum(LENGTHS) - LENGTHS / 2
SAME = ("truncation", "time_step_minutes", "physics", "sst_offset", "sst_file")  # with the slab's own simulation


def check_control(path: Path, wanted: dict[str, Any], first: np.datetime64, last: np.datetime64) -> None:
    """Raises `ValueError` naming what makes a folder no control of a slab from the first to the last day.

    `wanted`: the slab's own record, as `SimulationOptions.record` has it of settings of which none is left out.
    """
    record = _record(path)
    if record.get("model", DEFAULT_MODEL) != DEFAULT_MODEL or record.get("ocean") is not None:
        got = f"a simulation of {record['model']}" if "model" in record else "one over a slab"
        raise ValueError(
            f"Expected a simulation of {DEFAULT_MODEL} over prescribed seas as ocean.control, got {got} in {path}"
        )
    for name in SAME:
        if (record.get(name) or None) != (wanted.get(name) or None):
            raise ValueError(
                f"Expected an ocean.control with {name} = {wanted.get(name)}, as the slab's own simulation has it, got "
                f"{record.get(name)} in {path}"
            )
    chunks = _chunks(path, record)
    with xr.open_dataset(chunks[0], decode_times=False) as dataset:
        if missing := [name for name in SURFACE if name not in dataset]:
            raise ValueError(f"Expected {', '.join(missing)} in the chunks of ocean.control, got none in {chunks[0]}")
    needed = set(_months(np.arange(first.astype("datetime64[D]"), last.astype("datetime64[D]"))))
    if absent := sorted(needed - set(_months(_days(record)))):
        raise ValueError(
            f"Expected days of every month of the slab's simulation in ocean.control, got none of month "
            f"{', '.join(map(str, absent))} in {path}: make the control a year long"
        )


def flux_of(path: Path, grid: Grid) -> np.ndarray:
    """Values at the middles of the months between which the control's net surface flux runs: W m-2, `(month, *grid.shape)`.

    They are chosen so that the linear course between them has the monthly means of the control (Taylor, Williamson and Zwiers
    2000, PCMDI report 60); NaN for months that the control does not hold. Raises `ValueError` for chunks on another grid.
    """
    total, count = np.zeros((MONTHS, *grid.shape)), np.zeros(MONTHS, int)
    for chunk in _chunks(path, _record(path)):
        with xr.open_dataset(chunk) as dataset:
            if not Grid.from_coordinates(dataset["latitude"].values, dataset["longitude"].values).same_as(grid):
                raise ValueError(f"Expected an ocean.control on {grid.describe()}, got another grid in {chunk}")
            flux = net_surface_flux({name: dataset[name].values for name in SURFACE})
            # a mean belongs to the day that it ends in, midnight to the day before
            months = _months((dataset["time"].values - np.timedelta64(1, "s")).astype("datetime64[D]"))
        for month in np.unique(months):
            total[month - 1] += flux[months == month].sum(axis=0)
            count[month - 1] += int((months == month).sum())
    held = count > 0
    means = total[held] / count[held, None, None]
    of_day = np.repeat(np.arange(MONTHS), LENGTHS)
    weights = np.stack([_between(day + 0.5, held) for day in range(DAYS)])[:, held]
    monthly = np.stack([weights[of_day == month].mean(axis=0) for month in np.flatnonzero(held)])
    nodes = np.full((MONTHS, *grid.shape), np.nan)
    nodes[held] = np.tensordot(np.linalg.inv(monthly), means, axes=1)
    return nodes


def course(nodes: np.ndarray, day: np.datetime64) -> np.ndarray:
    """The value at noon of a day, by `flux_of`'s values: `(latitude, longitude)`."""
    month = int(_months(np.array([day], "datetime64[D]"))[0])
    within = int((day.astype("datetime64[D]") - day.astype("datetime64[M]").astype("datetime64[D]")).astype(int))
    held = np.isfinite(nodes).reshape(MONTHS, -1).all(axis=1)
    weights = _between(
        np.cumsum(LENGTHS)[month - 1] - LENGTHS[month - 1] + min(within, LENGTHS[month - 1] - 1) + 0.5, held
    )
    return np.tensordot(weights[held], nodes[held], axes=1)


def _between(position: float, held: np.ndarray) -> np.ndarray:
    """Shares `(month,)` of the values at the middles of the held months, at a day of a year of 365 that goes round."""
    places, unit = MIDDLES[held], np.eye(MONTHS)[held]
    return np.array([np.interp(position, places, column, period=DAYS) for column in unit.T])


def _months(days: np.ndarray) -> np.ndarray:
    """1 to 12, `(day,)`."""
    return days.astype("datetime64[M]").astype(int) % MONTHS + 1


def _days(record: dict[str, Any]) -> np.ndarray:
    first = np.datetime64(record["start"]) + np.timedelta64(record["spin_up_days"], "D")
    return np.arange(first, first + np.timedelta64(record["days"], "D"))


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads((Path(path) / RECORD).read_text())
        _days(record)
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(
            f"Expected the folder of a simulation as ocean.control, got none ({RECORD}) in {path}"
        ) from None
    return record


def _chunks(path: Path, record: dict[str, Any]) -> list[Path]:
    """The chunks of a finished simulation, in order. Raises `ValueError` naming the first that is not there."""
    lengths = {name: record[name] for name in ("days", "spin_up_days", "chunk_days")}
    chunks = list(SimulationOptions(Path(path), **lengths, start=date.fromisoformat(record["start"])).chunks().values())
    if lacking := [chunk for chunk in chunks if not chunk.exists()]:
        raise ValueError(f"Expected a finished simulation as ocean.control, {lacking[0]} is not there yet")
    return chunks
