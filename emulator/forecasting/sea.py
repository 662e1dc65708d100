"""The ocean of forecasts: what it starts from, what it is given of its own at every step, and what of it is written."""

import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulator.data.channels import Channels, Layout
from emulator.data.forcing import Forcing, StepInputs
from emulator.forecasting.ensembles import space_of
from emulator.forecasting.leads import Lead
from emulator.forecasting.options import SlabOptions
from emulator.model.coupled import SEA_TEMPERATURE, HeatFlux, Ocean, check_coupling
from emulator.model.slab import SHARE, Slab
from emulator.model.stepper import Stepper
from emulator.parallel.host_copies import to_device
from emulator.parallel.space import ALONE, Space
from emulator.planet import slab
from emulator.planet.grid import Grid
from emulator.planet.variables import VARIABLES
from emulator.store.masks import LAND_SEA_MASK, domain_of
from emulator.store.schema import constants_of, entry, grid_of

log = logging.getLogger(__name__)

PRECISE = (SEA_TEMPERATURE,)  # written in float64: a step changes it by some hundred units in the last place of float32
_EMPTY = Channels((), ())
KEYS = {slab.DEPTH: "depth", slab.CONVERGENCE: "convergence"}  # of the configuration, by variable


@dataclasses.dataclass(frozen=True)
class Begun:
    """The ocean at initial times, all rows: its state, what is written beside the atmosphere's, and in a store of its own."""

    state: dict[str, Tensor]
    beside: dict[str, Tensor]
    lead: Lead | None = None


class Sea(Protocol):
    """An ocean for forecasts from a store.

    Attributes:
      ocean: what the models are coupled with.
      attributes: of the fields that it adds to the forecasts, by name.
      record: what a forecast store says of it; tells its numbers from those with another ocean.
      output: of a network, what it writes in a store of its own; else None.
    """

    ocean: Ocean
    attributes: Mapping[str, Mapping]
    record: Mapping
    output: object | None

    def check(self, times: Sequence) -> None:
        """Raises `ValueError` for initial times from which it cannot start."""
        ...

    def begin(self, times: Sequence, members: int) -> Begun:
        """At initial times, every one repeated for its members, on the models' device."""
        ...

    def inputs(self, times: Sequence, number: int) -> StepInputs:
        """What it is given of its own in step `number` of the atmosphere, of forecasts from `times`; in the host's memory."""
        ...


class SeaTemperatures:
    """The prescribed sea temperature of every step at its start and its end, and what else comes from a store with it.

    Args:
      dataset: the atmosphere's analysis. length: of a step, in steps of the store. names: more variables.
      space: the processes that hold a state together, of which this one reads its rows.
    """

    def __init__(self, dataset: xr.Dataset, length: int, names: Sequence[str] = (), space: Space = ALONE):
        channels = Channels.of(dataset, [SEA_TEMPERATURE, *names])
        moments = ["end" if entry(dataset, name).cell == "mean" else "start" for name in names]
        layout = Layout(_EMPTY, _EMPTY, channels, _EMPTY, ("both", *moments))
        self.given, self.forcing = layout.given, Forcing(dataset, layout, length, space=space)

    def inputs(self, times: Sequence, number: int) -> StepInputs:
        """Of step `number`, counted from 1, of forecasts from `times`."""
        given = self.forcing.inputs([self.forcing.later(time, number - 1) for time in times])
        return given if given.length is None else given._replace(length=given.length / self.forcing.length)


class SlabSea:
    """A slab for the forecasts of a model from a store.

    Args:
      options: where depth and convergence come from.
      model: whose fluxes warm it. dataset: its analysis. length: of its steps, in steps of the store.

    Raises `ValueError`, naming what is lacking, for a model or a store that no slab can be coupled with.
    """

    output = None

    def __init__(self, options: SlabOptions, model: Stepper, dataset: xr.Dataset, length: int = 1):
        flux = HeatFlux(model, constants_of(dataset))
        check_coupling(model.layout, flux.takes)
        self._land, grid = land_share(dataset), grid_of(dataset)
        self._dataset, self._device, constant, names = dataset, model.device, {}, []
        record = {"kind": "slab", "heat_capacity_of_a_metre": slab.heat_capacity(1.0)}
        for name, value in ((slab.DEPTH, options.depth), (slab.CONVERGENCE, options.convergence)):
            if (fixed := _fixed(value, name, dataset, grid)) is None:
                names.append(name)
            else:
                constant[name] = fixed
            record[name] = "store" if value is None else _told(value, fixed)
        if not options.under_ice and slab.ICE in dataset:
            names.append(slab.ICE)
        record["under_ice"] = options.under_ice or slab.ICE not in dataset
        for name, field in constant.items():
            self._check_in_sea(name, field, f"rollout.ocean.{KEYS[name]}")
        space = space_of(model)  # a layer knows nothing of its neighbours: each process steps its rows
        self._temperatures = SeaTemperatures(dataset, length, names, space)
        on_device = {n: to_device(space.cut(torch.from_numpy(v)), self._device) for n, v in constant.items()}
        land = to_device(space.cut(torch.from_numpy(self._land)), self._device)
        seconds = self._temperatures.forcing.step_seconds
        self.ocean = Slab(flux, self._temperatures.given, land, seconds, on_device, options.under_ice)
        self.record, self.attributes = record, written_attributes(dataset)

    def check(self, times: Sequence) -> None:
        """Raises `ValueError` for a depth or a convergence of the store that is none where there is sea."""
        for name in KEYS:
            if name not in self.ocean.constant and len(times):
                self._check_in_sea(name, self._dataset[name].sel(time=times[0]).values, f"{name} at {times[0]}")

    def begin(self, times: Sequence, members: int) -> Begun:
        given = self.inputs(times, 1)
        given = given.rows(torch.arange(len(times)).repeat_interleave(members)).to(self._device)
        return Begun(self.ocean.start(given), self.ocean.beside(given))

    def inputs(self, times: Sequence, number: int) -> StepInputs:
        return self._temperatures.inputs(times, number)

    def _check_in_sea(self, name: str, field: np.ndarray, where: str) -> None:
        there = field > 0 if name == slab.DEPTH else np.isfinite(field)
        lacking = slab.is_sea(self._land) & ~np.broadcast_to(there, self._land.shape)
        if lacking.any():
            what = "a depth of the slab above 0 m" if name == slab.DEPTH else "a convergence of heat"
            raise ValueError(
                f"Expected {what} in every cell of the sea, got none in {int(lacking.sum())} cells in {where}"
            )


