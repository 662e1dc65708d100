"""SPEEDY over a slab: a mixed layer of sea that the model's own fluxes warm, stepped once a day outside it.

`T(d + 1) = T(d) + dt (F(d) + Q(d)) / (rho c h)`, F being the mean net surface flux of the day that the chunks hold, and
`Q(d) = rho c h (T*(d + 1) - T*(d)) / dt - F*(d)`, T* the sea temperature that would be prescribed and F* the smooth course of
the flux in a control simulation over prescribed seas (`control`): the climate that the layer keeps is the control's. The air
feels a frozen sea through what is open alone, so that nothing would damp the layer: there its temperature is T*.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from emulator.embedded import restart
from emulator.embedded.control import MONTHS, course
from emulator.embedded.courses import SST, SST_LIMITS
from emulator.embedded.fluxes import net_surface_flux
from emulator.embedded.options import Slab
from emulator.planet import slab
from emulator.planet.constants import SECONDS_PER_DAY

DAY = np.timedelta64(1, "D")


class Coupled(NamedTuple):
    """The state of atmosphere and layer.

    Attributes:
      atmosphere: the model's own. temperature: of the sea, K, `(latitude, longitude)` float64.
      flux: F* as `emulator.embedded.control.flux_of` gives it, W m-2, `(month, latitude, longitude)` float64.
    """

    atmosphere: Any
    temperature: np.ndarray
    flux: np.ndarray


class OverSlab:
    """A built model whose seas are a slab; see `emulator.embedded.EmbeddedModel`.

    Args:
      model: the atmosphere under its scenario, `emulator.embedded.speedy.ReferenceModel`. layer: what the sea is.
      flux: makes F*, `(month, latitude, longitude)`, when a simulation begins; a restart file holds it.
    """

    def __init__(self, model, layer: Slab, flux):
        self._model, self._layer, self._flux = model, layer, flux
        self.title, self.provenance = f"{model.title} over a slab ocean", model.provenance
        self.grid, self.levels, self.constants, self.static = model.grid, model.levels, model.constants, model.static
        self._sea = slab.is_sea(model.static["land_sea_mask"])
        self._start = np.datetime64(model.settings.start, "ns")

    def initial_state(self) -> Coupled:
        """The atmosphere's, over the prescribed sea of the first day."""
        return Coupled(self._model.initial_state(), self._model.sea_temperature(self._start), self._flux())

    def advance_day(self, state: Coupled) -> tuple[Coupled, dict[str, np.ndarray]]:
        """One simulated day; fields as of the atmosphere's, with the layer's depth and what currents bring it.

        The sea temperature of the day's last time is the one that the day has led to: in cells that are frozen then the
        prescribed one, of whose heat no account is kept. While all seas are still prescribed the currents bring what that
        takes. Raises `FloatingPointError` for a sea beyond what the model takes.
        """
        first = self._model.day_of(state.atmosphere)
        prescribed = self._model.sea_temperature(first + DAY)
        atmosphere, fields = self._model.advance_day(state.atmosphere, state.temperature)
        flux = net_surface_flux(fields).mean(axis=0)
        now, depth = state.temperature, self._layer.depth
        if (first - self._start) / DAY < (self._layer.prescribed_days or 0):
            brought = slab.implied_convergence(prescribed - now, flux, depth, SECONDS_PER_DAY)
        else:
            change = prescribed - self._model.sea_temperature(first)
            brought = slab.implied_convergence(change, course(state.flux, first), depth, SECONDS_PER_DAY)
        brought = np.where(self._sea, brought, 0.0).astype(np.float32)
        warmed = now + slab.warming(flux, brought.astype(np.float64), depth, SECONDS_PER_DAY)
        stepped = self._sea if self._layer.under_ice else self._sea & slab.is_open(fields[slab.ICE][-1])
        then = np.where(stepped, warmed, prescribed)
        if then.min() < SST_LIMITS[0] or then.max() > SST_LIMITS[1]:
            raise FloatingPointError(
                f"The slab's sea temperature has left {SST_LIMITS[0]:g} to {SST_LIMITS[1]:g} K at {first + DAY}: "
                f"{then.min():.1f} to {then.max():.1f} K"
            )
        sea = fields[SST].copy()
        sea[-1] = then
        shape = fields[SST].shape
        layer = {
            SST: sea,
            slab.DEPTH: np.full(shape, depth, np.float32),
            slab.CONVERGENCE: np.broadcast_to(brought, shape),
        }
        return Coupled(atmosphere, then, state.flux), fields | layer

    def save_state(self, state: Coupled, path: Path) -> None:
        restart.save(state, path)

    def load_state(self, path: Path) -> Coupled:
        """Raises `ValueError` when the file is damaged or its arrays are not those of this model."""
        shape = self.grid.shape
        return restart.load(path, Coupled(self._model.initial_state(), np.zeros(shape), np.zeros((MONTHS, *shape))))
