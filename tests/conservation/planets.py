"""Random planets for the conservation tests, and an auditor that shares no code with the budgets.

The auditor works in NumPy and float64 on the final fields, with differences of sums and heights integrated layer by layer.
"""

import numpy as np
import torch

from emulator.conservation import Atmosphere, fluxes
from emulator.planet.constants import Constants
from emulator.planet.grid import Grid
from emulator.planet.vertical import Levels

CONSTANTS = Constants(gravity=9.81, heat_capacity_dry_air=1004.64, latent_heat_vaporisation=2.501e6)
STEP = 21600.0

GRIDS = {
    "poles": lambda: Grid.equiangular(7, 12, poles=True),
    "no poles": lambda: Grid.equiangular(6, 12),
    "gaussian": lambda: Grid.gaussian(8, 14),
    "points": lambda: _points(90),
}
LEVELS = {
    "sigma": Levels.sigma([0, 0.05, 0.14, 0.26, 0.42, 0.60, 0.77, 0.90, 1]),
    "hybrid": Levels.hybrid([200, 3000, 5000, 2000, 0], [0, 0.1, 0.4, 0.75, 1]),
    "lid": Levels.sigma([0.02, 0.2, 0.5, 0.8, 1]),
    "pressure": Levels.pressure([50, 200, 500, 700, 850, 925, 1000]),
}
VARIANCES = {
    "surface_pressure": 4e4,
    "temperature": 1.0,
    "specific_humidity": 1e-7,
    fluxes.PRECIPITATION: 1e-10,
    fluxes.EVAPORATION: 1e-11,
}


def _points(count):
    """A Fibonacci lattice with uneven areas."""
    index = np.arange(count) + 0.5
    latitude = np.degrees(np.arcsin(1 - 2 * index / count))
    return Grid.points(latitude, (index * 137.508) % 360, 1 + 0.5 * np.sin(index))


def make_atmosphere(grid: Grid, levels: Levels, surface_pressure=True, seed=0) -> Atmosphere:
    orography = 3000 * np.random.default_rng(seed).random(grid.shape) ** 4 * CONSTANTS.gravity
    return Atmosphere(torch.as_tensor(grid.area), levels, CONSTANTS, torch.as_tensor(orography), STEP, surface_pressure)


def random_step(atmosphere: Atmosphere, dtype=torch.float32, batch=2, seed=0, snow=False, noise=1.0):
    """Start and end of a step with all fluxes: plausible, out of balance, and with some negative humidity and rain."""
    random = np.random.default_rng(seed)
    space, levels = tuple(atmosphere.area.shape), len(atmosphere.levels)
    surface, column = (batch, *space), (batch, levels, *space)

    def profile(top, bottom):
        return np.linspace(top, bottom, levels).reshape(1, levels, *[1] * len(space))

    orography = np.zeros(space) if atmosphere.geopotential_at_surface is None else atmosphere.geopotential_at_surface
    start = {
        "surface_pressure": 101000 * np.exp(-np.asarray(orography) / 8e4) + 800 * random.standard_normal(surface),
        "temperature": profile(210, 290) + 8 * random.standard_normal(column),
        "specific_humidity": profile(2e-6, 0.012) * random.random(column),
        "u_component_of_wind": 12 * random.standard_normal(column),
        "v_component_of_wind": 8 * random.standard_normal(column),
    }
    changes = {
        "surface_pressure": 40 + 200 * random.standard_normal(surface),
        "temperature": 0.3 + random.standard_normal(column),
        "specific_humidity": profile(1e-6, 4e-4) * random.standard_normal(column),
        "u_component_of_wind": 2 * random.standard_normal(column),
        "v_component_of_wind": 2 * random.standard_normal(column),
    }
    end = {name: start[name] + noise * changes[name] for name in start}
    end[fluxes.PRECIPITATION] = 4e-5 * random.gamma(0.6, 1.5, surface) - 5e-6
    end[fluxes.EVAPORATION] = -3e-5 - 1e-5 * random.standard_normal(surface)
    means = (240.0, -235.0, 160.0, -60.0, -20.0)
    for name, mean in zip((*fluxes.TOP_FLUXES, *fluxes.SURFACE_FLUXES[:3]), means, strict=True):
        end[name] = mean + 20 * random.standard_normal(surface)
    end[fluxes.LATENT_HEAT] = CONSTANTS.latent_heat_vaporisation * end[fluxes.EVAPORATION]
    if snow:
        end[fluxes.SNOWFALL] = 0.3 * random.random(surface) * end[fluxes.PRECIPITATION].clip(0)
    if not atmosphere.has_surface_pressure:
        del start["surface_pressure"], end["surface_pressure"]
    return tuple({name: torch.as_tensor(value, dtype=dtype) for name, value in state.items()} for state in (start, end))


