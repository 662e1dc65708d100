"""Weather and climate emulators with closed budgets.

    import emulator as em

    truth = em.open_analysis("runs/quickstart/analysis.zarr")
    model = em.load_model("runs/quickstart/train/checkpoint")
    forecast = em.forecast(model, truth, init=["2002-03-12", "2002-03-14"], days=10)
    scores = em.score(forecast, truth)
    em.plot(forecast, "temperature", level=500, lead="3D")

What stands here is the whole public library; everything else may move. Names are imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING

# ecCodes brings a PROJ library of its own. When it is loaded first (xarray loads the GRIB engine with its first open),
# the one of pyproj, which maps need, fails to find its database and the process crashes at exit.
import pyproj  # noqa: F401

if TYPE_CHECKING:  # what editors and type checkers read
    from emulator.assimilation.observing import observe as observe
    from emulator.bridges.analysis_source import AnalysisSource as AnalysisSource
    from emulator.bridges.run import earth2studio_model as earth2studio_model
    from emulator.bridges.run import foreign_forecast as foreign_forecast
    from emulator.data.channels import Layout as Layout
    from emulator.data.forcing import Forcing as Forcing
    from emulator.data.forcing import StepInputs as StepInputs
    from emulator.data.samples import Samples as Samples
    from emulator.downscaling.apply import downscale as downscale
    from emulator.downscaling.saved import load_downscaler as load_downscaler
    from emulator.downscaling.training import train_downscaling as train_downscaling
    from emulator.exports.export import export as export
    from emulator.forecasting.run import forecast as forecast
    from emulator.ingestion.options import IngestOptions as IngestOptions
    from emulator.ingestion.run import ingest as ingest
    from emulator.model.published import fetch as fetch
    from emulator.model.published import publish as publish
    from emulator.model.rollout import rollout as rollout
    from emulator.model.saved_model import load_model as load_model
    from emulator.model.step import Step as Step
    from emulator.model.stepper import Stepper as Stepper
    from emulator.model.stepper import StepResult as StepResult
    from emulator.planet.grid import Grid as Grid
    from emulator.report.figures import plot as plot
    from emulator.sphere.transform import transform as transform
    from emulator.store.analysis import open_analysis as open_analysis
    from emulator.store.forecast import open_forecast as open_forecast
    from emulator.store.pressure import on_pressure as on_pressure
    from emulator.store.statistics import write_statistics as statistics  # noqa: F401
    from emulator.training.run import train as train
    from emulator.verify.audit import audit as budgets  # noqa: F401
    from emulator.verify.outflow import write_outflow as outflow  # noqa: F401
    from emulator.verify.verification import score as score

_WHERE = {
    # data
    "ingest": "emulator.ingestion.run:ingest",  # NetCDF, GRIB or Zarr -> an analysis store
    "IngestOptions": "emulator.ingestion.options:IngestOptions",
    "open_analysis": "emulator.store.analysis:open_analysis",  # a store -> a dataset
    "open_forecast": "emulator.store.forecast:open_forecast",
    "on_pressure": "emulator.store.pressure:on_pressure",  # fields on sigma or hybrid levels -> on pressure levels
    "export": "emulator.exports.export:export",  # a store -> files or stores of other tools
    "statistics": "emulator.store.statistics:write_statistics",  # an analysis store -> what training normalises with
    "outflow": "emulator.verify.outflow:write_outflow",  # driving data and a limited area -> what leaves it by its sides
    # training and forecasts
    "train": "emulator.training.run:train",  # a store and its statistics -> a checkpoint and its step
    "load_model": "emulator.model.saved_model:load_model",  # a checkpoint -> a step
    "publish": "emulator.model.published:publish",  # a checkpoint -> one file or folder with a model card and checksums
    "fetch": "emulator.model.published:fetch",  # and back, from any URL
    "forecast": "emulator.forecasting.run:forecast",  # a model and an analysis -> forecasts, in memory or in a store
    "foreign_forecast": "emulator.bridges.run:foreign_forecast",  # the same with a model of another package
    "earth2studio_model": "emulator.bridges.run:earth2studio_model",  # a model as earth2studio's prognostic model
    "AnalysisSource": "emulator.bridges.analysis_source:AnalysisSource",  # an analysis as a data source of earth2studio
    # downscaling
    "train_downscaling": "emulator.downscaling.training:train_downscaling",  # a fine and a coarse store -> a checkpoint
    "load_downscaler": "emulator.downscaling.saved:load_downscaler",
    "downscale": "emulator.downscaling.apply:downscale",  # a coarse store -> a fine one that keeps its means
    # data assimilation
    "observe": "emulator.assimilation.observing:observe",  # a nature run and tables of reports -> observations
    # verification
    "score": "emulator.verify.verification:score",  # forecasts and a truth -> scores
    "budgets": "emulator.verify.audit:audit",  # an analysis or forecasts -> totals and residuals of every budget
    "plot": "emulator.report.figures:plot",  # maps, curves, budgets
    # for research: a step is a torch module from tensors to tensors, `rollout` a generator of its results
    "rollout": "emulator.model.rollout:rollout",
    "Step": "emulator.model.step:Step",
    "Stepper": "emulator.model.stepper:Stepper",  # the protocol that other models fulfil
    "StepResult": "emulator.model.stepper:StepResult",
    "StepInputs": "emulator.data.forcing:StepInputs",
    "Forcing": "emulator.data.forcing:Forcing",  # forcing and clock of any step
    "Layout": "emulator.data.channels:Layout",  # names of channels
    "Samples": "emulator.data.samples:Samples",  # windows of a store as tensors
    "Grid": "emulator.planet.grid:Grid",
    "transform": "emulator.sphere.transform:transform",  # of a grid: spherical-harmonic analysis and synthesis
}

__all__ = sorted(_WHERE)


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'emulator' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, _, attribute = _WHERE[name].partition(":")
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
