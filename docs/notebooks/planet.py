"""A moist planet of one layer whose weather is made in seconds: the data of these notebooks.

Vorticity z and column water W (kg m-2) are carried by a flow without divergence, in spherical harmonics truncated at T21:

    dz/dt = -u . grad(z + f) + (z_jets - z) / 10 days,    dW/dt = -u . grad W + E - P,    u = k x grad(psi),  lap(psi) = z

Two jets are barotropically unstable, so that waves grow, break and wander as those of the middle latitudes do. Water
evaporates from the sea towards what each latitude can hold, and rains out above 70 % of it. Pressure follows from the linear
balance of mass and wind, lap(phi) = div(f grad psi), and carries the weight of the water too. Dry air and water are conserved
to rounding, since no product here is aliased.
"""

import json

import numpy as np
import torch
import xarray as xr

import emulator as em

RADIUS, ROTATION, GRAVITY, SCALE = 6.371e6, 7.292e-5, 9.80665, 287.05 * 270  # m, s-1, m s-2, J kg-1: R T of the air
STEP, STEPS = 7200.0, 3  # s, and how many of them are six hours
HOLDING, RELAXING, RAINING, MOISTENING = 0.7, 10 * 86400.0, 6 * 3600.0, 5 * 86400.0  # share of what air can hold; s


class Planet:
    """The equations on `rows` Gaussian latitudes: coefficients `(degree, order, 2)` and fields `(row, column)`, float64."""

    def __init__(self, rows: int = 32, degrees: int = 22):
        self.grid = em.Grid.gaussian(rows)
        self.transform = em.transform(self.grid, degrees).double()
        latitude, longitude = (torch.from_numpy(np.radians(angle)) for angle in self.grid.mesh())
        self.sine, self.cosine = latitude.sin(), latitude.cos()
        count = torch.arange(degrees, dtype=torch.float64)
        self.degree, self.order = count[:, None, None], count[None, :, None]
        self.laplacian = -self.degree * (self.degree + 1) / RADIUS**2
        self.inverse = torch.where(self.degree > 0, 1 / self.laplacian, 0.0)
        self.smoothing = torch.exp(-((self.degree / self.degree.max()) ** 8))  # of every step
        self.ratio = ((self.degree**2 - self.order**2).clamp(min=0) / (4 * self.degree**2 - 1)).sqrt()
        self.holds = 6 + 44 * self.cosine**4  # kg m-2
        self.land = (torch.sin(2 * longitude + 1.5 * latitude) * self.cosine > 0.45).double()
        jets = 85 * torch.exp(-(((latitude.abs() - np.pi / 4) / 0.15) ** 2)) * self.cosine  # u cos(latitude), m s-1
        (slope,) = self.synthesis(self.northward(*self.analysis(jets)))
        (self.jets,) = self.analysis(-slope / (RADIUS * self.cosine**2))

    def analysis(self, *fields):
        return self.transform.analysis(torch.stack(fields, -1)).unbind(-1)

    def synthesis(self, *coefficients):
        return self.transform.synthesis(torch.stack(coefficients, -1)).unbind(-1)

    def eastward(self, c):
        """d/d(longitude) of a field with coefficients c."""
        return self.order * torch.stack((-c[..., 1], c[..., 0]), -1)

    def northward(self, c):
        """cos(latitude) d/d(latitude), by the recurrence of the associated Legendre functions."""
        slope = torch.zeros_like(c)
        slope[1:] -= (self.degree[1:] - 1) * self.ratio[1:] * c[:-1]
        slope[:-1] += (self.degree[:-1] + 2) * self.ratio[1:] * c[1:]
        return slope

    def dynamics(self, vorticity, water):
        """Tendencies of both by advection, and of the vorticity by the pull to the jets."""
        psi = self.inverse * vorticity
        parts = [f(c) for c in (psi, vorticity, water) for f in (self.eastward, self.northward)]
        psi_east, psi_north, z_east, z_north, w_east, w_north = self.synthesis(*parts)
        metric = (RADIUS * self.cosine) ** 2
        z = (psi_north * z_east - psi_east * z_north) / metric - 2 * ROTATION * psi_east / RADIUS**2
        w = (psi_north * w_east - psi_east * w_north) / metric
        z, w = self.analysis(z, w)
        return z + (self.jets - vorticity) / RELAXING, w

    def step(self, vorticity, water):
        """Both after a step (Runge and Kutta's of fourth order), and evaporation and rain within it, kg m-2 s-1."""
        rates, z, w = [], vorticity, water
        for ahead in (0.5, 0.5, 1.0, None):
            rates.append(self.dynamics(z, w))
            if ahead:
                z, w = (now + ahead * STEP * rate for now, rate in zip((vorticity, water), rates[-1], strict=True))
        vorticity, water = (
            self.smoothing * (now + STEP / 6 * (a + 2 * b + 2 * c + d))
            for now, a, b, c, d in zip((vorticity, water), *rates, strict=True)
        )
        (there,) = self.synthesis(water)
        evaporation = (1 - self.land) * (self.holds - there).clamp(min=0) / MOISTENING
        rain = (there - HOLDING * self.holds).clamp(min=0) / RAINING
        (source,) = self.analysis(evaporation - rain)
        return vorticity, water + STEP * source, evaporation, rain

    def six_hours(self, vorticity, water):
        """Both after six hours, and evaporation and rain in their mean, kg m-2 s-1."""
        evaporation = rain = 0.0
        for _ in range(STEPS):
            vorticity, water, *rates = self.step(vorticity, water)
            evaporation, rain = evaporation + rates[0] / STEPS, rain + rates[1] / STEPS
        return vorticity, water, evaporation, rain

    def state(self, u, v, water):
        """Vorticity and water as coefficients, of winds (m s-1) and column water (kg m-2)."""
        east, north, water = self.analysis(u * self.cosine, v * self.cosine, water)
        along, across = self.synthesis(self.eastward(north), self.northward(east))
        (vorticity,) = self.analysis((along - across) / (RADIUS * self.cosine**2))
        return vorticity, water

    def fields(self, vorticity, water):
        """Winds (m s-1), surface pressure (Pa) and specific humidity (1) of a state."""
        psi = self.inverse * vorticity
        psi_east, north, z, water = self.synthesis(self.eastward(psi), self.northward(psi), vorticity, water)
        (balance,) = self.analysis(2 * ROTATION * (self.sine * z + north / RADIUS**2))
        (geopotential,) = self.synthesis(self.inverse * balance)
        pressure = 98500 * (1 + geopotential / SCALE) + GRAVITY * water
        winds = -north / (RADIUS * self.cosine), psi_east / (RADIUS * self.cosine)
        return *winds, pressure, GRAVITY * water / pressure


