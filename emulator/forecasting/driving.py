"""What drives the forecasts of a limited area: an analysis, stored forecasts, or a global emulator that runs beside them."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.data.boundary import Boundary
from emulator.data.channels import Layout
from emulator.forecasting.forecaster import Forecaster
from emulator.forecasting.options import DrivingOptions, ThinOptions, driving_store
from emulator.forecasting.schedule import Schedule
from emulator.forecasting.writing import Output, in_memory, write
from emulator.model.saved_model import check_match, digest_of, load_model
from emulator.model.stepper import Stepper
from emulator.planet.calendar import TimeStep
from emulator.planet.grid import Grid
from emulator.store.analysis import ANALYSIS, open_analysis
from emulator.store.forecast import open_forecast
from emulator.store.schema import open_zarr

log = logging.getLogger(__name__)
MINIMUM_BATCH = 8


@dataclasses.dataclass(frozen=True)
class Forecasts:
    """The forecasts that are driven: their initial times, and the number and length of their steps."""

    inits: Sequence
    step: TimeStep
    steps: int

    def moments(self) -> tuple[list, list, list]:
        """Of every step of every forecast its initial time, start and end."""
        pairs = [(init, n) for init in self.inits for n in range(self.steps)]
        later = self.step.later
        return [i for i, _ in pairs], [later(i, n) for i, n in pairs], [later(i, n + 1) for i, n in pairs]


def driven(
    options: DrivingOptions | None,
    model: Stepper,
    domain: Grid,
    forecasts: Forecasts,
    output: Path | None = None,
) -> tuple[Boundary | None, dict]:
    """The driving data of forecasts, and what their store says of them; None and nothing for a model without a boundary.

    Args:
      options: None: the analysis with which the model was trained. output: of the forecasts; beside it those of a global
        emulator are written, in memory without one.
    Raises `ValueError` for driving data that lack variables, do not cover the boundary or do not reach as far as the
    forecasts, and for some with a model that takes none.
    """
    border = model.layout.border
    if border is None:
        if options is not None:
            raise ValueError("Expected no rollout.boundary with a network that was trained without one, got one")
        return None, {}
    options = options or DrivingOptions(store=_trained_with(model))
    if options.checkpoint is None:
        dataset = opened(options.store)
        kind, told = ("forecast" if "lead_time" in dataset.dims else "analysis"), dataset.attrs.get("fingerprint")
    else:
        dataset, told = _beside(options, model.layout, forecasts, output)
        kind = "emulator"
    if options.delay_hours and kind != "forecast":
        raise ValueError(
            f"Expected delay_hours with stored forecasts at the boundary alone, got {options.delay_hours:g}"
        )
    boundary = Boundary(dataset, border, domain, options.store, options.delay_hours * 3600)
    boundary.check(*forecasts.moments())
    record = {
        "kind": kind,
        "driving": told,
        "width": border.width,
        "place": border.place,
        "grid": boundary.grid.describe(),
        "delay_hours": options.delay_hours,
    }
    return boundary, {"boundary": json.dumps(record, sort_keys=True)}


def opened(path: Path) -> xr.Dataset:
    """An analysis or a forecast store, by what it says of itself or its dimensions. Raises `ValueError` for neither."""
    schema = open_zarr(path).attrs.get("emulator_schema") if not (Path(path) / "joined.json").exists() else ANALYSIS
    return open_analysis(path) if schema == ANALYSIS else open_forecast(path)


def _trained_with(model: Stepper) -> Path:
    known = (getattr(model, "metadata", {}).get("config", {}).get("boundary") or {}).get("store")
    if known is None:
        raise ValueError("Expected rollout.boundary.store, driving data for this limited area, got none")
    return Path(known)


def _beside(options: DrivingOptions, layout: Layout, forecasts: Forecasts, output: Path | None):
    """Forecasts of a global emulator from the same initial times, as far as the driven ones go; and its digest."""
    analysis, emulator = open_analysis(options.store), load_model(options.checkpoint)
    check_match(emulator.metadata, analysis, options.checkpoint, options.store)
    if emulator.layout.border is not None:
        raise ValueError(
            f"Expected a global emulator at the boundary, {options.checkpoint} is of a limited area itself"
        )
    predicted = (*emulator.layout.prognostic.names, *emulator.layout.diagnostic.names)
    if absent := [name for name in layout.border.names if name not in predicted]:
        raise ValueError(
            f"Expected a global emulator that predicts {', '.join(layout.border.names)} for the boundary, "
            f"{options.checkpoint} does not predict {', '.join(absent)}"
        )
    forecaster = Forecaster([emulator], analysis, MINIMUM_BATCH)
    step = forecaster.forcing.step
    steps = int(np.ceil(forecasts.steps * forecasts.step.seconds / step.seconds - 1e-9))
    schedule, thin = Schedule.every(steps), ThinOptions(variables=tuple(layout.border.names))
    attributes = {
        "title": "driving forecast",
        "time_step_seconds": step.seconds,
        "checkpoint": emulator.metadata["sha256"],
    }
    attributes |= {n: analysis.attrs[n] for n in ("vertical_coordinate", "constants", "source") if n in analysis.attrs}
    told = emulator.metadata["sha256"]
    if output is None:
        return in_memory(forecaster, forecasts.inits, schedule, attributes, thin), told
    path = driving_store(Path(output))
    log.info("the boundary comes from %s, whose forecasts lie in %s", options.checkpoint, path)
    write(Output(path, attributes, [digest_of(emulator)], thin), forecaster, forecasts.inits, schedule)
    return open_forecast(path), told
