"""Fields on sigma or hybrid levels as fields on pressure levels."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from emulator.planet.pressure_levels import geopotential_at, on_pressures
from emulator.planet.variables import VARIABLES
from emulator.planet.vertical import VERTICAL, Levels
from emulator.store.schema import ORDER, RECORDS, constants_of, levels_of

SURFACE_PRESSURE, OROGRAPHY, HUMIDITY = "surface_pressure", "geopotential_at_surface", "specific_humidity"
OF_MODEL_LEVELS = ("half_level_a", "half_level_b")


def on_pressure(dataset: xr.Dataset, pressures: Sequence[float]) -> xr.Dataset:
    """A dataset of an analysis or of forecasts with its fields on pressure levels, in memory.

    Between levels as `emulator.planet.pressure_levels` has it. Where there is no geopotential on the levels, and temperature
    and the geopotential of the ground are there, the hydrostatic one is added. Fields without levels stay; fixed fields on
    levels and what the conservation scheme recorded of the model's levels are left out. The result makes no column
    (`levels_selected`): budgets are those of the model's levels.

    Args:
      dataset: as `open_analysis` or `open_forecast` gives it, or a part of it. pressures: hPa.
    Raises `ValueError` for pressures that are not positive and increasing, for levels of pressure already or none, and
    without surface pressure.
    """
    levels, wanted = check_interpolation(dataset, pressures), np.asarray(pressures, np.float64) * 100
    ground = dataset[SURFACE_PRESSURE]
    ground = ground.transpose(*[d for d in ORDER if d in ground.dims])
    place, constants = ground.dims, constants_of(dataset)
    temperature = _levelled(dataset, "temperature", place)
    fields: dict[str, xr.Variable] = {}

    def put(name, values, attributes):
        found = xr.Variable(("level", *place), values.astype(np.float32), attributes)
        fields[name] = found.transpose(*[d for d in ORDER if d in found.dims])

    pressure = np.asarray(ground.values, np.float64)
    for name in map(str, dataset.data_vars):
        if name in OF_MODEL_LEVELS or name.startswith(RECORDS):
            continue
        if "level" not in dataset[name].dims:
            fields[name] = dataset[name].variable
        elif (field := _levelled(dataset, name, place)) is not None:
            beside = temperature if name == "geopotential" else None
            put(name, on_pressures(field, levels, pressure, wanted, name, beside, constants), dataset[name].attrs)
    if "geopotential" not in dataset and temperature is not None and OROGRAPHY in dataset:
        surface = dataset[OROGRAPHY].values  # its dimensions are the last of `place`
        humidity = _levelled(dataset, HUMIDITY, place)
        entry, like = VARIABLES["geopotential"], dataset["temperature"].attrs
        made = geopotential_at(wanted, temperature, humidity, surface, levels, pressure, constants)
        told = {n: like[n] for n in ("cell_methods",) if n in like}
        put(
            "geopotential",
            made,
            {"units": entry.units, "standard_name": entry.standard_name, "role": "diagnostic"} | told,
        )
    coordinates = {n: c.variable for n, c in dataset.coords.items() if "level" not in c.dims}
    coordinates["level"] = xr.Variable("level", wanted / 100, VERTICAL["level"].attributes("pressure"))
    attributes = dataset.attrs | {"vertical_coordinate": "pressure", "levels_selected": 1}
    return xr.Dataset(fields, coordinates, attributes)


def check_interpolation(dataset: xr.Dataset, pressures: Sequence[float]) -> Levels:
    """The levels to interpolate from. Raises `ValueError` as `on_pressure` does."""
    wanted = np.asarray(pressures, np.float64)
    if not len(wanted) or not np.all(np.diff(wanted) > 0) or not wanted[0] > 0:
        raise ValueError(f"Expected increasing pressures in hPa to interpolate to, got {list(map(float, wanted))}")
    levels = levels_of(dataset)
    if levels is None or levels.kind == "pressure":
        got = "pressure levels" if levels else "none"
        raise ValueError(f"Expected whole columns of sigma or hybrid levels to interpolate from, got {got}")
    if SURFACE_PRESSURE not in dataset:
        raise ValueError(f"Expected {SURFACE_PRESSURE} beside {levels.kind} levels to interpolate from, got none")
    return levels


def _levelled(dataset: xr.Dataset, name: str, place: Sequence[str]) -> np.ndarray | None:
    """A field `(level, *place)`; None where the dataset has none on these dimensions."""
    if name not in dataset or set(dataset[name].dims) != {"level", *place}:
        return None
    return dataset[name].transpose("level", *place).values
