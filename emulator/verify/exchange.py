"""The audit of what two coupled networks exchange: what left the atmosphere over the sea, and what its ocean was given.

From the two stores as written, in float64 and apart from the code that couples. Over an interval of the ocean the mean of the
atmosphere's rates has to be the ocean's forcing in every cell of the sea: what one books as lost the other books as won.
"""

import json
from collections.abc import Mapping

import numpy as np
import xarray as xr

from emulator.planet.grid import Grid
from emulator.planet.quantities import energy
from emulator.planet.quantities.ocean_heat import FLUX as HEAT
from emulator.store.schema import constants_of, grid_of
from emulator.verify.channels import values
from emulator.verify.slab import net_surface

WATER = ("mean_total_precipitation_rate", "mean_evaporation_rate")
WATER_NAME = "water"  # both together, where both are exchanged
SURFACES = ("sea_surface_temperature", "sea_water_potential_temperature")
DIMS = ("exchange", "audit_init_time", "exchange_lead_time")
UNITS = {HEAT: "W m-2"}
RATE = "kg m-2 s-1"


def exchanges(forecasts: Mapping[str, xr.Dataset], oceans: Mapping[str, xr.Dataset], inits: np.ndarray) -> xr.Dataset:
    """`exchange_*` of forecasts by the stores of their oceans, over `(audit_source, exchange, audit_init_time,
    exchange_lead_time)`, at those of `inits` that a forecast has; see `exchange`.
    """
    parts = []
    for name, sea in oceans.items():
        shared = [t for t in forecasts[name]["init_time"].values if t in inits and t in sea["init_time"].values]
        if shared:
            found = exchange(forecasts[name].sel(init_time=shared), sea.sel(init_time=shared), name)
            parts.append(found.expand_dims(audit_source=[name]))
    return xr.concat(parts, "audit_source", join="outer", data_vars="all") if parts else xr.Dataset()


def exchange(air: xr.Dataset, sea: xr.Dataset, name: str = "the forecast") -> xr.Dataset:
    """Of forecasts and those of their ocean's network, from the same initial times, the first member of each:

    `exchange_given`, `exchange_received`: mean over the sea of what left the atmosphere and of what the ocean was given, in
    `exchange_units`, downward positive; `exchange_difference`: root mean square over the sea's cells of the difference;
    `exchange_size`: the same of what was given. `(exchange, audit_init_time, exchange_lead_time)` at the leads of the ocean
    that end an interval.

    Raises `ValueError` for a forecast that was coupled with no network, and one whose store lacks steps or fluxes.
    """
    record = json.loads(air.attrs.get("ocean", "{}"))
    if record.get("kind") != "emulator" or air.attrs["ocean"] != sea.attrs.get("ocean"):
        raise ValueError(
            f"Expected {name} coupled with the network whose forecasts are its ocean's, got another ocean or none"
        )
    names, fluxes = record["exchanged"], _fluxes_of(record["exchanged"], air)
    if absent := [flux for flux in fluxes if flux not in air]:
        raise ValueError(f"Expected what {name} gave to its ocean in its store, got no {', '.join(absent)}")
    grid, constants = grid_of(air), constants_of(air)
    area = np.where(_wet(sea), grid.area, 0.0)
    shown = [*names, *([WATER_NAME] if {*WATER} <= {*names} else [])]
    ends = sea["lead_time"].values[1:]
    found = np.full((4, len(shown), sea.sizes["init_time"], len(ends)), np.nan)
    for at, steps in enumerate(_intervals(air, sea["lead_time"].values, name)):
        for init in range(sea.sizes["init_time"]):
            gave = _given(_rows(air, fluxes, init, steps, grid), names, constants)
            got = _rows(sea, names, init, [at + 1], grid)
            for place, one in enumerate(shown):
                both = [
                    np.mean(sum(rates[each] for each in (WATER if one == WATER_NAME else (one,))), axis=0)
                    for rates in (gave, got)
                ]
                found[:, place, init, at] = _compared(*both, area)
    scores = ("given", "received", "difference", "size")
    result = xr.Dataset({f"exchange_{score}": (DIMS, values) for score, values in zip(scores, found, strict=True)})
    coordinates = {"exchange": shown, "audit_init_time": sea["init_time"].values, "exchange_lead_time": ends}
    units = ("exchange", [UNITS.get(one, RATE if one in (*WATER, WATER_NAME) else _units(sea, one)) for one in shown])
    return result.assign_coords(coordinates | {"exchange_units": units})


def _fluxes_of(names: list[str], air: xr.Dataset) -> list[str]:
    """The atmosphere's fields behind what is exchanged."""
    heat = [*energy.SURFACE_FLUXES, *(f for f in (energy.SNOWFALL,) if f in air)] if HEAT in names else []
    return list(dict.fromkeys([*heat, *(name for name in names if name != HEAT)]))


def _given(rates: dict[str, np.ndarray], names: list[str], constants) -> dict[str, np.ndarray]:
    return {name: net_surface(rates, constants) if name == HEAT else rates[name] for name in names}


def _intervals(air: xr.Dataset, sea: np.ndarray, name: str) -> list[np.ndarray]:
    """Positions of the atmosphere's leads that each interval of the ocean is made of."""
    leads, step = air["lead_time"].values, float(air.attrs.get("time_step_seconds", 0))
    found = [np.flatnonzero((leads > start) & (leads <= end)) for start, end in zip(sea[:-1], sea[1:], strict=True)]
    seconds = np.diff(sea) / np.timedelta64(1, "s")
    if any(len(each) * step != length for each, length in zip(found, seconds, strict=True)):
        raise ValueError(
            f"Expected every step of {name} in the {seconds[0] / 3600:g} hours of an interval of its ocean, got "
            "leads that are thinned"
        )
    return found


def _rows(dataset: xr.Dataset, names, init: int, leads, grid: Grid) -> dict[str, np.ndarray]:
    picked = dataset[list(names)].isel({"init_time": init, "member": 0, "lead_time": leads}, missing_dims="ignore")
    return {n: values(picked[n].transpose("lead_time", *grid.dims)).astype(np.float64) for n in names}


def _wet(sea: xr.Dataset) -> np.ndarray:
    """Where the ocean has a surface, `(*space)` bool."""
    surface = next(name for name in SURFACES if name in sea)
    field = sea[surface].isel({"init_time": 0, "lead_time": 0, "member": 0}, missing_dims="ignore")
    if "depth" in field.dims:
        field = field.isel(depth=int(np.argmin(field["depth"].values)))
    return np.isfinite(values(field.transpose(*grid_of(sea).dims)))


def _compared(gave: np.ndarray, got: np.ndarray, area: np.ndarray) -> tuple[float, float, float, float]:
    area = area / area.sum()
    gave, got = (np.where(area > 0, field, 0.0) for field in (gave, got))
    rms = [float(np.sqrt((area * field**2).sum())) for field in (got - gave, gave)]
    return float((area * gave).sum()), float((area * got).sum()), *rms


def _units(sea: xr.Dataset, name: str) -> str:
    return str(sea[name].attrs.get("units", ""))