def land_share(dataset: xr.Dataset) -> np.ndarray:
    """Share of land in every cell, `(*space)` float64: `land_sea_mask`, or where the sea's temperature does not exist.

    Raises `ValueError` where a store has neither, and where they differ.
    """
    exists = domain_of(dataset, SEA_TEMPERATURE)
    if LAND_SEA_MASK not in dataset and exists is None:
        raise ValueError(
            f"Expected {LAND_SEA_MASK} in the store, or {SEA_TEMPERATURE} with a domain, which tell where an ocean is; got "
            "neither"
        )
    if LAND_SEA_MASK not in dataset:
        return 1.0 - exists
    land = np.asarray(dataset[LAND_SEA_MASK].values, np.float64)
    if exists is not None and (lacking := int((slab.is_sea(land) & ~exists).sum())):
        raise ValueError(
            f"Expected the masks to agree, got {lacking} cells that are sea by {LAND_SEA_MASK} and in which "
            f"{SEA_TEMPERATURE} does not exist"
        )
    return np.nan_to_num(land, nan=1.0)


def written_attributes(dataset: xr.Dataset) -> dict[str, dict]:
    """Attributes of the fields that a slab adds to forecasts."""
    found = {}
    for name in (SEA_TEMPERATURE, slab.DEPTH, slab.CONVERGENCE):
        table = VARIABLES[name]
        own = {"units": table.units} | ({"standard_name": table.standard_name} if table.standard_name else {})
        found[name] = (dict(dataset[name].attrs) if name in dataset else own) | {"role": "forcing"}
    found[SEA_TEMPERATURE]["role"] = "prognostic"
    share = {"units": "1", "long_name": "share of the cell whose heat the slab takes in the step that ends at the lead"}
    return found | {SHARE: share | {"role": "forcing"}}


def _fixed(value: float | str | None, name: str, dataset: xr.Dataset, grid: Grid) -> np.ndarray | None:
    """A number, a file's field or a static one of the store, `(*space)` float64; None for a field of the store in time.

    Values are those of float32, in which they are written beside the forecast.
    """
    if value is None:
        if name not in dataset:
            key = KEYS[name]
            hint = "; 0 goes without currents" if name == slab.CONVERGENCE else ""
            raise ValueError(
                f"Expected rollout.ocean.{key}, a number or a file, since the store has no {name}, got none{hint}"
            )
        return None if "time" in dataset[name].dims else _on_grid(dataset[name], grid, "the store")
    if not isinstance(value, str):
        return np.full(grid.shape, np.float32(value), np.float64)
    if not Path(value).exists():
        raise ValueError(f"Expected a number, or a file with {name}, got {value!r}, which is not there")
    with xr.open_dataset(value) as found:
        if name not in found or "time" in found[name].dims:
            what = (
                "one that changes in time" if name in found else f"{', '.join(map(str, found.data_vars)) or 'nothing'}"
            )
            raise ValueError(f"Expected a field {name} without times in {value}, got {what}")
        return _on_grid(found[name], grid, value)


def _on_grid(field: xr.DataArray, grid: Grid, where) -> np.ndarray:
    if set(field.dims) != set(grid.dims) or field.transpose(*grid.dims).shape != grid.shape:
        raise ValueError(f"Expected {field.name} on {grid.describe()} in {where}, got it on {dict(field.sizes)}")
    field = field.transpose(*grid.dims)
    for axis in ("latitude", "longitude"):
        if axis in field.coords and not np.allclose(field[axis], getattr(grid, axis), atol=1e-4):
            raise ValueError(f"Expected {field.name} on {grid.describe()} in {where}, got another {axis}")
    return np.asarray(field.values, np.float32).astype(np.float64)


def _told(value: float | str, fixed: np.ndarray) -> float | str:
    """A number, or what tells a file's values from others wherever it lies."""
    return float(value) if not isinstance(value, str) else hashlib.sha256(fixed.tobytes()).hexdigest()[:16]
