"""An embedded ocean: the `acc` sector of Veros (Häfner et al. 2018, after pyOM2) under wind and restoring with seasons.

30 x 42 x 15 cells of 2 degrees, 42 S to 42 N: a basin closed by a wall of land at its western edge, and south of 20 S a
channel that is re-entrant *within* its 60 degrees: what leaves in the east enters in the west. To a store it is a box, since
no grid on the sphere is periodic over a part of its circle: the wall lies at the box's edge, and only the eleven rows of the
channel lose the neighbours of their first and last cell.

Unlike Veros' own set-up the surface is free (linear, implicit, in cells of constant volume), so that it has a height; a ridge
rises in the middle, so that there is less water in lower levels; and salinity is restored too. Momentum is stepped 80 minutes
for every half day of the tracers, as there.

Veros is imported when a model is built, never with this module: it belongs to the extra `emulator[ocean]`.

Over 300 lines, since settings, forcing, fields and restart files of one model are read together.
"""

import dataclasses
import functools
import importlib.metadata
import math
import sys
import zipfile
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from emulator.embedded import MODELS, TIME_BOUNDS, Depths, Embedded
from emulator.files.interruption import Interrupted
from emulator.planet.constants import Constants
from emulator.planet.grid import Grid

HEAT_CAPACITY = (
    3991.86795711963  # J kg-1 K-1, TEOS-10's for potential temperature; Veros itself has fluxes of temperature
)
FREEZING, COLDEST = 273.15, -1.8  # K of 0 degrees C; degrees C, below which sea water would freeze
YEAR_DAYS = 365.25
WARMEST = {True: 240.0, False: 57.0}  # day of the year with the warmest surface, north and south of the equator
RIDGE_EAST, RIDGE_WIDTH = 30.0, 8.0  # degrees: longitude of the crest, distance at which it has fallen to 1/e
INNER = np.s_[2:-2, 2:-2]  # without the two rows of halo on each side
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


@dataclasses.dataclass(frozen=True)
class Settings:
    """What defines a simulation.

    Attributes:
      start: first day, at 0 UTC, from rest; step_hours: the length of the means, whole days; has no part in `monthly`.
      monthly: means over calendar months.
      snapshots: states are those at the end of every step, not their means. Fluxes are means all the same, so that the
        change of a state is what they brought: budgets close step by step.
      ridge: height of the ridge as a share of the depth, 2080 m; 0: a flat floor, as Veros' own.
      wind, warming: factor of the stress, and K added to the temperature that the surface is restored to.
      wind_season: share by which the stress rises in winter and falls in summer of its hemisphere.
      temperature_season: K at the outermost row by which the restoring temperature does the opposite.
      salinity_contrast: g kg-1 by which the subtropics are restored to more than 35, and the equator to less.
      wind_noise, temperature_noise: standard deviation of red noise, as a share of the stress (channel and basin each with
        one of their own) and in K; noise_days: its decay; seed: of its values.
    """

    start: date = date(2001, 1, 1)
    step_hours: int = 120
    monthly: bool = False
    snapshots: bool = False
    ridge: float = 0.5
    wind: float = 1.0
    warming: float = 0.0
    wind_season: float = 0.3
    temperature_season: float = 4.0
    salinity_contrast: float = 1.0
    wind_noise: float = 0.0
    temperature_noise: float = 0.0
    noise_days: float = 10.0
    seed: int = 0

    def __post_init__(self):
        if not self.monthly and (self.step_hours < 24 or self.step_hours % 24):
            raise ValueError(f"Expected step_hours of whole days (120), or monthly: true, got {self.step_hours}")
        if self.monthly and self.start.day != 1:
            raise ValueError(f"Expected a start on the first of a month for monthly means, got {self.start}")
        if not 0 <= self.ridge < 0.9:
            raise ValueError(f"Expected a ridge from 0 to below 0.9, got {self.ridge}")
        for name in ("wind_noise", "temperature_noise"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"Expected {name} of at least 0, got {getattr(self, name)}")
        if not self.noise_days > 0 or self.seed < 0:
            raise ValueError(
                f"Expected noise_days above 0 and a seed of at least 0, got {self.noise_days} and {self.seed}"
            )

    def day(self, number: int) -> date:
        """The date of a day after the start."""
        return self.start + timedelta(days=number)


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
        self.settings, self.setup = settings, _set_up(settings)
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


