"""An embedded ocean: the `acc` sector of Veros (Häfner et al. 2018, after pyOM2) under wind and restoring with seasons.

30 x 42 x 15 cells of 2 degrees, 42 S to 42 N: a basin closed by a wall of land at its western edge, and south of 20 S a
channel that is re-entrant *within* its 60 degrees: what leaves in the east enters in the west. To a store it is a box, since
no grid on the sphere is periodic over a part of its circle: the wall lies at the box's edge, and only the eleven rows of the
channel lose the neighbours of their first and last cell. `emulator.embedded.acc_sector` tells what drives it.

Veros is imported when a model is built, never with this module: it belongs to the extra `emulator[ocean]`.
"""

import dataclasses
import functools
import importlib.metadata
import math
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from emulator.embedded import MODELS, TIME_BOUNDS, Depths, Embedded
from emulator.embedded.acc_sector import INNER, Settings, set_up
from emulator.files.interruption import Interrupted
from emulator.planet.constants import Constants
from emulator.planet.grid import Grid

HEAT_CAPACITY = (
    3991.86795711963  # J kg-1 K-1, TEOS-10's for potential temperature; Veros itself has fluxes of temperature
)
FREEZING = 273.15  # K of 0 degrees C
DEPTH_FIELDS = (
    "sea_water_potential_temperature",
    "sea_water_salinity",
    "eastward_sea_water_velocity",
    "northward_sea_water_velocity",
)
STATES = (*DEPTH_FIELDS, "sea_surface_height")
FLUXES = (
    "mean_downward_heat_flux_into_sea_water",
    "mean_virtual_salt_flux_into_sea_water",
    "mean_eastward_sea_surface_stress",
    "mean_northward_sea_surface_stress",
)
MASK = "sea_water_mask"
DOMAINS = dict.fromkeys(DEPTH_FIELDS, MASK) | dict.fromkeys((STATES[-1], *FLUXES), "ocean")


def ends(settings: Settings, day: int) -> bool:
    """Whether a mean ends with a day after the start."""
    return settings.day(day + 1).day == 1 if settings.monthly else (day + 1) * 24 % settings.step_hours == 0


