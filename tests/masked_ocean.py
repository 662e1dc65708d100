"""A masked two-level ocean on a small globe: an analysis and a forecast, as ingest and rollout leave them, in memory.

`sea_water_potential_temperature` lies on two depths and exists where `sea_floor` says, of which the lower level has less;
`sea_surface_height` exists where the land-sea mask is sea; `soil_temperature` on two soil layers, on land; `temperature` on
two pressure levels is everywhere; `carbon_dioxide` is a series without space.
"""

import numpy as np
import xarray as xr

from emulator.planet.grid import Grid

TIMES, ROWS, DEPTHS, LAYERS, PRESSURES = 60, 8, (5.0, 100.0), (1.0, 2.0), (500.0, 850.0)
THETAO, HEIGHT = "sea_water_potential_temperature", "sea_surface_height"
DOMAINS = {THETAO: "sea_floor", HEIGHT: "ocean", "soil_temperature": "land"}
SPACE = ("latitude", "longitude")


def grid() -> Grid:
    return Grid.gaussian(ROWS)


def masks() -> dict[str, np.ndarray]:
    """`land_sea_mask` `(latitude, longitude)` and `sea_floor` `(depth, latitude, longitude)`."""
    land = np.zeros((ROWS, 2 * ROWS))
    land[1:5, 2:7] = 1
    land[0, :9] = 1
    deep = land == 0
    deep[:, 10:12] = False
    return {"land_sea_mask": land, "sea_floor": np.stack([land == 0, deep]).astype(np.float64)}


def made_truth(outside: float = np.nan, seed: int = 0) -> xr.Dataset:
    """An analysis as `open_analysis` gives it, six-hourly; `outside`: the values where a field does not exist."""
    rng = np.random.default_rng(seed)
    time = np.datetime64("2001-01-01", "ns") + np.arange(TIMES) * np.timedelta64(6, "h")
    place = grid()
    units = {"units": "K", "role": "prognostic"}

    def walk(*levels):
        steps = rng.standard_normal((TIMES, *levels, *place.shape))
        return (280 + np.cumsum(0.2 * steps, axis=0)).astype(np.float32)

    fields = {
        THETAO: (("time", "depth", *SPACE), walk(2), units | {"domain": DOMAINS[THETAO]}),
        HEIGHT: (("time", *SPACE), walk(), units | {"units": "m", "domain": DOMAINS[HEIGHT]}),
        "soil_temperature": (("time", "soil_layer", *SPACE), walk(2), units | {"domain": "land"}),
        "temperature": (("time", "level", *SPACE), walk(2), units),
        "carbon_dioxide": ("time", np.linspace(370, 371, TIMES), {"units": "1e-6", "role": "forcing"}),
        "soil_layer_bounds": (("soil_layer", "bounds"), np.array([[0.0, 0.07], [0.07, 0.28]]), {"units": "m"}),
    }
    known = masks()
    fields["land_sea_mask"] = (SPACE, known["land_sea_mask"], {"units": "1", "role": "static"})
    fields["sea_floor"] = (("depth", *SPACE), known["sea_floor"], {"units": "1", "role": "static"})
    coordinates = {
        "time": time,
        "depth": ("depth", np.array(DEPTHS), {"units": "m"}),
        "soil_layer": ("soil_layer", np.array(LAYERS), {"units": "1", "bounds": "soil_layer_bounds"}),
        "level": ("level", np.array(PRESSURES), {"units": "hPa"}),
        "latitude": place.latitude,
        "longitude": place.longitude,
    }
    attributes = {"vertical_coordinate": "pressure", "time_step_seconds": 21600.0}
    return with_outside(xr.Dataset(fields, coordinates, attributes), outside)


def with_outside(dataset: xr.Dataset, outside: float) -> xr.Dataset:
    """The dataset with a value, or with noise of its size where it is finite, wherever a field does not exist."""
    known = masks()
    here = {THETAO: known["sea_floor"] > 0.5, HEIGHT: known["land_sea_mask"] < 0.5}
    here["soil_temperature"] = known["land_sea_mask"] >= 0.5
    result = dataset.copy()
    for name, exists in here.items():
        field = dataset[name]
        values = np.broadcast_to(exists, field.shape)
        noise = outside * np.random.default_rng(5).standard_normal(field.shape)
        result[name] = field.copy(data=np.where(values, field.values, noise).astype(np.float32))
    return result


def made_forecast(truth: xr.Dataset, inits, leads: int, members: int = 0, seed: int = 1) -> xr.Dataset:
    """The truth's moving fields with an error that grows with lead, as `open_forecast` gives it."""
    rng = np.random.default_rng(seed)
    fields = {name: truth[name].variable for name in ("land_sea_mask", "sea_floor", "soil_layer_bounds")}
    for name in (THETAO, HEIGHT, "soil_temperature", "temperature"):
        field = truth[name]
        blocks = np.stack([field.values[init : init + leads + 1] for init in inits])
        front, shape = ("init_time", "lead_time"), list(blocks.shape)
        if members:
            front, blocks = (*front, "member"), blocks[:, :, None]
            shape.insert(2, members)
        growth = np.linspace(0, 1, leads + 1).reshape(-1, *[1] * (len(shape) - 2))
        values = blocks + 0.3 * growth * rng.standard_normal(shape) + 0.1 * growth
        fields[name] = ((*front, *field.dims[1:]), values.astype(np.float32), field.attrs)
    coordinates = {n: truth[n].variable for n in ("depth", "soil_layer", "level", *SPACE)}
    coordinates["init_time"] = truth["time"].values[list(inits)]
    coordinates["lead_time"] = (np.arange(leads + 1) * 6).astype("timedelta64[h]").astype("timedelta64[ns]")
    return xr.Dataset(fields, coordinates, truth.attrs)