class Auditor:
    """Budgets in float64 from sums over whole states, written from the definitions."""

    def __init__(self, atmosphere: Atmosphere, form="hydrostatic", moist=False, kinetic=True):
        self.air, self.form, self.moist, self.kinetic = atmosphere, form, moist, kinetic
        orography = atmosphere.geopotential_at_surface
        self.orography = np.zeros(tuple(atmosphere.area.shape)) if orography is None else orography.double().numpy()

    def mean(self, field):
        axes = tuple(range(-self.air.area.ndim, 0))
        return np.sum(np.asarray(field, np.float64) * self.air.area.numpy(), axis=axes)

    def layers(self, state):
        """Interface pressures and thickness, lists over levels of `(batch, *space)`."""
        if not self.air.has_surface_pressure:
            shape = np.zeros((len(state["temperature"]), *self.air.area.shape))
            half = [shape + a for a in self.air.levels.half_a]
        else:
            half = self.air.levels.interfaces(state["surface_pressure"])
        return half, [below - above for above, below in zip(half[:-1], half[1:], strict=True)]

    def _numbers(self, state):
        return {name: value.detach().double().numpy() for name, value in state.items()}

    def column(self, content, thickness):
        return sum(content[:, k] * dp for k, dp in enumerate(thickness)) / CONSTANTS.gravity

    def dry_mass(self, state):
        state = self._numbers(state)
        return self.mean(self.column(1 - state["specific_humidity"], self.layers(state)[1]))

    def water(self, state):
        state = self._numbers(state)
        return self.mean(self.column(state["specific_humidity"], self.layers(state)[1]))

    def energy(self, state):
        state = self._numbers(state)
        half, thickness = self.layers(state)
        temperature, humidity = state["temperature"], state["specific_humidity"]
        content = CONSTANTS.latent_heat_vaporisation * humidity
        dry, vapour = CONSTANTS.heat_capacity_dry_air, CONSTANTS.heat_capacity_water_vapour
        if self.form == "hydrostatic":
            capacity = (1 - humidity) * dry + humidity * vapour if self.moist else dry
            content = content + capacity * temperature + self.orography
            if self.kinetic:
                content = content + (state["u_component_of_wind"] ** 2 + state["v_component_of_wind"] ** 2) / 2
            return self.mean(self.column(content, thickness))
        gas, gas_vapour = CONSTANTS.gas_constant_dry_air, CONSTANTS.gas_constant_water_vapour
        content = content + (dry - gas) * temperature
        virtual = temperature * (gas + (gas_vapour - gas) * humidity)
        geopotential, total = self.orography + 0 * half[-1], 0
        for k in reversed(range(len(thickness))):
            above, below = half[k], half[k + 1]
            with np.errstate(divide="ignore", invalid="ignore"):
                logarithm = np.where(above > 0, np.log(below / above), np.inf)
                share = np.where(thickness[k] > 0, above / thickness[k], 1.0)
                # Mean by mass over an isothermal layer of the geopotential above its lower interface.
                lift = np.where(above > 0, 1 - share * logarithm, 1.0)
            total = total + (content[:, k] + geopotential + virtual[:, k] * lift) * thickness[k]
            geopotential = geopotential + np.where(np.isfinite(logarithm), virtual[:, k] * logarithm, 0)
        return self.mean(total / CONSTANTS.gravity)

    def residuals(self, state0, state1, reference=None):
        """Relative residuals by budget, `(batch,)`; `reference` is the dry mass, kg m-2."""
        reference = self.dry_mass(state0) if reference is None else reference
        ends = self._numbers(state1)
        gained = -ends[fluxes.EVAPORATION] - ends[fluxes.PRECIPITATION]
        net = sum(ends[name] for name in fluxes.TOP_FLUXES) - sum(ends[name] for name in fluxes.SURFACE_FLUXES)
        if fluxes.SNOWFALL in ends:
            net = net + CONSTANTS.latent_heat_fusion * ends[fluxes.SNOWFALL]
        water0, energy0 = self.water(state0), self.energy(state0)
        return {
            "dry_air": (self.dry_mass(state1) - reference) / reference,
            "water": (self.water(state1) - water0 - STEP * self.mean(gained)) / water0,
            "energy": (self.energy(state1) - energy0 - STEP * self.mean(net)) / energy0,
        }