def begin(settings: Settings, day: int) -> date:
    """The first day of the mean that ends with a day after the start."""
    if settings.monthly:
        return settings.day(day).replace(day=1)
    return settings.day(day + 1 - settings.step_hours // 24)


@dataclasses.dataclass(frozen=True)
class State:
    """The ocean at the beginning of a day.

    Attributes:
      day: after the start. arrays: Veros' own variables that a restart needs, by name. noise: `(3,)`, of the wind over
        channel and basin and of the restoring temperature, in standard deviations.
      sums: of the running mean, by canonical name, on Veros' axes; steps: how many.
    """

    day: int
    arrays: dict[str, Any]
    noise: np.ndarray
    sums: dict[str, np.ndarray]
    steps: int


class Sector:
    """The built model; see `emulator.embedded.EmbeddedModel`. Fields are float32 on tracer points, NaN outside the sea.

    Velocities and stress are means of the two faces of a cell, land counting as zero, so that all fields have one mask.

    Attributes:
      grid: box `Grid` of 42 x 30 cells. levels: 15 `Depths`. constants: Veros' gravity and radius of the Earth.
      static: `sea_water_mask` `(depth, latitude, longitude)`, 1 where there is water, and `land_sea_mask`, 1 on land.
      domains: of the fields, by name. closed: nothing passes the sides of the box but what comes back at the other one.
    """

    title = "Idealised ocean sector (Veros)"
    domains, closed = DOMAINS, True

    def __init__(self, settings: Settings):
        """Raises `ImportError` without the extra, `ValueError` where the process runs Veros with another backend."""
        self.settings, self.setup = settings, set_up(settings)
        self.veros = self.setup.state
        variables, own = self.veros.variables, self.veros.settings
        self.density = own.rho_0
        self.grid = Grid.from_coordinates(np.asarray(variables.yt)[2:-2][::-1], np.asarray(variables.xt)[2:-2])
        edges = np.concatenate([[0.0], np.cumsum(np.asarray(variables.dzt)[::-1])])
        self.levels = Depths(-np.asarray(variables.zt)[::-1], np.stack([edges[:-1], edges[1:]], 1))
        self.constants = Constants(
            gravity=own.grav,
            earth_radius=own.radius,
            sea_water_density=own.rho_0,
            sea_water_heat_capacity=HEAT_CAPACITY,
        )
        states = dict.fromkeys(STATES, "time: point" if settings.snapshots else "time: mean")
        self.cell_methods = states | dict.fromkeys(FLUXES, "time: mean")
        self._water = np.asarray(variables.maskT)[INNER] > 0
        mask = _canonical(self._water.astype(np.float32))
        self.static = {MASK: mask, "land_sea_mask": 1 - mask[0]}
        given = {
            key: value for key, value in dataclasses.asdict(settings).items() if key not in ("start", "step_hours")
        }
        self.provenance = {
            "model": "Veros, idealised sector acc with a free surface, seasons and restored salinity",
            "versions": {"veros": importlib.metadata.version("veros")},
            "reference_density": self.density,
            "heat_capacity": HEAT_CAPACITY,
        } | given
        self._first = self._arrays()

    def initial_state(self) -> State:
        """Rest, 15 degrees at the surface and none at the bottom, salinity of 35."""
        noise = np.random.default_rng([self.settings.seed, 0]).standard_normal(3)
        return State(0, dict(self._first), noise, {}, 0)

    def advance_day(self, state: State) -> tuple[State, dict[str, np.ndarray]]:
        """One day, two steps of the tracers.

        Returns the state after it, and on a day with which a mean ends `STATES` (those on depths `(1, depth, latitude,
        longitude)`) and `FLUXES` `(1, latitude, longitude)` with the bounds of their interval; else no fields. Raises
        `FloatingPointError` when the ocean has become unstable.
        """
        self._set(state.arrays)
        self.setup.weather = self.settings.day(state.day), state.noise
        sums, steps = state.sums, state.steps
        for _ in range(round(86400 / self.veros.settings.dt_tracer)):
            try:
                self.setup.step(self.veros)
            except Interrupted:
                raise
            except RuntimeError as error:
                raise FloatingPointError(f"The embedded ocean has become unstable: {error}") from error
            now = self._now()
            sums = {name: sums[name] + value for name, value in now.items()} if sums else now
            steps += 1
        fields = {}
        if ends(self.settings, state.day):
            means = {name: value / steps for name, value in sums.items()}
            fields = self._fields(means | {name: now[name] for name in STATES} if self.settings.snapshots else means)
            bounds = begin(self.settings, state.day), self.settings.day(state.day + 1)
            fields[TIME_BOUNDS] = np.array([bounds], "datetime64[ns]")
            sums, steps = {}, 0
        decay = math.exp(-1 / self.settings.noise_days)
        fresh = np.random.default_rng([self.settings.seed, state.day + 1]).standard_normal(3)
        noise = decay * state.noise + math.sqrt(1 - decay**2) * fresh
        return State(state.day + 1, self._arrays(), noise, sums, steps), fields

    def save_state(self, state: State, path: Path) -> None:
        """Write a state to an `.npz` file, without pickling."""
        sums = {f"sum {name}": value for name, value in state.sums.items()}
        with open(path, "wb") as file:
            np.savez(file, day=state.day, steps=state.steps, noise=state.noise, **state.arrays, **sums)

    def load_state(self, path: Path) -> State:
        """The state of an `.npz` file. Raises `ValueError` when it is damaged or its arrays are not those of this model."""
        try:
            with np.load(path, allow_pickle=False) as file:
                found = dict(file.items())
        except (EOFError, ValueError, zipfile.BadZipFile):
            raise ValueError(f"Expected a model's state in {path}, it is damaged: delete it to go on without") from None
        sums = {key.removeprefix("sum "): found.pop(key) for key in list(found) if key.startswith("sum ")}
        own = {"day", "steps", "noise"}
        if found.keys() != self._first.keys() | own or set(sums) not in (set(), {*STATES, *FLUXES}):
            raise ValueError(f"Expected the arrays of this model's state in {path}, got {sorted(found)[:3]}, ...")
        arrays = {name: found[name] for name in self._first}
        for name, value in arrays.items():
            if value.shape != np.shape(self._first[name]):
                raise ValueError(f"Expected {name} of shape {np.shape(self._first[name])} in {path}, got {value.shape}")
        arrays = {name: value if value.shape else value.item() for name, value in arrays.items()}
        return State(int(found["day"]), arrays, found["noise"], sums, int(found["steps"]))

    def _arrays(self) -> dict[str, Any]:
        """What Veros itself writes to its restart files, and the number of the step, the first of which sets the pressure of
        all times. It never changes an array in place.
        """
        meta = self.veros.var_meta
        kept = [name for name, entry in meta.items() if entry.write_to_restart and entry.active]
        return {name: getattr(self.veros.variables, name) for name in (*kept, "itt")}

    def _set(self, arrays: dict[str, Any]) -> None:
        with self.veros.variables.unlock():
            for name, value in arrays.items():
                setattr(self.veros.variables, name, value)

    def _now(self) -> dict[str, np.ndarray]:
        """States after a step and fluxes of the step, in units of the table, float64 on Veros' axes."""
        v = self.veros.variables
        heat, salt = self.density * HEAT_CAPACITY, self.density / 1000  # g of salt to kg
        values = (
            v.temp[..., v.tau][INNER] + FREEZING,
            v.salt[..., v.tau][INNER],
            (v.u[1:-3, 2:-2, :, v.tau] + v.u[2:-2, 2:-2, :, v.tau]) / 2,
            (v.v[2:-2, 1:-3, :, v.tau] + v.v[2:-2, 2:-2, :, v.tau]) / 2,
            v.psi[..., v.tau][INNER] / self.veros.settings.grav,
            heat * v.forc_temp_surface[INNER],
            salt * v.forc_salt_surface[INNER],
            (v.surface_taux[1:-3, 2:-2] + v.surface_taux[2:-2, 2:-2]) / 2,
            (v.surface_tauy[2:-2, 1:-3] + v.surface_tauy[2:-2, 2:-2]) / 2,
        )
        return dict(zip((*STATES, *FLUXES), values, strict=True))

    def _fields(self, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        sea = {3: self._water, 2: self._water[..., -1]}
        return {name: _canonical(np.where(sea[value.ndim], value, np.nan))[None] for name, value in values.items()}


def _canonical(field: np.ndarray) -> np.ndarray:
    """Veros' `(longitude, latitude[, height])`, all ascending, to `([depth,] latitude from the north, longitude)`."""
    field = np.moveaxis(field[..., ::-1], -1, 0) if field.ndim == 3 else field
    return np.ascontiguousarray(np.swapaxes(field, -1, -2)[..., ::-1, :], np.float32)


@functools.lru_cache(maxsize=1)
def build(settings: Settings) -> Sector:
    """The model for `settings`; the last one is kept."""
    return Sector(settings)


MODELS.register("veros", Embedded(Settings, build, needs="veros", extra="ocean", ends=ends))
