"""Which dimension of a source is which, by names, CF attributes and units; values in the convention's order.

Also the interface coefficients of hybrid and sigma levels, from the ways in which files record them.
"""

import dataclasses
import warnings
from collections.abc import Iterable

import numpy as np
import xarray as xr

from emulator.planet.lead_times import as_timedelta
from emulator.planet.vertical import VERTICAL, VerticalAxis
from emulator.planet.vertical_axes.level import PRESSURE_NAMES, is_pressure
from emulator.planet.vertical_axes.registry import Recorded
from emulator.store.forecast import FORECAST_NAMES

TIME_NAMES = ("time", "valid_time")
COEFFICIENTS = (("half_level_a", "half_level_b"), ("a_half", "b_half"), ("hyai", "hybi"))
ROUNDED = (1.0, 1e-5)  # Pa, and shares of the surface pressure, to which files round coefficients
NOT_VERTICAL = {"y", "x", *TIME_NAMES, *(name for d, names in FORECAST_NAMES.items() if d != "level" for name in names)}


@dataclasses.dataclass
class Axes:
    """Axes of one variable.

    Attributes:
      dims: canonical dimension -> the source's.
      coordinates: values along each, in the convention's order; also of dimensions that the variable has not, one value.
      order: positions in the source of those values, along `member`, the vertical axis, `latitude`, `longitude`, `y`, `x`.
      axis: the vertical dimension (`emulator.planet.vertical`), or None for a field without one.
      vertical: what its values are: "pressure", "sigma", "hybrid" or "unknown" (no units) of levels, "depth" of depths, ...
      bounds: of its values, `(n, 2)`, where the source records them and the axis keeps them.
      starts: of the intervals that means end at `time`, where bounds tell them.
    """

    dims: dict[str, str] = dataclasses.field(default_factory=dict)
    coordinates: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    order: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    axis: str | None = None
    vertical: str | None = None
    bounds: np.ndarray | None = None
    starts: np.ndarray | None = None


def named(array, names, standard=()) -> xr.DataArray | None:
    """The coordinate of an array with one of the names, or with one of the standard names."""
    for name in names:
        if name in array.coords:
            return array.coords[name]
    for coordinate in array.coords.values():
        if coordinate.attrs.get("standard_name") in standard:
            return coordinate
    return None


def vertical_coordinate(array) -> tuple[VerticalAxis, xr.DataArray] | None:
    """The vertical coordinate of a variable and its kind: along a dimension, or a scalar pressure or hybrid level."""
    if array.attrs.get("vertical") == "surface":
        return None
    for coordinate in array.coords.values():
        along = coordinate.ndim == 1 and coordinate.dims[0] in array.dims and coordinate.name not in NOT_VERTICAL
        if along and coordinate.dtype.kind in "fiu":
            recorded = as_recorded(coordinate, array)
            if (axis := next((axis for axis in VERTICAL.values() if axis.fits(recorded)), None)) is not None:
                return axis, coordinate
    for coordinate in array.coords.values():
        pressure = coordinate.name in PRESSURE_NAMES or coordinate.attrs.get("standard_name") == "air_pressure"
        hybrid = coordinate.attrs.get("units") == "hybrid_sigma_pressure"
        if coordinate.ndim == 0 and (
            pressure or (coordinate.name == "level" and (hybrid or is_pressure(as_recorded(coordinate, array))))
        ):
            return VERTICAL["level"], coordinate
    return None


def as_recorded(coordinate, array) -> Recorded:
    return Recorded(str(coordinate.name), coordinate.attrs, np.atleast_1d(coordinate.values), array.attrs)


