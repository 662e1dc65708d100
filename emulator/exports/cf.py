"""An analysis, or one forecast, as a CF dataset: valid time as the axis, CF names, units and vertical coordinates."""

import numpy as np
import xarray as xr

from emulator.exports.source import STARTS
from emulator.planet.calendar import valid_times
from emulator.planet.projection import NAME as CRS
from emulator.planet.variables import Variable, known
from emulator.planet.vertical import VERTICAL
from emulator.store.forecast import lead_attributes
from emulator.store.masks import domain_name, existing
from emulator.store.schema import entry

CONVENTIONS = "CF-1.11"
OURS = ("role", "domain", "short_name", "minimum", "maximum")  # attributes of our stores that CF has no words for
NAMES = {"member": "realization", "level": "level"}
TIME_ENCODING = {"units": "seconds since 1970-01-01", "dtype": "float64", "_FillValue": None}  # int64 is new in CF-1.9


def to_cf(dataset: xr.Dataset) -> xr.Dataset:
    """As CF has it.

    `dataset`: an analysis `(time, [member,] [vertical,] *space)`, or a forecast `(lead_time, [member,] [vertical,] *space)`
    with a scalar `init_time`, whose axis becomes `time` (valid), with `forecast_reference_time` and `forecast_period` as
    auxiliary coordinates. Means have bounds over the interval that ends at their time, as `interval_start` or else the step
    has it. Level attributes name pressure, or hybrid sigma pressure with its formula terms; depths, heights and soil layers
    have their bounds where the store has them. Where a field does not exist it is NaN, its fill value.
    """
    masked = [str(name) for name in dataset.data_vars if domain_name(dataset, name) is not None]
    dataset = dataset.assign({name: existing(dataset[name], dataset) for name in masked})
    attributes, dataset = dataset.attrs, _with_time(dataset)
    dataset = dataset.rename({n: c for n, c in NAMES.items() if n in dataset.dims and n != c})
    if CRS in dataset.coords:
        dataset = dataset.reset_coords(CRS)  # a variable of its own, which the fields name
    _space(dataset)
    _levels(dataset)
    for name, field in dataset.data_vars.items():
        if "role" in field.attrs or known(str(name)) is not None:
            field.attrs = _attributes(entry(dataset, str(name)), field)
    if "cell_area" in dataset:
        dataset["cell_area"].attrs = {"long_name": "share of the sphere in a cell", "units": "1"} | dataset[
            "cell_area"
        ].attrs
    dataset.attrs = {k: v for k, v in attributes.items() if k not in ("complete", "emulator_schema")}
    dataset.attrs["Conventions"] = CONVENTIONS
    for name, variable in dataset.variables.items():
        variable.encoding = {"_FillValue": None} if variable.dtype.kind == "f" and name in dataset.coords else {}
    for name in ("time", "time_bounds", "forecast_reference_time"):
        if name in dataset.variables:
            dataset[name].encoding = dict(TIME_ENCODING)
    if "forecast_period" in dataset.coords and dataset["forecast_period"].dtype.kind == "m":
        dataset["forecast_period"].encoding = {"units": "hours", "dtype": "float64"}
    return dataset


def _with_time(dataset: xr.Dataset) -> xr.Dataset:
    """With the axis `time` and its bounds."""
    told = {"standard_name": "time", "axis": "T", "bounds": "time_bounds"}
    if "lead_time" not in dataset.dims:
        times = dataset["time"].values
        starts = dataset[STARTS].values if STARTS in dataset.coords else times
        dataset = dataset.drop_vars([STARTS, "time_bounds"], errors="ignore")
        dataset = dataset.assign_coords(time=("time", times, told))
        return dataset.assign(time_bounds=(("time", "bounds"), np.stack([starts, times], axis=1)))
    init, leads = dataset["init_time"].values[()], dataset["lead_time"].values
    starts = dataset[STARTS].values if STARTS in dataset.coords else np.concatenate([leads[:1] * 0, leads[:-1]])
    before, valid = (valid_times(np.array([init]), each)[0] for each in (starts, leads))
    dataset = dataset.drop_vars(["init_time", "lead_time", STARTS], errors="ignore").rename(lead_time="time")
    dataset = dataset.assign_coords(
        time=("time", valid, told),
        forecast_reference_time=((), init, {"standard_name": "forecast_reference_time"}),
        forecast_period=("time", leads, {"standard_name": "forecast_period", **lead_attributes(leads)}),
    )
    return dataset.assign(time_bounds=(("time", "bounds"), np.stack([before, valid], axis=1)))


def _attributes(meant: Variable, field: xr.DataArray) -> dict:
    """Attributes of a field as CF has them: what is no concern of other tools is left out."""
    attributes = {"units": meant.units, "long_name": meant.name.replace("_", " ")} | dict(field.attrs)
    for name in OURS:
        attributes.pop(name, None)
    if meant.standard_name:
        attributes["standard_name"] = meant.standard_name
    if "time" in field.dims:
        attributes.setdefault("cell_methods", "time: mean" if meant.cell == "mean" else "time: point")
    return attributes


def _space(dataset) -> None:
    dataset["latitude"].attrs |= {"units": "degrees_north", "standard_name": "latitude"}
    dataset["longitude"].attrs |= {"units": "degrees_east", "standard_name": "longitude"}
    for name, axis in (("latitude", "Y"), ("longitude", "X")):
        if name in dataset.dims:
            dataset[name].attrs["axis"] = axis
    if "realization" in dataset.coords:
        dataset["realization"].attrs |= {"standard_name": "realization", "units": "1"}


def _levels(dataset) -> None:
    for axis in (name for name in VERTICAL if name in dataset.coords and name != "level"):
        dataset[axis].attrs |= VERTICAL[axis].attributes("")
        dataset[axis].attrs.pop("bounds", None)
        if (bounds := f"{axis}_bounds") in dataset:
            dataset[axis].attrs["bounds"] = bounds
    if "level" not in dataset.coords:
        return
    kind, attributes = dataset.attrs.get("vertical_coordinate", "pressure"), dataset["level"].attrs
    if kind == "pressure":
        attributes |= {"standard_name": "air_pressure", "units": "hPa", "positive": "down", "axis": "Z"}
        return
    attributes |= {"positive": "down", "axis": "Z", "units": "1"}
    if kind == "sigma":
        attributes["standard_name"] = "atmosphere_sigma_coordinate"
        if "surface_pressure" in dataset:
            dataset["ptop"] = ((), 0.0, {"units": "Pa", "long_name": "pressure at the top of the model"})
            dataset["level"].attrs["formula_terms"] = "sigma: level ps: surface_pressure ptop: ptop"
        return
    attributes["standard_name"] = "atmosphere_hybrid_sigma_pressure_coordinate"
    if "half_level_a" in dataset and "surface_pressure" in dataset:
        for letter, unit in (("a", "Pa"), ("b", "1")):
            half = dataset[f"half_level_{letter}"].values
            dataset[letter if letter == "b" else "ap"] = ("level", (half[1:] + half[:-1]) / 2, {"units": unit})
        dataset["level"].attrs["formula_terms"] = "ap: ap b: b ps: surface_pressure"
