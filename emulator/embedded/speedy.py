"""The embedded reference model: JAX-GCM (`jcm`) with SPEEDY physics, in the pipeline's names, units and signs.

SPEEDY is the general circulation model of intermediate complexity of Molteni (2003) and Kucharski et al. (2013): eight
sigma levels, orography, land, a prescribed annual cycle of sea-surface temperature, moisture, convection, clouds and
radiation. The boundary data are those that come inside the `jcm` package, so nothing is downloaded.

`jcm` and `jax` are imported when a model is built, never with this module: they belong to the extra `emulator[gcm]`.
"""

import copy
import dataclasses
import functools
import importlib.metadata
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from emulator.embedded import MODELS, Embedded, EmbeddedModel, restart
from emulator.embedded.control import check_control, flux_of
from emulator.embedded.courses import CO2, PPMV, SeaTemperatures, concentration
from emulator.embedded.driving import Drive, parameters
from emulator.embedded.options import Scenario, Slab
from emulator.embedded.simulation import SimulationOptions
from emulator.embedded.slab import OverSlab
from emulator.embedded.speedy_day import CompiledDay
from emulator.planet.constants import Constants
from emulator.planet.grid import Grid
from emulator.planet.vertical import Levels


@dataclasses.dataclass(frozen=True)
class Settings(Scenario):
    """What defines a simulation, its scenario included; two equal settings give the same numbers on the same machine.

    Attributes:
      truncation: triangular spectral truncation: 21 (32 x 64 grid), 31 (48 x 96) or 63 (96 x 192).
      time_step_minutes: the model's step; it must divide `step_hours`; of T63 at most 20.
      step_hours: spacing of the output and length of the flux means; it must divide a day.
      start: first day, at 0 UTC, from isothermal rest.
    """

    truncation: int = 31
    time_step_minutes: int = 30
    step_hours: int = 6
    start: date = date(2001, 1, 1)

    def __post_init__(self):
        super().__post_init__()
        if self.truncation not in (21, 31, 63):
            raise ValueError(f"Expected a truncation of 21, 31 or 63, got {self.truncation}")
        if self.step_hours < 1 or 24 % self.step_hours:
            raise ValueError(f"Expected step_hours to divide a day, got {self.step_hours}")
        if self.time_step_minutes < 1 or self.step_hours * 60 % self.time_step_minutes:
            raise ValueError(
                f"Expected time_step_minutes to divide step_hours = {self.step_hours}, got {self.time_step_minutes}"
            )
        most = 20 if self.truncation == 63 else 30  # advection's limit; that of the surface drag at eight levels
        if self.time_step_minutes > most:
            of = f"of T{self.truncation} at most" if most < 30 else "of at most"
            raise ValueError(f"Expected time_step_minutes {of} {most}, got {self.time_step_minutes}")

    def plain(self) -> "Settings":
        """The same model under its own boundary conditions, from its first start."""
        own = {field.name: field.default for field in dataclasses.fields(Scenario) if field.name != "physics"}
        return dataclasses.replace(self, **own)


def _import_jcm():
    try:
        import jcm.model
    except ImportError as error:
        raise ImportError(
            f"The embedded reference model needs JAX-GCM, which the extra emulator[gcm] installs ({error})"
        ) from error
    return jcm


def boundary_data() -> Path:
    """Folder of the orography, land and annual cycle of surface conditions that `jcm` brings along."""
    return Path(_import_jcm().__file__).parent / "data" / "bc" / "t63"


def check(settings: Settings, days: int) -> None:
    """Raises `ValueError` when the files of a scenario cannot be read or do not last `days`, before anything is built."""
    first = np.datetime64(settings.start, "ns")
    last = first + np.timedelta64(days, "D")
    if settings.co2 is not None:
        concentration(settings.co2, first)(np.array([first, last]))
    if settings.sst_file is not None:
        SeaTemperatures(settings.sst_file).check(first, last)
    if isinstance(settings.ocean, Slab):
        own = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if f.name != "ocean"}
        record = SimulationOptions(Path(), settings=own).record()
        check_control(settings.ocean.control, record, first, last)