def add_vertical(axes: Axes, dataset, array) -> None:
    """The vertical axis in its own order and units. Raises `ValueError` for values that need units and have none."""
    found = vertical_coordinate(array)
    if found is None:
        return
    axis, coordinate = found
    values, axes.vertical = axis.read(as_recorded(coordinate, array))
    position = axis.positions(values)
    axes.axis, axes.coordinates[axis.name] = axis.name, values[position]
    if coordinate.ndim:
        axes.dims[axis.name], axes.order[axis.name] = coordinate.dims[0], position
    bounds = dataset.variables.get(coordinate.attrs.get("bounds")) if axis.bounds else None
    if bounds is not None and bounds.shape == (len(values), 2):
        attributes = {"units": coordinate.attrs.get("units", "?")} | bounds.attrs
        recorded = Recorded(str(coordinate.name), attributes, np.asarray(bounds.values, np.float64), array.attrs)
        if recorded.is_in(axis.bounds):
            axes.bounds = np.sort(np.abs(recorded.measured(axis.bounds)), axis=1)[position]


def add_member(axes: Axes, array) -> None:
    """Members by number."""
    member = named(array, FORECAST_NAMES["member"], ("realization",))
    if member is not None and member.dtype.kind in "iuf":
        values = np.atleast_1d(member.values).astype(np.int64)
        position = np.argsort(values, kind="stable")
        axes.coordinates["member"] = values[position]
        if member.ndim:
            axes.dims["member"], axes.order["member"] = member.dims[0], position


def add_times(axes: Axes, dataset, array, forecast: bool, mean: bool = False) -> None:
    """Times, and lead times where there are any: then `time` is the initial time. Raises `ValueError` for neither.

    A mean is placed at the end of its interval, where bounds tell it.
    """
    time, lead = time_coordinates(array, forecast)
    if time is None:
        names = sorted(map(str, {*array.coords, *array.dims}))
        raise ValueError(
            f"Expected a time, got coordinates {names}; name the one that is it, as in rename: {{t: time}}"
        )
    values = np.atleast_1d(time.values)
    if not (np.issubdtype(values.dtype, np.datetime64) or hasattr(values.flat[0], "calendar")):
        raise ValueError(
            f"Expected times with units such as 'hours since 1900-01-01', got {values.flat[0]} "
            f"({time.attrs.get('units', 'no units')}); give them under units: {{{time.name}: hours since 1900-01-01}}"
        )
    bounds = dataset.variables.get(time.attrs.get("bounds"))
    if bounds is not None and mean and bounds.dims[:-1] == time.dims:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=xr.SerializationWarning)  # decoded to cftime, as it should be
            edges = np.asarray(bounds.values).reshape(len(values), 2)
        if np.all(edges[:, 0] < edges[:, 1]):
            values, axes.starts = edges[:, 1], None if lead is not None else edges[:, 0]
    axes.coordinates["time"] = values
    if time.ndim:
        axes.dims["time"] = time.dims[0]
    if lead is None:
        if forecast:
            raise ValueError("Expected a forecast with lead times, got none")
        return
    leads = np.atleast_1d(lead.values)
    axes.coordinates["lead_time"] = as_timedelta(leads, lead.attrs.get("units"))
    if lead.ndim:
        axes.dims["lead_time"] = lead.dims[0]


def time_coordinates(array, forecast: bool) -> tuple[xr.DataArray | None, xr.DataArray | None]:
    """The coordinate of times (initial times beside lead times), and that of lead times."""
    lead = named(array, FORECAST_NAMES["lead_time"], ("forecast_period",))
    if "valid_time" in array.dims and not forecast:  # CDS: initial time and step are left-overs along it
        return array.coords["valid_time"], None
    if lead is not None:
        return named(array, FORECAST_NAMES["init_time"], ("forecast_reference_time",)), lead
    return named(array, TIME_NAMES, ("time",)), None