def planet(days: float, seed: int = 0, rows: int = 32) -> xr.Dataset:
    """Six-hourly states after a spin-up of twenty days, with the names, units and signs of an analysis store."""
    made, random = Planet(rows), torch.Generator().manual_seed(seed)
    noise = 1e-5 * torch.randn(made.laplacian.shape[:1] * 2 + (2,), generator=random, dtype=torch.float64)
    vorticity = made.jets + noise * ((made.order <= made.degree) & (made.order > 0) & (made.degree < 10))
    (water,) = made.analysis(HOLDING * made.holds)
    states, spin_up = [], 20 * 4
    for time in range(spin_up + round(4 * days)):
        vorticity, water, *fluxes = made.six_hours(vorticity, water)
        if time >= spin_up:
            states.append(torch.stack([*made.fields(vorticity, water), *fluxes]))
    return dataset(made, torch.stack(states).float().numpy())


def dataset(made: Planet, fields: np.ndarray) -> xr.Dataset:
    """The fields `(time, field, row, column)` under their names; fluxes are means over the six hours that end at a time."""
    names = {
        "u_component_of_wind": "m s-1",
        "v_component_of_wind": "m s-1",
        "surface_pressure": "Pa",
        "specific_humidity": "kg kg-1",
        "mean_evaporation_rate": "kg m-2 s-1",
        "mean_total_precipitation_rate": "kg m-2 s-1",
    }
    data = {}
    for (name, units), values in zip(names.items(), np.moveaxis(fields, 1, 0), strict=True):
        surface = name.startswith(("surface", "mean"))
        values = -values if name == "mean_evaporation_rate" else values  # downward is positive
        dims = ("time", "latitude", "longitude") if surface else ("time", "level", "latitude", "longitude")
        method = "time: mean" if name.startswith("mean") else "time: point"
        data[name] = (dims, values if surface else values[:, None], {"units": units, "cell_methods": method})
    data["land_sea_mask"] = (("latitude", "longitude"), made.land.float().numpy(), {"units": "1"})
    data |= {"half_level_a": ("half_level", [0.0, 0.0]), "half_level_b": ("half_level", [0.0, 1.0])}
    times = np.datetime64("2001-01-01", "ns") + np.arange(len(fields)) * np.timedelta64(6, "h")
    level = ("level", [0.5], {"standard_name": "atmosphere_sigma_coordinate", "units": "1"})
    north = ("latitude", made.grid.latitude, {"units": "degrees_north", "standard_name": "latitude"})
    east = ("longitude", made.grid.longitude, {"units": "degrees_east", "standard_name": "longitude"})
    constants = {"gravity": GRAVITY, "heat_capacity_dry_air": 1004.64, "latent_heat_vaporisation": 2.501e6}
    attributes = {
        "vertical_coordinate": "sigma",
        "constants": json.dumps(constants),
        "source": "a moist planet of one layer",
    }
    return xr.Dataset(data, {"time": times, "level": level, "latitude": north, "longitude": east}, attributes)