def build(settings: Settings) -> EmbeddedModel:
    """The model for `settings`; the last one is kept with its compiled code, which scenarios share."""
    model = _built(settings.plain()).under(settings)
    if not isinstance(settings.ocean, Slab):
        return model
    return OverSlab(model, settings.ocean, functools.partial(flux_of, settings.ocean.control, model.grid))


@functools.lru_cache(maxsize=1)
def _built(settings: Settings) -> "ReferenceModel":
    return ReferenceModel(settings)


class ReferenceModel:
    """The built model; see `emulator.embedded.EmbeddedModel`.

    Attributes:
      grid: Gaussian `Grid`, `(latitude, longitude)` = (32, 64) or (48, 96), north to south.
      levels: eight sigma `Levels`, top to surface.
      constants: the model's own `Constants`, read from its modules.
      static: `geopotential_at_surface` [m2 s-2] (of the truncated orography that the dynamics use) and `land_sea_mask`
        [1], each `(latitude, longitude)`.
      title, provenance: versions and settings, for the attributes of files.
    """

    def __init__(self, settings: Settings):
        """Build the model from the boundary data inside `jcm`. Raises `ImportError` without the extra."""
        _import_jcm()
        from jcm.data.bc.interpolate import upsample_forcings_ds
        from jcm.forcing import ForcingData
        from jcm.model import Model
        from jcm.physics.speedy.speedy_coords import get_speedy_coords
        from jcm.physics.speedy.speedy_terms import speedy_physics
        from jcm.terrain import TerrainData

        data = boundary_data()
        self.settings = settings
        self.title = f"T{settings.truncation} simulation with the embedded reference model"
        coords = get_speedy_coords(layers=8, spectral_truncation=settings.truncation)
        terrain = TerrainData.from_coords(coords, terrain_file=str(data / "terrain.nc"), interpolate=True)
        self._model = Model(
            coords=coords,
            terrain=terrain,
            physics=speedy_physics(parameters(settings.physics)),
            time_step=settings.time_step_minutes,
            start_time=settings.start.isoformat(),
        )
        with xr.open_dataset(data / "forcing.nc") as monthly:
            # To the grid first and to days then: the other order, jcm's own, regrids 365 times instead of 12 (12 s).
            monthly = upsample_forcings_ds(monthly.load(), grid=coords.horizontal)
        self._own_forcing = ForcingData.from_dataset(monthly, coords=coords, align_mode="wrap_year")
        # shared with the same model under other scenarios
        self._day = CompiledDay(self._model, settings.time_step_minutes, settings.step_hours)
        latitude = np.degrees(np.asarray(coords.horizontal.latitudes, np.float64))
        longitude = np.degrees(np.asarray(coords.horizontal.longitudes, np.float64))
        self.grid = Grid.from_coordinates(latitude[::-1], longitude)
        self.levels = Levels.sigma(np.asarray(coords.vertical.boundaries, np.float64).round(6))
        self.constants = _constants()
        gravity = self.constants.gravity
        orography = np.asarray(coords.horizontal.to_nodal(self._model.dycore.primitive.orography), np.float64)
        self.static = {
            "geopotential_at_surface": _canonical(gravity * orography),
            "land_sea_mask": _canonical(np.clip(np.asarray(terrain.fmask), 0, 1)),
        }
        self._set_scenario(settings)

    def under(self, settings: Settings) -> "ReferenceModel":
        """The same model, with its compiled code, under another scenario.

        Raises `ValueError` for settings of another model, and for files of the scenario that cannot be used.
        """
        if settings.plain() != self.settings.plain():
            raise ValueError(f"Expected a scenario of {self.settings.plain()}, got {settings.plain()}")
        other = copy.copy(self)
        other._set_scenario(settings)
        return other

    def _set_scenario(self, settings: Settings) -> None:
        self.settings = settings
        sea = 1 - self.static["land_sea_mask"].astype(np.float64)
        start = np.datetime64(settings.start, "ns")
        self._drive = Drive(settings, self._own_forcing, start, self.grid, sea)
        self._forcing = self._drive.constant
        self.provenance = {
            "model": "JAX-GCM (jcm), SPEEDY physics, Eulerian spectral dynamics",
            "versions": {name: importlib.metadata.version(name) for name in ("jcm", "dinosaur", "jax")},
            "truncation": settings.truncation,
            "time_step_minutes": settings.time_step_minutes,
            "boundary_data": "annual cycle inside the jcm package",
        }
        scenario = settings.describe()
        self.provenance |= {"scenario": scenario} if scenario else {}

    def initial_state(self) -> Any:
        """Isothermal rest with a small seeded perturbation of surface pressure, at `settings.start`, 0 UTC."""
        import jax
        import jax.numpy as jnp

        member = self.settings.member
        other = self._model.initial_state(random_seed=member) if member else None  # None: as of seed 0
        dynamics, physics = self._model.bootstrap_state(other)
        state = dynamics, physics, self._model.start_time, jnp.int32(0)
        # A copy through NumPy, as a restart file makes one, so that both have the types the model is compiled for.
        return jax.tree_util.tree_map(lambda leaf: jnp.asarray(np.asarray(leaf)), state)

    def day_of(self, state) -> np.datetime64:
        """The time that a state is at."""
        passed = int(state[-1]) * np.timedelta64(self.settings.time_step_minutes, "m")
        return np.datetime64(self.settings.start, "ns") + passed

    def sea_temperature(self, moment: np.datetime64) -> np.ndarray:
        """K, as the scenario prescribes it at a time, `(latitude, longitude)` float64."""
        return self._drive.sea_temperature(moment)

    def advance_day(self, state, sea: np.ndarray | None = None) -> tuple[Any, dict[str, np.ndarray]]:
        """One simulated day; `sea`: its sea temperature, K, `(latitude, longitude)`, where that is not prescribed.

        Returns the state after it and the fields of `emulator.embedded.speedy_day` at its `n = 24 / step_hours` output times,
        float32: `LEVEL_FIELDS` `(n, level, latitude, longitude)`, and `surface_pressure` [Pa], `BOUNDARY_FIELDS` (those in
        force at the time) and `FLUXES` (means over the step that ends at the time), each `(n, latitude, longitude)`; where
        the scenario says what carbon dioxide is, `carbon_dioxide_mole_fraction` `(n,)` [mol mol-1] at the time.
        Raises `FloatingPointError` when the model has become unstable.
        """
        forcing = self._drive.of_day(self.day_of(state), sea)
        state, fields = self._day(state, forcing)
        co2 = np.asarray(fields.pop(CO2), np.float64) * PPMV
        fields = {name: _canonical(np.asarray(value)) for name, value in fields.items()}
        fields |= {} if self.settings.co2 is None else {CO2: co2.astype(np.float32)}
        if not np.all(np.isfinite(fields["surface_pressure"])):
            raise FloatingPointError("The reference model has become unstable: surface pressure is no longer finite")
        return state, fields

    def save_state(self, state, path) -> None:
        restart.save(state, path)

    def load_state(self, path) -> Any:
        """The state of an `.npz` file. Raises `ValueError` when it is damaged or its arrays are not those of this model."""
        return restart.load(path, self.initial_state())


def _canonical(field: np.ndarray) -> np.ndarray:
    """Model order `(..., longitude, latitude from the south)` to `(..., latitude from the north, longitude)`."""
    return np.ascontiguousarray(np.swapaxes(field, -1, -2)[..., ::-1, :], np.float32)


def _constants() -> Constants:
    """The constants that the model's dynamics and physics use, read from its modules."""
    import jcm.constants
    from jcm.physics.speedy.physical_constants import alhc

    values = jcm.constants.physical_constants
    return Constants(
        gravity=values.grav,
        earth_radius=values.rearth,
        gas_constant_dry_air=values.rd,
        gas_constant_water_vapour=values.rv,
        heat_capacity_dry_air=values.cpd,
        heat_capacity_water_vapour=values.cpv,
        latent_heat_vaporisation=alhc * 1000.0,  # J g-1 in SPEEDY, which knows no other phase change in the air
        latent_heat_fusion=values.alhf,
    )


MODELS.register("speedy", Embedded(Settings, build, check, needs="jcm", extra="gcm"))
