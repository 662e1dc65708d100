"""A small sea in closed form, shared by the tests: columns warmed and salted through their surface, mixed with what is below.

Box of 8 x 8 cells and three depths, with land in one corner, a shelf without the lowest layer and one without the two lowest.
States are snapshots and fluxes means over the step that ends at their time, so that contents change by just the fluxes.
"""

import numpy as np
import xarray as xr

from emulator.planet.constants import Constants
from emulator.planet.grid import CLOSED, Grid

CONSTANTS = Constants(sea_water_density=1024.0, sea_water_heat_capacity=4000.0)
EDGES = np.array([0.0, 50.0, 200.0, 1000.0])
THICKNESS, STEP = np.diff(EDGES), 5 * 86400.0
HEAT, SALT = "mean_downward_heat_flux_into_sea_water", "mean_virtual_salt_flux_into_sea_water"
THETAO, SO = "sea_water_potential_temperature", "sea_water_salinity"


def grid() -> Grid:
    return Grid.box(8, 8, (-40.0, 40.0, 0.0, 60.0))


def water() -> np.ndarray:
    """Where there is water, `(depth, latitude, longitude)`."""
    wet = np.ones((3, 8, 8), bool)
    wet[:, :3, :2] = False
    wet[2, 4:6] = False
    wet[1:, 7, 5:] = False
    return wet


def small_sea(times: int = 40, seed: int = 0, closed: bool = True) -> xr.Dataset:
    """Five-daily `(time, depth, latitude, longitude)`, float64, missing outside the sea."""
    rng, wet = np.random.default_rng(seed), water()
    surface, depth = ("time", "latitude", "longitude"), ("time", "depth", "latitude", "longitude")
    year = 2 * np.pi * np.arange(times)[:, None, None] / 73
    heat = 60 * np.cos(year) * np.sign(grid().latitude)[:, None] + 10 * rng.standard_normal((times, 8, 8))
    salt = 1e-6 * (1 + rng.standard_normal((times, 8, 8)))
    per_kelvin = CONSTANTS.sea_water_density * CONSTANTS.sea_water_heat_capacity
    content = {THETAO: heat / per_kelvin, SO: 1000 * salt / CONSTANTS.sea_water_density}
    start = {THETAO: np.array([290.0, 284.0, 277.0]), SO: np.array([35.5, 35.0, 34.8])}
    fields = {}
    for name, source in content.items():
        now, series = start[name][:, None, None] + 0.5 * rng.standard_normal((3, 8, 8)), []
        for rate in source:
            now = now + mixing(now, wet)
            now[0] += STEP * rate / THICKNESS[0]
            series.append(np.where(wet, now, np.nan))
        fields[name] = depth, np.stack(series), {"domain": "sea_water_mask", "cell_methods": "time: point"}
    for name, flux in ((HEAT, heat), (SALT, salt)):
        fields[name] = surface, np.where(wet[0], flux, np.nan), {"domain": "ocean", "cell_methods": "time: mean"}
    fields["sea_water_mask"] = depth[1:], wet.astype(float), {}
    fields["land_sea_mask"] = surface[1:], (~wet[0]).astype(float), {}
    fields["depth_bounds"] = ("depth", "bounds"), np.stack([EDGES[:-1], EDGES[1:]], 1), {"units": "m"}
    units = {THETAO: "K", SO: "g kg-1", HEAT: "W m-2", SALT: "kg m-2 s-1"}
    for name, (_, _, attributes) in fields.items():
        role = "prognostic" if name in (THETAO, SO) else "forcing" if name in units else "static"
        if name != "depth_bounds":
            attributes |= {"units": units.get(name, "1"), "role": role}
    coordinates = {
        "time": np.datetime64("2001-01-06", "ns") + np.arange(times) * np.timedelta64(5, "D"),
        "depth": ("depth", (EDGES[:-1] + EDGES[1:]) / 2, {"units": "m", "bounds": "depth_bounds"}),
        "latitude": grid().latitude,
        "longitude": grid().longitude,
    }
    attributes = {"time_step_seconds": STEP, "constants": CONSTANTS.to_json()} | ({CLOSED: 1} if closed else {})
    return xr.Dataset(fields, coordinates, attributes)


def mixing(field: np.ndarray, wet: np.ndarray) -> np.ndarray:
    """Change by an exchange of 10 m of water with the layer below, where there is one: `(depth, ...)`."""
    change = np.zeros_like(field)
    exchanged = np.where(wet[1:], 10 * (field[:-1] - field[1:]), 0.0)
    change[:-1] -= exchanged / THICKNESS[:-1, None, None]
    change[1:] += exchanged / THICKNESS[1:, None, None]
    return change
