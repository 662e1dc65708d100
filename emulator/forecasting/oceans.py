"""The ocean of forecasts from options."""

import os

import xarray as xr

from emulator.forecasting.ocean_network import NetworkSea
from emulator.forecasting.options import EnsembleOptions, OceanOptions, SlabOptions
from emulator.forecasting.sea import Sea, SlabSea
from emulator.model.stepper import Stepper


def make_sea(
    options: OceanOptions,
    model: Stepper,
    dataset: xr.Dataset,
    length: int = 1,
    ensemble: EnsembleOptions | None = None,
    output: str | os.PathLike | None = None,
) -> Sea:
    """The ocean for forecasts of a model from a store, of steps of `length` of its times, written to `output`.

    Raises `ValueError`, naming what is lacking, for a model or stores that cannot be coupled.
    """
    if isinstance(options, SlabOptions):
        return SlabSea(options, model, dataset, length)
    return NetworkSea(options, model, dataset, length, ensemble, output)
