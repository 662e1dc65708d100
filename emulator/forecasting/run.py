"""Forecasts with trained models from an analysis store: one call for a notebook, and what a batch stage is made of."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.data.channels import Layout
from emulator.forecasting.driving import Forecasts, driven
from emulator.forecasting.forecaster import Forecaster
from emulator.forecasting.models import Models
from emulator.forecasting.nudging import nudged_by
from emulator.forecasting.oceans import make_sea
from emulator.forecasting.options import (
    DiffusionOptions,
    DrivingOptions,
    EnsembleOptions,
    OceanOptions,
    RestoringOptions,
    ThinOptions,
    ocean_options,
)
from emulator.forecasting.restoring import restored_to
from emulator.forecasting.schedule import Schedule, count_steps
from emulator.forecasting.writing import Output, compact_json, in_memory, write
from emulator.kernels import freed_memory
from emulator.kernels.denormals import flushed
from emulator.model.saved_model import load_model, with_gaps, with_step
from emulator.model.stepper import Stepper
from emulator.planet.grid import CLOSED
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast
from emulator.store.schema import time_step_seconds


@flushed()
def forecast(
    model: Stepper | Sequence[Stepper] | str | os.PathLike,
    analysis: xr.Dataset | str | os.PathLike,
    init,
    days: float | None = None,
    *,
    lead: str | None = None,
    ensemble: EnsembleOptions | Mapping | int | None = None,
    thin: ThinOptions | Mapping | None = None,
    output: str | os.PathLike | None = None,
    batch_size: int = 8,
    step_hours: float | None = None,
    climatology: str | os.PathLike | None = None,
    ocean: OceanOptions | Mapping | None = None,
    bounds: str = "trained",
    diffusion: DiffusionOptions | Mapping | None = None,
    offsets: Mapping[str, float] | None = None,
    boundary: DrivingOptions | Mapping | str | os.PathLike | None = None,
    restoring: RestoringOptions | Mapping | None = None,
) -> xr.Dataset:
    """Forecasts `(init_time, lead_time, [member,] level, latitude, longitude)` of `days` days, or of a `lead`.

    Args:
      model: what `emulator.load_model` gives, or the path of a checkpoint; several share the members of an ensemble.
      analysis: the analysis store, opened or its path, with the initial states and the forcing.
      init: initial time or times that the store has, as dates, text or datetime64.
      lead: in place of `days`, such as `12 months`, in which a store of calendar steps counts.
      ensemble: options, or a number of members with the default ones.
      thin: what is kept of the forecasts.
      output: a store that is written, and opened; a stopped call goes on with it. None: in memory.
      batch_size: forecasts computed at a time.
      step_hours: of a network that makes steps of several lengths, which; None: the shortest.
      climatology: path of what a network's predictions count from, where it does; None: as it was trained.
      ocean: that steps the sea's temperature, such as `{"kind": "slab", "depth": 50}`; None: it is prescribed.
      bounds: "trained"; "inputs" or "none": states may leave the envelope of the training data, of which "inputs" shows the
        network no more than its edge.
      diffusion: of small scales, such as `{"hours": 40, "degree": 31}`, for long runs; None: none.
      offsets: by variable of the forcing, in its units, what is added to it everywhere and always.
      boundary: of a limited area the path of driving data, an analysis or forecasts, or `{"checkpoint": PATH, "store": PATH}`
        for a global emulator that runs beside, each with `nudging` or without; None: the analysis that it was trained with.
      restoring: surface fluxes of an ocean that answer the surface of its forecast, such as `{"days": 30}`; None: prescribed.

    Over eight parameters, all but four by name alone, and by the name that each has in a configuration's `rollout`: a
    notebook is to find each where it looks for it.

    Raises `ValueError` for models that do not fit the store or the ensemble, and for times that the store lacks.
    """
    freed_memory.keep()
    dataset = analysis if isinstance(analysis, xr.Dataset) else open_analysis(analysis)
    given = [model] if isinstance(model, Stepper | str | os.PathLike) else list(model)
    models = Models([load_model(one) if isinstance(one, str | os.PathLike) else one for one in given])
    ensemble = EnsembleOptions(ensemble) if isinstance(ensemble, int) else ensemble
    ensemble = EnsembleOptions.of(ensemble) if isinstance(ensemble, Mapping) else ensemble
    thin = ThinOptions.of(thin) if isinstance(thin, Mapping) else thin or ThinOptions()
    saved = getattr(models.first, "metadata", None)
    dataset = with_gaps(with_step(dataset, saved), saved)
    models.check(dataset, ensemble)
    models = models.bounded(bounds).drawn(ensemble)
    length = step_length(models.first.layout, dataset, step_hours)
    models = models.diffused(DiffusionOptions.of(diffusion) if isinstance(diffusion, Mapping) else diffusion, length)
    ocean = ocean_options(ocean) if isinstance(ocean, Mapping) else ocean
    sea = ocean and make_sea(ocean, models.first, dataset, length, ensemble, output)
    restoring = RestoringOptions.of(restoring) if isinstance(restoring, Mapping) else restoring
    if not isinstance(restoring, RestoringOptions | None):
        raise ValueError(f"Expected restoring as options such as {{'days': 30}}, got {restoring!r}")
    restored = restored_to(restoring, models.stages(), dataset, length)
    how = ensemble, length, climatology, sea, offsets, restored
    forecaster = Forecaster(models.steppers, dataset, batch_size, *how)
    times = times_of(dataset, init)
    if (days is None) == (lead is None):
        raise ValueError(f"Expected days or a lead, got {days} and {lead}")
    steps = count_steps(forecaster.forcing.step, days or 0.0, lead)
    schedule = Schedule.of(forecaster.forcing, times, steps, thin.every_hours, thin.mean)
    attributes = attributes_of(dataset, models.first, ensemble, length, offsets, restoring)
    boundary = {"store": boundary} if isinstance(boundary, str | os.PathLike) else boundary
    driving = DrivingOptions.of(boundary) if isinstance(boundary, Mapping) else boundary
    forecasts = Forecasts(times, forecaster.forcing.step, steps)
    outside, told = driven(driving, models.first, forecaster.forcing.grid, forecasts, output and Path(output))
    forecaster.driven_by(outside, nudged_by(driving, models.stages(), outside, forecasts.step.seconds, times[0]))
    attributes |= told
    if output is None:
        return in_memory(forecaster, times, schedule, attributes, thin)
    write(Output(Path(output), attributes, models.weights(), thin), forecaster, times, schedule)
    return open_forecast(output)


def times_of(dataset: xr.Dataset, init) -> list:
    """Initial times as the store has them. Raises `ValueError` for one that it lacks."""
    wanted = [init] if isinstance(init, str) or np.ndim(init) == 0 else list(init)
    index = dataset.indexes["time"]
    times = []
    for time in wanted:
        try:
            position = index.get_loc(str(time) if not isinstance(time, str) else time)
        except KeyError:
            position = None
        if isinstance(position, slice):  # a date without an hour is its first time
            position = position.start if position.start < position.stop else None
        if position is None:
            raise ValueError(f"Expected initial times of the analysis, {index[0]} to {index[-1]}, got {time}")
        times.append(dataset["time"].values[position])
    return times


def step_length(layout: Layout, dataset: xr.Dataset, hours: float | None) -> int:
    """Length of a forecast's steps, in steps of the store. Raises `ValueError` for one that the network does not make."""
    if hours is None:
        return layout.lengths[0]
    own = time_step_seconds(dataset) / 3600
    made = [length * own for length in layout.lengths]
    if not any(abs(hours - each) < 1e-9 for each in made):
        text = ", ".join(f"{each:g}" for each in made)
        raise ValueError(f"Expected step_hours among those of the network, {text}, got {hours:g}")
    return round(hours / own)