def restoring(settings: Settings, latitude: np.ndarray, day_of_year: float, noise: np.ndarray) -> tuple:
    """What season and noise add: the factor of the stress [1], and to the restoring temperature [K], each `(latitude,)`."""
    warmest = np.where(latitude > 0, WARMEST[True], WARMEST[False])
    summer = np.cos(2 * np.pi * (day_of_year - warmest) / YEAR_DAYS)
    gusts = np.where(latitude < -20, noise[0], noise[1])
    factor = settings.wind * (1 - settings.wind_season * summer + settings.wind_noise * gusts)
    added = settings.temperature_season * summer * np.abs(latitude) / 41 + settings.temperature_noise * noise[2]
    return factor, added + settings.warming


def below_ridge(settings: Settings, longitude: np.ndarray, middles: np.ndarray, tops: np.ndarray) -> np.ndarray:
    """How many cells the ridge fills, `(longitude,)`: those whose `middles` lie below it; m, `(height,)`, negative."""
    depth = 2 * middles[0] - tops[0]
    crest = depth * (1 - settings.ridge * np.exp(-(((longitude - RIDGE_EAST) / RIDGE_WIDTH) ** 2)))
    return (middles < crest[:, None]).sum(axis=1)


def _set_up(settings: Settings):
    """Veros' set-up, ready to step. Its base class is imported with Veros, so that the class is made here."""
    try:
        import veros
    except ImportError as error:
        raise ImportError(
            f"The embedded ocean needs Veros, which the extra emulator[ocean] installs ({error})"
        ) from error
    if "veros.core" not in sys.modules:  # locked from then on
        veros.runtime_settings.update(backend="numpy", float_type="float64", linear_solver="scipy")
    if veros.runtime_settings.backend != "numpy" or veros.runtime_settings.float_type != "float64":
        raise ValueError("Expected Veros with its NumPy backend in float64, this process runs it otherwise")
    veros.logger.disable("veros")
    from veros.setups.acc.acc import ACCSetup

    class SeasonalSector(ACCSetup):
        """`weather`, the date and the noise of the day, is set before every day."""

        weather = settings.start, np.zeros(3)

        @veros.veros_routine
        def set_diagnostics(self, state):
            state.diagnostics.clear()

        @veros.veros_routine
        def set_topography(self, state):
            super().set_topography(state)
            v = state.variables
            v.kbot = v.kbot * (1 + below_ridge(settings, np.asarray(v.xt), np.asarray(v.zt), np.asarray(v.zw)))[:, None]

        @veros.veros_routine
        def set_initial_conditions(self, state):
            super().set_initial_conditions(state)
            v = state.variables
            self.stress, self.temperature = np.array(v.surface_taux), np.array(v.t_star)
            self.salinity = 35 - settings.salinity_contrast * np.cos(2 * np.pi * np.asarray(v.yt) / 44)

        @veros.veros_routine
        def set_forcing(self, state):
            v, (day, noise) = state.variables, self.weather
            day_of_year = (day - day.replace(month=1, day=1)).days + v.time % 86400 / 86400
            factor, added = restoring(settings, np.asarray(v.yt), day_of_year, noise)
            v.surface_taux = self.stress * factor
            wanted = np.maximum(self.temperature + added, COLDEST)
            v.forc_temp_surface = v.t_rest * (wanted - v.temp[:, :, -1, v.tau])
            v.forc_salt_surface = v.t_rest * (self.salinity - v.salt[:, :, -1, v.tau])
            work = np.zeros_like(v.forc_tke_surface)
            eastward = (v.surface_taux[INNER] + v.surface_taux[1:-3, 2:-2]) / 2
            work[INNER] = np.abs(eastward / state.settings.rho_0) ** 1.5
            v.forc_tke_surface = work

    setup = SeasonalSector(override={"enable_streamfunction": False, "restart_output_filename": ""})
    setup.setup()
    return setup


@functools.lru_cache(maxsize=1)
def build(settings: Settings) -> Sector:
    """The model for `settings`; the last one is kept."""
    return Sector(settings)


MODELS.register("veros", Embedded(Settings, build, needs="veros", extra="ocean", ends=ends))
