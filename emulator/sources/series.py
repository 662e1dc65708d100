"""Series without space in a source, such as the mixing ratio of carbon dioxide: one value for the sphere at each time."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from emulator.planet.variables import Variable
from emulator.sources.axes import Axes, add_times, time_coordinates
from emulator.sources.conventions import time_method
from emulator.sources.harmonise import change, matches, meaning, renamed
from emulator.sources.horizontal import on_the_sphere
from emulator.sources.open import Source
from emulator.sources.options import SourceOptions
from emulator.sources.recognise import Match


@dataclasses.dataclass(frozen=True, eq=False)
class Series:
    """A canonical field that is one number at each time.

    Attributes:
      entry: what it is.
      times: `(n,)` datetime64 or cftime, increasing; of means the ends of their intervals. middles: of means the middles.
      values: `(n,)` float64 in the field's units.
      interpolate: whether values between its times are taken by linear interpolation.
    """

    name: str
    entry: Variable
    path: str
    times: np.ndarray
    middles: np.ndarray
    values: np.ndarray
    averaged: bool
    interpolate: bool


def series(source: Source, options: SourceOptions) -> list[Series]:
    """The forcings in a source that have a time and nothing else. Raises `ValueError` naming the file (units, times)."""
    dataset = renamed(source, options)
    found = []
    for name, array in dataset.data_vars.items():
        if not is_series(array):
            continue
        own = name in options.entries or name in options.rename.values()
        for match in [Match(str(name))] if own else matches(str(name), array):
            wanted = options.wanted is None or match.name in options.wanted
            role = meaning(match.name, options).role
            if wanted and role != "forcing" and match.name in options.entries:
                raise ValueError(
                    f"Expected the role forcing for the series {match.name}, got {role} ({name} in {source.path})"
                )
            if wanted and not match.term and role == "forcing":
                time = time_coordinates(array, False)[0]
                flat = array.squeeze([d for d in array.dims if d not in time.dims], drop=True)
                try:
                    found.append(_series(dataset, flat, match, source.path, options))
                except ValueError as error:
                    raise ValueError(f"{error} ({name} in {source.path})") from None
    return found


def is_series(array) -> bool:
    """Whether a variable has times and nothing else, but for dimensions of one value."""
    time = time_coordinates(array, False)[0] if array.dtype.kind in "fiu" and not on_the_sphere(array) else None
    sizes = {d: n for d, n in array.sizes.items() if n > 1 or (time is not None and d in time.dims)}
    return time is not None and time.ndim == 1 and tuple(sizes) == time.dims


def _series(dataset, array, match: Match, path: str, options: SourceOptions) -> Series:
    axes, entry = Axes(), meaning(match.name, options)
    add_times(axes, dataset, array, False)
    scale, offset, _ = change(array, match, entry, options)
    time = time_coordinates(array, False)[0]
    middles = np.asarray(time.values)
    bounds = dataset.variables.get(time.attrs.get("bounds"))
    if bounds is not None and bounds.shape == (len(middles), 2):
        first, last = np.asarray(bounds.values).T
        middles = first + (last - first) / 2
    order = np.argsort(axes.coordinates["time"], kind="stable")
    return Series(
        name=entry.name,
        entry=entry,
        path=path,
        times=axes.coordinates["time"][order],
        middles=middles[order],
        values=scale * np.asarray(array.values, np.float64)[order] + offset,
        averaged=time_method(array.attrs) == "mean",
        interpolate=options.interpolate == "linear",
    )


def joined(parts: Sequence[Series]) -> Series:
    """The series of several files as one. Raises `ValueError` for a time that two of them have, and for other calendars."""
    first, *others = parts
    if len({getattr(part.times[0], "calendar", "standard") for part in parts}) > 1:
        raise ValueError(f"Expected one calendar in all sources of {first.name}, got several ({first.path}, ...)")
    times = np.concatenate([part.times for part in parts])
    order = np.argsort(times, kind="stable")
    if (same := times[order][1:] == times[order][:-1]).any():
        twice = times[order][int(np.argmax(same))]
        where = " and in ".join(dict.fromkeys(part.path for part in parts if twice in part.times))
        raise ValueError(f"Expected {first.name} once for {twice}, got it twice in {where}")
    together = {n: np.concatenate([getattr(part, n) for part in parts])[order] for n in ("times", "middles", "values")}
    return dataclasses.replace(first, **together) if others else first