def attributes_of(
    dataset: xr.Dataset,
    model: Stepper,
    ensemble: EnsembleOptions | None = None,
    length: int = 1,
    offsets: Mapping[str, float] | None = None,
    restoring: RestoringOptions | None = None,
) -> dict:
    """What a forecast store says of where it comes from; `length` of its steps, in steps of the analysis.

    `offsets`: of the forcing, and `restoring`, which the store tells too.
    """
    kept = ("vertical_coordinate", "constants", "source", "history", "time_step_months", CLOSED)
    attributes = {name: dataset.attrs[name] for name in kept if name in dataset.attrs}
    attributes |= {"title": "emulator forecast", "time_step_seconds": dataset.attrs["time_step_seconds"]}
    if saved := getattr(model, "metadata", None):
        attributes |= {
            "time_step_seconds": saved["step_seconds"],
            "checkpoint": saved["sha256"],
            "conservation": saved["config"]["conservation"].get("kind", "sequential"),
            "training_period": " to ".join(saved["period"]),
            **{name: value for name, value in saved["scheme"].items() if name.startswith("unaccounted")},
        }
    attributes["time_step_seconds"] *= length
    if getattr(model, "scheme", None) is None:
        attributes["conservation"] = "none"
    for name, of in (("bounds", "bounded_by"), ("diffusion", "diffused_by")):
        attributes |= {name: told} if (told := getattr(model, of, "")) else {}
    attributes |= {"forcing_offsets": json.dumps(dict(offsets), sort_keys=True)} if offsets else {}
    attributes |= {"restoring": compact_json(restoring)} if restoring else {}
    return attributes | ({"ensemble": compact_json(ensemble)} if ensemble else {})
