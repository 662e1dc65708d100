"""The parts of a source that its options select."""

import numpy as np

from emulator.sources.axes import Axes
from emulator.store.forecast import FORECAST_NAMES


def canonical_dimension(name: str) -> str:
    """The dimension of stores that a name of a dimension means; the name itself for none."""
    return next((d for d, names in FORECAST_NAMES.items() if name == d or name in names), name)


def _as_numbers(name: str, wanted) -> np.ndarray:
    try:
        return np.atleast_1d(np.asarray(wanted, np.float64))
    except (TypeError, ValueError):
        raise ValueError(
            f"Expected numbers to select from {name} (of members the log has them), got {wanted!r}"
        ) from None


def is_of_other_members(options, axes: Axes) -> bool:
    """Whether a variable is of one member, which is none of those that the options select."""
    wanted = [of for name, of in options.select.items() if canonical_dimension(name) == "member"]
    alone = "member" in axes.coordinates and "member" not in axes.dims
    return bool(wanted) and alone and not np.isin(axes.coordinates["member"], _as_numbers("member", wanted[0])).any()


def selected(array, options, axes: Axes):
    """The parts that the options select: levels and members by value, other dimensions as xarray does."""
    for name, wanted in options.select.items():
        canonical = axes.axis if name in (axes.axis, axes.dims.get(axes.axis)) else canonical_dimension(name)
        if canonical == "lead_time":  # by `_by_step`, which knows what a step is
            continue
        if canonical in axes.coordinates:
            values = axes.coordinates[canonical]
            kept = np.isin(np.round(values, 6), np.round(_as_numbers(name, wanted), 6))
            if kept.sum() != np.size(wanted) and not (canonical == "member" and "member" not in axes.dims):
                raise ValueError(f"Expected {name} {wanted}, got {', '.join(f'{v:g}' for v in values)}")
            axes.coordinates[canonical] = values[kept]
            if canonical in axes.order:
                axes.order[canonical] = axes.order[canonical][kept]
            if canonical == axes.axis and axes.bounds is not None:
                axes.bounds = axes.bounds[kept]
            if canonical == "member" and np.ndim(wanted) == 0:
                axes.coordinates.pop("member")
        elif name in array.dims:
            try:
                array = array.sel({name: wanted}) if name in array.coords else array.isel({name: wanted})
            except (KeyError, IndexError):
                have = list(array[name].values[:8]) if name in array.coords else f"0 to {array.sizes[name] - 1}"
                raise ValueError(f"Expected {name} {wanted}, got {have}") from None
    return array
