"""Fields that a source has as one variable a level, `air_temperature_0` to `air_temperature_7` from the top down, as ACE.

Each level becomes a source of its own, on a hybrid level that is numbered from 1, and ingest joins them as it does files of
one level each. The interfaces lie at `ak_k + bk_k * surface_pressure`, in variables of which there is one more than levels.
"""

import dataclasses
import logging
import re
from collections.abc import Collection, Sequence

import numpy as np
import xarray as xr

from emulator.planet.units import linear
from emulator.sources.axes import interfaces, vertical_coordinate
from emulator.sources.horizontal import on_the_sphere
from emulator.sources.open import Source
from emulator.sources.recognise import recognise

log = logging.getLogger(__name__)
NUMBERED = re.compile(r"(.+)_(\d+)")
COEFFICIENTS = (("ak", "half_level_a", "Pa"), ("bk", "half_level_b", "1"))


def by_level(files: Sequence[Source], own: Collection[str]) -> list[list[Source]]:
    """What becomes of each file: itself, or a source for each level of such fields beside one with all else.

    Args:
      files: all sources of a store: any of them has the coefficients. Without any the files stay as they are.
      own: names of variables that are asked for as they are.

    Raises `ValueError` naming the file for coefficients in units of something else, or in another order.
    """
    files = [_with_interfaces(file) for file in files]
    groups = [_groups(file.dataset, own) for file in files]
    if not any(groups):
        return [[file] for file in files]
    if all(interfaces(file.dataset) is None for file in files):
        first = next(iter(next(group for group in groups if group).values()))
        log.warning(
            "%s to %s may be the levels of one field: they are joined where a source has the coefficients of their "
            "interfaces, ak_0, bk_0 and so on",
            first[0],
            first[-1],
        )
        return [[file] for file in files]
    return [_parts(file, group) for file, group in zip(files, groups, strict=True)]


def _numbered(dataset: xr.Dataset) -> dict[str, list[str]]:
    """Names that end in numbers one after the other from 0 or 1, at least two, by what stands before the number."""
    found: dict[str, dict[int, str]] = {}
    for name in map(str, dataset.data_vars):
        if match := NUMBERED.fullmatch(name):
            found.setdefault(match[1], {})[int(match[2])] = name
    runs = {base: [names[k] for k in sorted(names)] for base, names in found.items() if _is_run(sorted(names))}
    return {base: names for base, names in runs.items() if base not in dataset.variables}


def _is_run(numbers: list[int]) -> bool:
    return len(numbers) > 1 and numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[-1] + 1))


def _groups(dataset: xr.Dataset, own: Collection[str]) -> dict[str, list[str]]:
    """The variables of each field that the table knows on levels, from the top down."""
    found = {}
    for base, names in _numbered(dataset).items():
        arrays = [dataset[name] for name in names]
        alike = all(a.dtype.kind == "f" and a.dims == arrays[0].dims and on_the_sphere(a) for a in arrays)
        plain = alike and all(vertical_coordinate(a) is None for a in arrays)
        if plain and not {*names} & {*own} and recognise(base, {}, "level"):
            found[base] = names
    return found


def _with_interfaces(file: Source) -> Source:
    """The file with its coefficients as `half_level_a` and `half_level_b`."""
    numbered = _numbered(file.dataset)
    if not all(base in numbered and whole not in file.dataset for base, whole, _ in COEFFICIENTS):
        return file
    given = {}
    for base, whole, units in COEFFICIENTS:
        arrays = [file.dataset[name] for name in numbered[base]]
        change = linear(str(arrays[0].attrs.get("units", units)), units)
        if change is None or any(on_the_sphere(array) for array in arrays):
            raise ValueError(f"Expected {base}_0 to {numbered[base][-1]} in {units}, a number each, in {file.path}")
        if len(numbered["ak"]) != len(numbered["bk"]):
            raise ValueError(
                f"Expected as many ak_k as bk_k in {file.path}, got {len(numbered['ak'])} and {len(numbered['bk'])}"
            )
        values = [float(array.values.flat[0]) * change[0] + change[1] for array in arrays]
        given[whole] = ("half_level", np.array(values), {"units": units})
    if np.any(np.diff(given["half_level_a"][1] + 1e5 * given["half_level_b"][1]) <= 0):
        raise ValueError(f"Expected the interfaces ak_k + bk_k * surface_pressure from the top down in {file.path}")
    return dataclasses.replace(file, dataset=file.dataset.assign(given))


def _parts(file: Source, groups: dict[str, list[str]]) -> list[Source]:
    if not groups:
        return [file]
    rest = file.dataset.drop_vars([name for names in groups.values() for name in names])
    parts = [dataclasses.replace(file, dataset=rest)]
    for number in range(max(len(names) for names in groups.values())):
        here = {names[number]: base for base, names in groups.items() if number < len(names)}
        level = xr.Variable((), number + 1.0, {"units": "hybrid_sigma_pressure"})
        parts.append(dataclasses.replace(file, dataset=file.dataset[[*here]].rename(here).assign_coords(level=level)))
    return parts
