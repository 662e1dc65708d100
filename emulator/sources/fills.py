"""What files say of missing values, put right before it is decoded: text for numbers, and fills that nobody declared."""

import logging

import numpy as np
import xarray as xr

# What the NetCDF library writes where nothing was written, whether `_FillValue` says so or not (bytes are never filled).
DEFAULT_FILLS = {
    "f4": 9.969209968386869e36, "f8": 9.969209968386869e36, "i2": -32767, "u2": 65535, "i4": -2147483647,
    "u4": 4294967295, "i8": -9223372036854775806,
}  # fmt: skip
FILLS, PACKING = ("_FillValue", "missing_value"), ("scale_factor", "add_offset")

log = logging.getLogger(__name__)


def with_fills(dataset: xr.Dataset, path: str, undeclared: bool = True) -> xr.Dataset:
    """An undecoded dataset whose missing values are declared as numbers of their variables' types.

    Where a field declares none, the library's own fill is one (`undeclared`). Raises `ValueError` naming the path for packed
    numbers whose scale or offset is no number.
    """
    changed = {}
    for name, variable in dataset.variables.items():
        attributes = dict(variable.attrs)
        for key in FILLS:
            if key in attributes and variable.dtype.kind in "fiu":
                value = _of_type(attributes.pop(key), variable.dtype)
                if value is None:
                    log.warning("%s of %s in %s is no number (%r): left out", key, name, path, variable.attrs[key])
                else:
                    attributes[key] = value
        for key in PACKING:
            if isinstance(attributes.get(key), str):
                attributes[key] = _number(attributes[key], f"{key} of {name} in {path}")
        if undeclared and not {*FILLS} & {*attributes} and _is_field(dataset, str(name), variable):
            attributes["_FillValue"] = variable.dtype.type(DEFAULT_FILLS[variable.dtype.str[1:]])
        if not _same(attributes, variable.attrs):
            changed[name] = variable._replace(attrs=attributes)
    return dataset.assign(changed) if changed else dataset


def _of_type(value, dtype: np.dtype):
    """Fill values in the type of their variable: CMIP's 1e20 in float64 is no value of float32. None for no number."""
    try:
        numbers = np.asarray(value, np.float64) if not isinstance(value, str | bytes) else np.float64(value)
    except ValueError:
        return None
    if not isinstance(value, str | bytes) and np.asarray(value).dtype == dtype:
        return value
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return numbers.astype(dtype)
    limits = np.iinfo(dtype)
    fits = np.all(np.isfinite(numbers)) and np.all((numbers >= limits.min) & (numbers <= limits.max))
    whole = fits and np.all(numbers == np.round(numbers))
    return numbers.astype(dtype) if whole else None if isinstance(value, str | bytes) else value


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"Expected a number as {what}, got {text!r}") from None


def _is_field(dataset: xr.Dataset, name: str, variable: xr.Variable) -> bool:
    """Whether a variable holds real or packed values, and is no coordinate, no bounds and no count of times."""
    packed = variable.dtype.kind == "f" or bool({*PACKING} & {*variable.attrs})
    if variable.dtype.str[1:] not in DEFAULT_FILLS or not packed or not variable.ndim or name in dataset.dims:
        return False
    others = [other.attrs for other in dataset.variables.values()]
    named = {word for attributes in others for word in str(attributes.get("coordinates", "")).split()}
    named |= {attributes.get("bounds") for attributes in others}
    return name not in named and " since " not in str(variable.attrs.get("units", ""))


def _same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(one[key] is other[key] for key in one)
