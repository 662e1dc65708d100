"""Members of an ensemble by number, where a source has each in a file of its own or under names such as `r1i1p1f1`.

What the files hold besides decides: a coordinate of members (a scalar too, and one that is stored as a variable), CMIP's
attributes of a run, and last the file's name. Attributes and names count only where two files have one field over the same
times: files of one run after the other are no members.
"""

import dataclasses
import logging
import re
from collections.abc import Collection, Sequence

import numpy as np
import xarray as xr

from emulator.sources.open import Source
from emulator.store.forecast import FORECAST_NAMES

log = logging.getLogger(__name__)
NAMES = (*FORECAST_NAMES["member"], "member_id", "variant_label", "ensemble_id", "ens", "mem")
RUN = re.compile(r"(?<![a-zA-Z0-9])r(\d+)i\d+p\d+(?:f\d+)?(?![a-zA-Z0-9])")  # CMIP's and CORDEX's label of a run
ATTRIBUTES = ("variant_label", "driving_variant_label", "driving_model_ensemble_member")
NUMBERED = re.compile(r"(?<![a-z])(?:member|mem|ensemble|ens|realization|number)[-_=]?(\d+)(?!\d)", re.IGNORECASE)


def with_members(files: Sequence[Source], renamed: Collection[str] = ()) -> list[Source]:
    """The files with a coordinate of whole numbers where they are of several members; others as they are.

    Labels are numbered by CMIP's realization where that tells them apart, else in their order; the log says which is which.

    Args:
      files: of all sources of a store, so that a member has one number in all of them.
      renamed: names that options give the meaning of members.
    """
    files = [dataclasses.replace(file, dataset=_as_coordinate(file.dataset, renamed)) for file in files]
    own = [_own(file.dataset, renamed) for file in files]
    if len({int(n) for values in own if values is not None and values.dtype.kind in "iuf" for n in values.flat}) > 1:
        return files
    texts = [None if v is None or v.dtype.kind in "iuf" else [_text(each) for each in v.flat] for v in own]
    labels: list[list[str]] = [[]] * len(files)
    for found in (texts, [_of_attributes(f) for f in files], [_of_name(f.path) for f in files]):
        if len({label for one in found if one for label in one}) > 1:
            labels = [one or [] for one in found]
            break
    along = found is texts and any(len(one) > 1 for one in labels)
    if any(not re.search(r"\d", label) for one in labels for label in one):  # a mean or spread is no member
        return files
    if not any(labels) or not (along or _overlap(files, labels)):
        _tell_of_several(labels)
        return files
    numbers = _numbers({label for one in labels for label in one})
    log.info("Members by number: %s", ", ".join(f"{number} {label}" for label, number in numbers.items()))
    return [
        dataclasses.replace(file, dataset=_numbered(file.dataset, [numbers[label] for label in one], renamed))
        if one
        else file
        for file, one in zip(files, labels, strict=True)
    ]


def _name(dataset: xr.Dataset, renamed: Collection[str]) -> str | None:
    """What a file calls its members: a dimension, or a variable of one dimension or none."""
    for name in (*renamed, *NAMES):
        if name in dataset.variables and (dataset[name].ndim == 0 or dataset[name].dims == (name,)):
            return name
        if name in dataset.dims and name not in dataset.variables:
            return name
    return next((str(n) for n, c in dataset.coords.items() if c.attrs.get("standard_name") == "realization"), None)


def _as_coordinate(dataset: xr.Dataset, renamed: Collection[str]) -> xr.Dataset:
    """With members as a coordinate of a known name, counted from 0 where a dimension has no values."""
    if (name := _name(dataset, renamed)) is None:
        return dataset
    if name not in dataset.variables:
        dataset = dataset.assign_coords({name: np.arange(dataset.sizes[name])})
    if name not in (*renamed, *FORECAST_NAMES["member"]) and "member" not in dataset.variables:
        dataset, name = dataset.rename({name: "member"}), "member"
    return dataset.set_coords(name)


def _own(dataset: xr.Dataset, renamed: Collection[str]) -> np.ndarray | None:
    name = _name(dataset, renamed)
    return None if name is None else dataset[name].values


def _text(value) -> str:
    return value.decode().strip("\0 ") if isinstance(value, bytes) else str(value).strip()


def _of_attributes(file: Source) -> list[str]:
    given = file.dataset.attrs
    if label := next((str(given[key]) for key in ATTRIBUTES if RUN.fullmatch(str(given.get(key)))), None):
        return [label]
    parts = [given.get(key, 1) for key in ("realization", "initialization_method", "physics_version")]  # CMIP5
    numbers = "realization" in given and all(str(part).strip().isdigit() for part in parts)
    return ["r{}i{}p{}".format(*(int(part) for part in parts))] if numbers else []


def _of_name(path: str) -> list[str]:
    """A run or member that the last part of a path names, else one of its folders."""
    for part in reversed(path.split("/")):
        if found := RUN.search(part) or NUMBERED.search(part):
            return [found[0]]
    return []


def _overlap(files: Sequence[Source], labels: Sequence[list[str]]) -> bool:
    """Whether two files of other labels have one variable over the same times."""
    spans: dict[tuple, list] = {}
    for file, label in zip(files, labels, strict=True):
        times = next((c.values for c in file.dataset.coords.values() if _are_times(c)), None)
        for name, array in file.dataset.data_vars.items() if label and times is not None else ():
            if array.ndim > 1:
                kind = getattr(times.flat[0], "calendar", "standard"), str(name)
                spans.setdefault(kind, []).append((times.min(), times.max(), label))
    return any(
        a <= d and c <= b and one != other
        for several in spans.values()
        for n, (a, b, one) in enumerate(several)
        for c, d, other in several[:n]
    )


def _are_times(coordinate: xr.DataArray) -> bool:
    return coordinate.size > 0 and (coordinate.dtype.kind == "M" or hasattr(coordinate.values.flat[0], "calendar"))


def _numbers(labels: Collection[str]) -> dict[str, int]:
    """A number for each label: of its realization, or its digits, where those tell all apart; else its place."""
    ordered = sorted(labels, key=lambda label: [int(n) if n.isdigit() else n for n in re.split(r"(\d+)", label)])
    for pattern in (RUN, NUMBERED, re.compile(r"(\d+)")):
        found = [pattern.fullmatch(label) for label in ordered]
        numbers = {label: int(each[1]) for label, each in zip(ordered, found, strict=True) if each}
        if len(set(numbers.values())) == len(ordered):
            return dict(sorted(numbers.items(), key=lambda pair: pair[1]))
    return {label: place for place, label in enumerate(ordered, 1)}


def _tell_of_several(labels: Sequence[list[str]]) -> None:
    if len(different := sorted({label for one in labels for label in one if RUN.fullmatch(label)})) > 1:
        log.warning("Files of several runs (%s) are taken as one: none has a field of another", ", ".join(different))


def _numbered(dataset: xr.Dataset, numbers: list[int], renamed: Collection[str]) -> xr.Dataset:
    name = _name(dataset, renamed)
    if name is not None and dataset.sizes.get(name) == len(numbers):
        return dataset.assign_coords({name: (name, numbers, {"standard_name": "realization"})})
    if name is not None:
        dataset = dataset.drop_vars(name).squeeze([name] if name in dataset.dims else [])
    return dataset.assign_coords({name or "member": ((), numbers[0], {"standard_name": "realization"})})
