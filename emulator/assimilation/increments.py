"""What an analysis may not do to the budgets, and what it does to them: dry mass is kept, humidity is not negative.

Observations know nothing of budgets, so that an analysis adds water and energy: how much is told. Air it may not add: a
uniform change of surface pressure gives the dry mass back. Where it has made humidity negative that is set to 0, and all
humidity is scaled by what makes up for the water that this has added.
"""

import dataclasses
from typing import Self

import torch
import xarray as xr
from torch import Tensor

from emulator.conservation.atmosphere import Atmosphere
from emulator.conservation.budgets import DryAir
from emulator.conservation.fluxes import WATER_SPECIES, total
from emulator.data.channels import Channels
from emulator.planet.quantities import energy
from emulator.planet.quantities.water import HUMIDITY
from emulator.store.schema import constants_of, grid_of, levels_of, time_step_seconds

PRESSURE = "surface_pressure"
ROUNDS = 3  # of Newton's method for dry mass, which is linear in surface pressure but where the ground cuts levels


@dataclasses.dataclass(frozen=True, eq=False)
class Increments:
    """The budgets of analyses of some channels; without levels or humidity nothing is kept or told.

    Attributes:
      channels: of the states. air: None where the states make up no columns.
    """

    channels: Channels
    air: Atmosphere | None

    @classmethod
    def of(cls, dataset: xr.Dataset, channels: Channels) -> Self:
        """Those of a store. Columns need layers, surface pressure and humidity on them, and a whole globe."""
        levels, grid = levels_of(dataset), grid_of(dataset)
        known = {PRESSURE, HUMIDITY} <= set(channels.names) and levels is not None and grid.is_global()
        if not known:
            return cls(channels, None)
        orography = dataset.get("geopotential_at_surface")
        height = None if orography is None else torch.from_numpy(orography.values).double()
        area, constants = torch.as_tensor(grid.area), constants_of(dataset)
        return cls(channels, Atmosphere(area, levels, constants, height, time_step_seconds(dataset)))

    def dry_mass(self, state: Tensor) -> Tensor | None:
        """Global mean dry mass, kg m-2, `(batch,)` float64, of states `(batch, channel, *space)`; None without columns."""
        return None if self.air is None else self._budget.mass(self._named(state))

    def kept(self, analysis: Tensor, background: Tensor, dry_mass: Tensor | float | None) -> tuple[Tensor, dict]:
        """The analysis with the dry mass that is given, and no negative humidity.

        Args:
          analysis, background: `(member, channel, *space)`. dry_mass: kg m-2; None without columns.
        Returns it, of the same type, and what happened, each the mean over members: `clipped_water` [kg m-2] of the humidity
        that was set to 0 and then scaled away again, `added_water` [kg m-2], `added_energy` [J m-2] and `added_pressure`
        [Pa], which gave the dry mass back. A background that is returned as it was is left so.
        """
        if self.air is None or torch.equal(analysis, background):
            return analysis, {}
        state, clipped = self._not_negative(self._named(analysis))
        moved = 0.0
        for _ in range(ROUNDS):
            lacking = dry_mass - self._budget.mass(state)
            by = lacking / self.air.mean(self._budget.response(state))
            state[PRESSURE] = state[PRESSURE] + by.view(-1, *[1] * (state[PRESSURE].dim() - 1))
            moved = moved + by
        fields = {name: field for name, field in state.items() if name == PRESSURE or name in WATER_SPECIES}
        changed = self.channels.replace(analysis.double(), fields).to(analysis.dtype)
        before, after = (self._amounts(self._named(each)) for each in (background, changed))
        told = {"clipped_water": clipped, "added_pressure": moved}
        told |= {f"added_{name}": after[name] - before[name] for name in after}
        return changed, {name: float(torch.as_tensor(value).mean()) for name, value in told.items()}

    @property
    def _budget(self) -> DryAir:
        return DryAir(self.air, self._species)

    @property
    def _species(self) -> tuple[str, ...]:
        return tuple(name for name in WATER_SPECIES if name in self.channels.names)

    def _named(self, state: Tensor) -> dict[str, Tensor]:
        return self.channels.unpack(state.double())

    def _water(self, state: dict[str, Tensor]) -> Tensor:
        """Global mean water, kg m-2, `(batch,)`."""
        return self.air.mean(self.air.integral(total(state, self._species), state[PRESSURE]))

    def _not_negative(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Water species at least 0, with as much water as before, and how much was below 0, kg m-2."""
        before = self._water(state)
        positive = state | {name: state[name].clamp(min=0) for name in self._species}
        after = self._water(positive)
        share = (before / after).view(-1, *[1] * (state[HUMIDITY].dim() - 1))
        return positive | {name: positive[name] * share for name in self._species}, after - before

    def _amounts(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Global means of water, kg m-2, and of energy where its fields are known, J m-2."""
        found, needs = {"water": self._water(state)}, {"temperature", "u_component_of_wind", "v_component_of_wind"}
        if needs <= set(state):
            air, pressure = self.air, state[PRESSURE]
            columns = air.integral(energy.content(state, air.constants), pressure)
            height = air.orography(pressure)
            if height is not None:
                columns = columns + height * air.column_pressure(pressure, pressure) / air.constants.gravity
            found["energy"] = air.mean(columns)
        return found
