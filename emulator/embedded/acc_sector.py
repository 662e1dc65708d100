"""The ocean sector in Veros: what a simulation's settings make of its wind, its restoring and its floor.

Unlike Veros' own set-up the surface is free (linear, implicit, in cells of constant volume), so that it has a height; a ridge
rises in the middle, so that there is less water in lower levels; and salinity is restored too. Momentum is stepped 80 minutes
for every half day of the tracers, as there.

Veros is imported with a set-up, never with this module.
"""

import dataclasses
import sys
from datetime import date, timedelta

import numpy as np

COLDEST = -1.8  # degrees C, below which sea water would freeze
YEAR_DAYS = 365.25
WARMEST = {True: 240.0, False: 57.0}  # day of the year with the warmest surface, north and south of the equator
RIDGE_EAST, RIDGE_WIDTH = 30.0, 8.0  # degrees: longitude of the crest, distance at which it has fallen to 1/e
INNER = np.s_[2:-2, 2:-2]  # without the two rows of halo on each side


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


def set_up(settings: Settings):
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
