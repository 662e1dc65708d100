"""A second network as the ocean of forecasts: its own store of states and forcing, and its own store of forecasts."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from emulator.data.channels import Channels, outside_of
from emulator.data.forcing import Forcing, StepInputs
from emulator.forecasting.blocks import Block, Entry, Naming
from emulator.forecasting.ensembles import InitialStates
from emulator.forecasting.leads import Lead
from emulator.forecasting.options import EnsembleOptions, OceanNetworkOptions, ocean_store
from emulator.forecasting.sea import Begun, SeaTemperatures, land_share, written_attributes
from emulator.model.bounds import released
from emulator.model.coupled import SEA_TEMPERATURE, HeatFlux, check_coupling
from emulator.model.ocean_emulator import WATER_TEMPERATURE, Exchange, OceanEmulator
from emulator.model.saved_model import check_match, digest_of, load_model
from emulator.model.step import Step
from emulator.model.stepper import Stepper, newest
from emulator.parallel.host_copies import to_device
from emulator.planet import slab
from emulator.store.analysis import open_analysis
from emulator.store.masks import domain_of
from emulator.store.schema import constants_of, grid_of


@dataclasses.dataclass(frozen=True, eq=False)
class OceanFields:
    """What the ocean's store is written from, in place of a forecaster.

    Attributes:
      path: of its forecasts. dataset: its analysis. forcing: of its steps. ensemble: of the forecasts; None for single ones.
      every: steps of the atmosphere in one of its own. model: its network. exchanged: forcing that the atmosphere gives.
    """

    path: Path
    dataset: xr.Dataset
    forcing: Forcing
    ensemble: EnsembleOptions | None
    every: int
    model: Step
    exchanged: tuple[str, ...]
    sea = rows = None

    @property
    def members(self) -> int:
        return self.ensemble.members if self.ensemble else 1

    def block(self, entries: list[Entry], times: int, members: int | None) -> Block | None:
        """Leads of the network as a block; None where there are none."""
        layout, dataset = self.model.layout, self.dataset
        if not entries:
            return None
        names = (*layout.prognostic.names, *layout.diagnostic.names)
        outside = {name: outside_of(dataset, Channels.of(dataset, [name])) for name in names}
        records = tuple(sorted({name for entry in entries for name in entry.records}))
        return Block(entries, Naming(layout, outside, times, members), records)


class NetworkSea:
    """An ocean's network for the forecasts of an atmosphere's model from a store; see `emulator.forecasting.sea.Sea`.

    Args:
      options: its checkpoint and its store.
      model: the atmosphere's. dataset: its analysis. length: of its steps, in steps of the store.
      ensemble: of the forecasts. output: where those of the atmosphere are written; None: nowhere.

    Raises `ValueError`, naming what differs, for networks and stores that cannot be coupled.
    """

    def __init__(
        self,
        options: OceanNetworkOptions,
        model: Stepper,
        dataset: xr.Dataset,
        length: int = 1,
        ensemble: EnsembleOptions | None = None,
        output: str | os.PathLike | None = None,
    ):
        check_coupling(model.layout, ())
        own, network = open_analysis(options.store), load_model(options.checkpoint, model.device)
        check_match(network.metadata, own, options.checkpoint, options.store)
        network = released(network, options.bounds)
        grid, theirs = grid_of(dataset), grid_of(own)
        if not grid.same_as(theirs):
            raise ValueError(
                f"Expected the ocean's store on the grid of the atmosphere's, {grid.describe()}, got {theirs.describe()}; "
                "emulator ingest puts one on the other's grid (ingest.grid)"
            )
        if network.noise is not None or network.layout.lengths != (1,):
            raise ValueError(
                f"Expected an ocean's network of one step and without noise, got {options.checkpoint} with one"
            )
        self._temperatures, self._forcing = SeaTemperatures(dataset, length), Forcing(own, network.layout)
        every = _ratio(self._temperatures.forcing, self._forcing)
        exchange = Exchange.between(HeatFlux(model, constants_of(dataset)), model.layout, network.layout)
        check_coupling(model.layout, exchange.takes)
        surface, wet = _surface(network, own)
        _check_masks(wet, slab.is_sea(land_share(dataset)), options)
        wet = to_device(torch.from_numpy(wet.copy()), model.device)
        self.ocean = OceanEmulator(network, exchange, every, surface, wet)
        self._initial = InitialStates(network, own, self._forcing, 1, None)
        self._device = model.device
        self.attributes: Mapping = {SEA_TEMPERATURE: written_attributes(dataset)[SEA_TEMPERATURE]}
        self.record = {
            "kind": "emulator",
            "weights": digest_of(network),
            "store": own.attrs.get("fingerprint"),
            "hours": self._forcing.step_seconds / 3600,
            "exchanged": list(exchange.names),
        } | ({} if options.bounds == "trained" else {"bounds": options.bounds})
        path = Path() if output is None else ocean_store(Path(output))
        self.output = OceanFields(path, own, self._forcing, ensemble, every, network, exchange.names)

    def check(self, times: Sequence) -> None:
        self._initial.check(times)

    def begin(self, times: Sequence, members: int) -> Begun:
        state, diagnostic = (part.repeat_interleave(members, 0) for part in self._initial(times))
        begun = self.ocean.begun(state)
        given = self._temperatures.inputs(times, 1).rows(torch.arange(len(times)).repeat_interleave(members))
        prescribed = given.to(self._device).forcing[:, 0].double()
        unknown = torch.full_like(prescribed, torch.nan, dtype=torch.float32)
        exchanged = dict.fromkeys(self.ocean.exchange.names, unknown)
        lead = Lead(newest(state, self.ocean.network.layout), diagnostic, beside=exchanged)
        return Begun(begun, {SEA_TEMPERATURE: self.ocean.temperature(begun, prescribed).double()}, lead)

    def inputs(self, times: Sequence, number: int) -> StepInputs:
        given = self._temperatures.inputs(times, number)
        if number % self.ocean.every:
            return given
        back = number // self.ocean.every - 1
        return given._replace(ocean=self._forcing.inputs([self._forcing.later(time, back) for time in times]))


def _ratio(atmosphere: Forcing, ocean: Forcing) -> int:
    """Steps of the atmosphere in one of the ocean. Raises `ValueError` for part of one, and for steps of months."""
    ratio = ocean.step_seconds / atmosphere.step_seconds
    if atmosphere.step.months or ocean.step.months or round(ratio) < 1 or abs(ratio - round(ratio)) > 1e-9:
        raise ValueError(
            f"Expected an ocean whose step is a multiple of the atmosphere's {atmosphere.step}, got {ocean.step}"
        )
    return round(ratio)


def _surface(network: Step, dataset: xr.Dataset) -> tuple[int, np.ndarray]:
    """The channel of the temperature of the sea's surface, and where it exists. Raises `ValueError` where there is none."""
    names = network.layout.prognostic
    for name in (SEA_TEMPERATURE, WATER_TEMPERATURE):
        if name not in names.names:
            continue
        upper = int(np.argmin(dataset["depth"].values)) if "depth" in dataset[name].dims else None
        exists = domain_of(dataset, name)
        if exists is None:
            exists = np.ones(grid_of(dataset).shape, bool)
        return names.slices[name].start + (upper or 0), exists if exists.ndim == 2 else exists[upper]
    wanted, found = f"{SEA_TEMPERATURE} or {WATER_TEMPERATURE}", ", ".join(names.names)
    raise ValueError(f"Expected an ocean's network that steps {wanted} forward, got {found}")


def _check_masks(wet: np.ndarray, sea: np.ndarray, options: OceanNetworkOptions) -> None:
    if (wet != sea).any():
        raise ValueError(
            f"Expected the ocean's cells to be those of the atmosphere's land_sea_mask that are more than half sea, got "
            f"{int((wet & ~sea).sum())} more and {int((sea & ~wet).sum())} fewer in {options.store}"
        )
