"""What a training's options make of its store: the channels, and what predictions count from."""

import dataclasses

import xarray as xr

from emulator.conservation.options import ConservationOptions
from emulator.data.channels import Layout, More
from emulator.data.climatology import Climatology
from emulator.model.gaps import REFUSED
from emulator.model.predictions import PREDICTIONS
from emulator.parallel.space import ALONE, Space
from emulator.planet.quantities.registry import quantities
from emulator.store.schema import grid_of
from emulator.training.boundary import border_of
from emulator.training.options import TrainOptions


def climatology_of(
    options: TrainOptions, store: xr.Dataset, layout: Layout, space: Space = ALONE
) -> Climatology | None:
    """What a training's predictions count from, where they do. Raises `ValueError` where it is not there or does not fit."""
    if not PREDICTIONS[options.predict].reference:
        return None
    if options.climatology is None:
        raise ValueError(
            f"Expected train.climatology, a store that stats writes, for predict {options.predict}, got none"
        )
    return Climatology(options.climatology, layout.prognostic, grid_of(store), space)


def layout_of(options: TrainOptions, store: xr.Dataset) -> Layout:
    """The layout that a training has on a store. Raises `ValueError` for what the store lacks, or does not fit it."""
    more = More(options.forcing_moments, options.history, options.steps, options.mask_channels, options.gaps)
    layout = Layout.of(store, chosen(options), str(options.store), more)
    if options.boundary is not None:
        asked = ConservationOptions.of(options.conservation).budgets
        budgets = [name for name in quantities() if name in asked]
        layout = dataclasses.replace(layout, border=border_of(options.boundary, layout, grid_of(store), budgets))
    if options.gaps != REFUSED and not layout.prognostic.names:
        raise ValueError(
            f"Expected prognostic variables, of which states may lack some, with gaps {options.gaps}, got none"
        )
    return layout


def chosen(options: TrainOptions) -> dict:
    """Variables that the options name, by group, as `Layout.of` takes them."""
    return {group: getattr(options, group) for group in ("prognostic", "diagnostic", "forcing")}