def interfaces(dataset: xr.Dataset) -> tuple[np.ndarray, np.ndarray] | None:
    """`(a in Pa, b)` of all interfaces, from the top down, each `(level + 1,)` float64; None where none are recorded.

    Read from variables `half_level_a`, `half_level_b` (this project, and GRIB's `pv`), `a_half`, `b_half` (IFS tables),
    `hyai`, `hybi` with `P0` (CESM) or in Pa (CDO), or the bounds of a CF coordinate's `formula_terms` (`ap`, `b` or
    `a`, `b`, `p0`).
    """
    for name_a, name_b in COEFFICIENTS:
        if name_a in dataset and name_b in dataset:
            half_a, half_b = (np.asarray(dataset[n].values, np.float64) for n in (name_a, name_b))
            if name_a == "hyai" and not _is_pressure(dataset[name_a]):
                half_a = half_a * float(dataset["P0"]) if "P0" in dataset else half_a * 1e5
            return _from_the_top(half_a, half_b)
    for coordinate in dataset.variables.values():
        terms = _terms(dataset, coordinate)
        if terms and "b" in terms and ("ap" in terms or "a" in terms):
            half_b = _edges(dataset[terms["b"]])
            half_a = _edges(dataset[terms["ap"]]) if "ap" in terms else _edges(dataset[terms["a"]])
            if "ap" not in terms:
                half_a = half_a * (float(dataset[terms["p0"]]) if terms.get("p0") in dataset else 1e5)
            if half_a is not None and half_b is not None:
                return _from_the_top(half_a, half_b)
    return None


def common_interfaces(files: Iterable[tuple[str, xr.Dataset]]) -> tuple[np.ndarray, np.ndarray] | None:
    """As `interfaces`, of the first of some files, paths and contents, that has them.

    Raises `ValueError` naming both files where another has as many others.
    """
    found = [(half, path) for path, dataset in files if (half := interfaces(dataset)) is not None]
    for half, path in found[1:]:
        first, where = found[0]
        apart = [np.abs(a - b).max() if len(a) == len(b) else 0.0 for a, b in zip(first, half, strict=True)]
        if apart[0] > ROUNDED[0] or apart[1] > ROUNDED[1]:
            raise ValueError(
                f"Expected the same interfaces of the levels in all files, got others in {path} than in {where}, by up to "
                f"{apart[0]:.4g} Pa and {apart[1]:.4g} of the surface pressure"
            )
    return found[0][0] if found else None


def _is_pressure(coefficients) -> bool:
    """Whether coefficients `a` are in Pa, as CDO writes those of IFS, and not shares of `P0`."""
    units = str(coefficients.attrs.get("units", ""))
    return units == "Pa" or (units not in ("1", "unitless") and float(np.abs(coefficients.values).max()) > 2)


def _terms(dataset, coordinate) -> dict[str, str] | None:
    """`formula_terms` of the bounds of a hybrid coordinate: term -> variable."""
    bounds = dataset.variables.get(coordinate.attrs.get("bounds"))
    text = None if bounds is None else bounds.attrs.get("formula_terms")
    if text is None:
        return None
    words = text.replace(":", " ").split()
    terms = dict(zip(words[::2], words[1::2], strict=False))
    return {key: name for key, name in terms.items() if name in dataset.variables or key == "ps"}


def _edges(bounds) -> np.ndarray:
    """`(level, 2)` bounds as `(level + 1,)` edges. Raises `ValueError` when neighbours do not touch."""
    values = np.asarray(bounds.values, np.float64)
    if values.ndim != 2 or values.shape[1] != 2 or not np.allclose(values[1:, 0], values[:-1, 1], rtol=1e-5, atol=1e-6):
        raise ValueError(
            f"Expected bounds of {bounds.name} that touch each other, (level, 2), got shape {values.shape}"
        )
    return np.concatenate([values[:, 0], values[-1:, 1]])


def _from_the_top(half_a, half_b):
    """Reversed where the surface comes first."""
    pressure = half_a + half_b * 1e5
    return (half_a, half_b) if pressure[0] < pressure[-1] else (half_a[::-1], half_b[::-1])
