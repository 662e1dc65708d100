"""Forecasts of foreign models from an analysis store, and our models for earth2studio: what a notebook and a stage call."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from emulator.bridges.analysis_source import AnalysisSource
from emulator.bridges.forecasts import ForeignForecaster
from emulator.bridges.foreign.registry import ForeignModel, make_foreign
from emulator.forecasting.options import ThinOptions
from emulator.forecasting.run import attributes_of, times_of
from emulator.forecasting.schedule import Schedule, count_steps
from emulator.forecasting.writing import Output, in_memory, write
from emulator.store.forecast import open_forecast


def earth2studio_model(model, forcing=None, **more):
    """A trained network as a prognostic model of earth2studio; arguments as of `emulator.bridges.earth2studio.Emulator`.

    `model`: a checkpoint's folder, or what `emulator.load_model` gives. `forcing`: an analysis store, opened, its path or an
    `AnalysisSource`, or any data source of earth2studio. Raises `ImportError` where earth2studio is not installed.
    """
    from emulator.bridges.earth2studio import Emulator

    return Emulator(model, forcing, **more)


def foreign_forecaster(model: Mapping[str, Any] | ForeignModel, analysis) -> ForeignForecaster:
    """What forecasts with a foreign model, or with what a section `{kind: ..., **options}` says, from an analysis.

    `analysis`: the store, opened or its path. Raises `ValueError` for a model that does not fit it.
    """
    source = AnalysisSource(analysis)
    return ForeignForecaster(make_foreign(model, source) if isinstance(model, Mapping) else model, source)


def foreign_attributes(forecaster: ForeignForecaster, model: str) -> dict:
    """What a store of its forecasts says of where they come from."""
    own = attributes_of(forecaster.dataset, forecaster.model, None, forecaster.length)
    own |= {"title": "forecast of a foreign model", "model": model}
    return own | {name: 1 for name in ("levels_selected",) if forecaster.dataset.attrs.get(name)}


def foreign_forecast(
    model: Mapping[str, Any] | ForeignModel,
    analysis: xr.Dataset | str | os.PathLike,
    init,
    days: float | None = None,
    *,
    lead: str | None = None,
    thin: ThinOptions | Mapping | None = None,
    output: str | os.PathLike | None = None,
) -> xr.Dataset:
    """Forecasts `(init_time, lead_time, level, latitude, longitude)` with a model of another package.

    Args:
      model: `{"kind": "earth2studio", "factory": ...}` and so on, as `rollout.model` has it, or a `ForeignModel`.
      analysis, init, days, lead, thin, output: as of `emulator.forecast`.

    Raises `ValueError` for a model that does not fit the store, and for times that the store lacks.
    """
    if (days is None) == (lead is None):
        raise ValueError(f"Expected days or a lead, got {days} and {lead}")
    forecaster = foreign_forecaster(model, analysis)
    thin = ThinOptions.of(thin) if isinstance(thin, Mapping) else thin or ThinOptions()
    times = times_of(forecaster.dataset, init)
    steps = count_steps(forecaster.forcing.step, days or 0.0, lead)
    schedule = Schedule.of(forecaster.forcing, times, steps, thin.every_hours, thin.mean)
    name = str(model["kind"]) if isinstance(model, Mapping) else type(model).__name__
    attributes = foreign_attributes(forecaster, name)
    if output is None:
        return in_memory(forecaster, times, schedule, attributes, thin)
    write(Output(Path(output), attributes, [[(0, forecaster.model.digest)]], thin), forecaster, times, schedule)
    return open_forecast(output)
