"""What fields are over in time, snapshots or means over so many hours: only what is alike in truth and forecasts is compared.

A mean over 12 h has smaller extremes than one over 6 h, and ends elsewhere in the day: their difference is no error.
"""

import logging
import re
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from emulator.planet.calendar import lead_seconds
from emulator.store.schema import time_cell

log = logging.getLogger(__name__)
HOURS = {"second": 1 / 3600, "minute": 1 / 60, "hour": 1.0, "day": 24.0}
INTERVAL = re.compile(r"\btime:\s*\w+[^:()]*\(\s*interval:\s*([0-9.eE+-]+)\s*(second|minute|hour|day)s?\b")


def all_unlike(names: Sequence[str], truth: xr.Dataset, forecasts: Mapping[str, xr.Dataset]) -> dict[str, str]:
    """Which variables cannot be compared and why, in words, which the log has too."""
    found = {name: reason for name in names if (reason := unlike(name, truth, forecasts)) is not None}
    for name, reason in found.items():
        log.warning("%s is not scored: %s", name, reason)
    return found


def unlike(name: str, truth: xr.Dataset, forecasts: Mapping[str, xr.Dataset]) -> str | None:
    """Why a variable cannot be compared, in words, since it is averaged otherwise in time; None where nothing says so."""
    stores = {"the truth": truth} | {f"the forecast {name}": dataset for name, dataset in forecasts.items()}
    over = {store: _over(dataset, name) for store, dataset in stores.items()}
    cells = {store: cell for store, (cell, _) in over.items() if cell is not None}
    hours = {store: found for store, (_, found) in over.items() if found is not None}
    if len(set(cells.values())) > 1:
        return f"of different kinds in time: {_listed({store: _kind(cell) for store, cell in cells.items()})}"
    if len({round(each, 4) for found in hours.values() for each in found}) <= 1:
        return None
    longest = max(max(found) for found in hours.values())
    texts = {
        store: f"means over {' and '.join(f'{h:g}' for h in sorted(set(found)))} h" for store, found in hours.items()
    }
    return (
        f"over different intervals: {_listed(texts)}; ingest the truth, or the forecast, with step_hours: {longest:g}"
    )


def _over(dataset: xr.Dataset, name: str) -> tuple[str | None, list[float] | None]:
    """The cell method of a field along time, and the hours that means are over, of each lead; None for what is not known."""
    attributes = dataset[name].attrs
    cell = time_cell(attributes)
    if cell != "mean" or dataset.attrs.get("time_step_months"):
        return cell, None
    own = "emulator_schema" in dataset.attrs
    recorded = INTERVAL.search(str(attributes["cell_methods"]))
    hours = float(recorded[1]) * HOURS[recorded[2]] if recorded else None
    if not own:
        return cell, hours and [hours]
    step = float(dataset.attrs.get("time_step_seconds", 0)) / 3600
    if "lead_time" in dataset[name].dims and (not step or dataset.attrs.get("time_mean")):
        return cell, _between_leads(dataset)
    # Several stores as one average over its step, and have longer means as they are.
    return cell, [max(step, hours or 0.0)] if step else None


def _between_leads(dataset: xr.Dataset) -> list[float] | None:
    leads = dataset["lead_time"].values
    if leads.dtype.kind in "iu" or not len(leads):
        return None
    return sorted({round(float(h), 4) for h in np.diff(lead_seconds(leads), prepend=0) / 3600} - {0.0})


def _kind(cell: str) -> str:
    return {"point": "snapshots", "mean": "means"}.get(cell, f"the {cell}")


def _listed(texts: Mapping[str, str]) -> str:
    return ", ".join(f"{text} in {store}" for store, text in texts.items())
