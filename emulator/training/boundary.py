"""The boundary of a limited area in a training: what of it is taken, and whether it is there at all times."""

from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from emulator.conservation.options import ConservationOptions
from emulator.data.border import Border, same_levels
from emulator.data.boundary import Boundary
from emulator.data.channels import Channels, Layout
from emulator.data.samples import Samples
from emulator.planet.frame import cells_over
from emulator.planet.grid import Grid
from emulator.planet.quantities.energy import EnergyForm
from emulator.store.analysis import open_analysis
from emulator.store.outflow import Outflow
from emulator.store.schema import grid_of, levels_at
from emulator.training.options import TrainOptions
from emulator.training.options.sections import BoundaryOptions


def border_of(options: BoundaryOptions, layout: Layout, domain: Grid, budgets: Sequence[str] = ()) -> Border:
    """What a network is given of the state outside, and of which budgets, where there is a file of what leaves the domain.

    Raises `ValueError` for a variable or levels that are not there.
    """
    store, own = open_analysis(options.store), layout.prognostic
    names = options.variables or own.names
    if absent := [name for name in names if name not in store]:
        raise ValueError(f"Expected {', '.join(names)} at the boundary, {options.store} lacks {', '.join(absent)}")
    found = Channels.of(store, names)
    if options.place == "inside":
        given, levels = dict(zip(names, found.levels, strict=True)), dict(zip(own.names, own.levels, strict=True))
        if wrong := [name for name in own.names if given.get(name) != levels[name]]:
            raise ValueError(
                f"Expected all prognostic variables on their own levels for a boundary inside the domain, {options.store} "
                f"gives {wrong[0]} {_on(given.get(wrong[0]))}, the domain has it {_on(levels[wrong[0]])}"
            )
        for name in own.names:
            _check_places(name, levels_at(store, name), layout.at.get(name) or (), options.store)
    width = options.width if options.width_degrees is None else cells_over(domain, options.width_degrees)
    at = tuple(levels_at(store, name) for name in found.names)
    return Border(found.names, found.levels, width, options.place, tuple(budgets) if options.outflow else (), at)


def _check_places(name: str, given: Sequence[float], own: Sequence[float], store: Path) -> None:
    if not same_levels(given, own):
        raise ValueError(
            f"Expected {name} on the domain's own levels for a boundary inside the domain, {_values(own)}, {store} has it on "
            f"{_values(given)}"
        )


def _values(levels: Sequence[float]) -> str:
    return ", ".join(f"{level:g}" for level in levels)


def _on(levels: int | None) -> str:
    return "not at all" if levels is None else f"on {levels} levels" if levels else "without levels"


def boundary_of(options: TrainOptions, store: xr.Dataset, layout: Layout) -> Boundary | None:
    """The driving data of a training; None for none. Raises `ValueError` where they do not cover the boundary."""
    if layout.border is None:
        return None
    path, closing, outflow = options.boundary.store, ConservationOptions.of(options.conservation), None
    if layout.border.outflow:
        form = closing.energy, closing.heat_capacity, closing.kinetic
        outflow = Outflow(options.boundary.outflow, layout.border.outflow, grid_of(store), vars(EnergyForm(*form)))
    return Boundary(open_analysis(path), layout.border, grid_of(store), path, outflow=outflow)


def check_boundary(boundary: Boundary | None, samples: Samples) -> None:
    """Raises `ValueError` where driving data lack a time at which samples have a state."""
    if boundary is not None:
        times = samples.times[~samples.missing]
        for time in times:
            boundary.fields.check(None, time)
        for length in samples.layout.lengths if boundary.outflow is not None else ():
            starts = samples.starts(1, length)
            boundary.check_outflow([None] * len(starts), samples.times[starts], samples.times[starts + length])
