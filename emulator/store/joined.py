"""Several analysis stores as one, joined when they are read and never copied: other variables, levels or time steps.

A joined store is a folder that holds one small file, `joined.json`: which stores, which of their variables, and the
step. Whatever opens an analysis store by its path opens a joined one too. Its times are those of the first store, or of
the step asked for, at which every store has values. A snapshot of a store with longer steps is its latest one at or
before a time, and so is a state that is a mean; other means over longer intervals are those of the interval in which the
step ends; means over shorter ones are averaged over the step.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.files.whole_file import whole_file
from emulator.planet.calendar import TimeStep
from emulator.store.chunks import StoreReader
from emulator.store.masks import domain_name, domain_of, mask_name
from emulator.store.sampling import Clock, as_mean, positions, shared_times, span
from emulator.store.schema import constants_of, fingerprint, grid_of, in_order, time_step_seconds

FILE, SCHEMA = "joined.json", "joined-1"
SLOTS = ("missing", "interpolated")
FIXED = ("cell_area", "half_level_a", "half_level_b")  # what the fields of a store are read with
COLUMN = ("vertical_coordinate", "levels_selected")  # attributes of the store that has levels


@dataclasses.dataclass(frozen=True)
class Part:
    """One of the stores.

    Attributes:
      path: of an analysis store; in `joined.json` it may be relative to the folder.
      variables: names to take; None for all but those that an earlier store has.
    """

    path: str
    variables: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a joined store says of itself.

    Attributes:
      parts: the stores, the first of which gives the grid and the time axis.
      step_hours: of the joined store; None: the first store's. roles: of variables, where they are others than their stores'.
    """

    parts: tuple[Part, ...]
    step_hours: float | None = None
    roles: Mapping[str, str] = dataclasses.field(default_factory=dict)


def is_joined(path) -> bool:
    """Whether a joined store lies at a path."""
    return "://" not in str(path) and (Path(path) / FILE).is_file()


def read_recipe(path) -> Recipe:
    """What the joined store at a path says, with paths of its stores from here. Raises `ValueError` for a damaged file."""
    file = Path(path) / FILE
    try:
        values = json.loads(file.read_text())
        if values.get("emulator_schema") != SCHEMA:
            raise ValueError(f"Expected emulator_schema {SCHEMA!r} in {file}, got {values.get('emulator_schema')!r}")
        parts = tuple(Part(_from(path, p["path"]), p["variables"] and tuple(p["variables"])) for p in values["stores"])
        return Recipe(parts, values["step_hours"], values["roles"])
    except (json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"Expected the description of a joined store in {file}, it is damaged: {error}") from error


def write_joined(recipe: Recipe, datasets: Sequence[xr.Dataset], output) -> None:
    """The joined store of stores that are opened, after everything that `joined` checks.

    Raises `ValueError` where they do not go together; nothing is then written. An output that is an unlike store is refused.
    """
    output = Path(output)
    if output.exists() and not is_joined(output):
        raise ValueError(f"Expected a joined store or nothing at {output}, got something else; remove it first")
    joined(recipe, datasets)
    stores = [{"path": str(part.path), "variables": part.variables} for part in recipe.parts]
    values = {"emulator_schema": SCHEMA, "stores": stores, "step_hours": recipe.step_hours, "roles": dict(recipe.roles)}
    output.mkdir(parents=True, exist_ok=True)
    with whole_file(output / FILE) as partial:
        partial.write_text(json.dumps(values, indent=1) + "\n")


def joined(recipe: Recipe, datasets: Sequence[xr.Dataset]) -> xr.Dataset:
    """One lazy dataset of stores opened with `open_analysis`, in the order of the recipe's parts.

    Raises `ValueError`, naming the store, for other grids, levels, constants or calendars, a variable that is absent or in
    two of them, a step that is no multiple of a store's, and where the stores share no times.
    """
    paths = [part.path for part in recipe.parts]
    _check_alike(datasets, paths)
    for dataset, path in zip(datasets, paths, strict=True):
        if (step := TimeStep.of(dataset)).months:
            raise ValueError(f"Expected stores whose steps have one length to join, got steps of {step} in {path}")
    chosen = _chosen(recipe.parts, datasets)
    clock = Clock(datasets[0]["time"].values)
    places = [clock.seconds(dataset["time"].values, path) for dataset, path in zip(datasets, paths, strict=True)]
    step = recipe.step_hours and recipe.step_hours * 3600
    spans = [span(dataset, place, names, step) for dataset, place, names in zip(datasets, places, chosen, strict=True)]
    kept = shared_times(clock, places[0], spans, time_step_seconds(datasets[0]), step)
    if len(kept) < 2:
        raise ValueError(f"Expected times that all of {', '.join(paths)} have, got {len(kept)}")
    step = float(np.diff(places[0][kept[:2]])[0])
    times, variables, slots = places[0][kept], {}, {}
    for dataset, place, names in zip(datasets, places, chosen, strict=True):
        own = time_step_seconds(dataset)
        taken = {mean: positions(place, own, times, step, mean) for mean in (False, True)}
        _check_masks(dataset, names, variables)
        for name in names:
            array = _with_role(dataset[name], recipe.roles.get(name))
            if "time" in array.dims:
                where = taken[as_mean(array, own, step)]
                array = _taken(array, where)
                _or_slots(slots, dataset, where)
            variables[name] = array
    if unknown := [name for name in recipe.roles if name not in variables]:
        raise ValueError(f"Expected roles of joined variables, there is none named {', '.join(unknown)}")
    whole = {name: array.drop_vars("time", errors="ignore") for name, array in variables.items()}
    merged = xr.Dataset(whole | {name: ("time", values) for name, values in slots.items()})
    merged = merged.assign_coords(time=datasets[0]["time"].isel(time=kept))
    for name in variables:
        domain_of(merged, name)  # its mask has to be there too
    return in_order(merged.assign_attrs(_attributes(recipe, datasets, step)))


class JoinedReader:
    """Reads the stores of a joined one as `emulator.store.chunks.StoreReader` reads one: same methods, same errors."""

    def __init__(self, recipe: Recipe, datasets: Sequence[xr.Dataset], times: np.ndarray, threads: int = 1):
        self._readers = [StoreReader(part.path, threads) for part in recipe.parts]
        self._owner = {name: n for n, names in enumerate(_chosen(recipe.parts, datasets)) for name in names}
        clock = Clock(datasets[0]["time"].values)
        wanted = clock.seconds(times, "the joined store")
        self._positions: dict[str, np.ndarray] = {}
        for name, n in self._owner.items():
            if "time" in datasets[n][name].dims:
                step, place = time_step_seconds(datasets[n]), clock.seconds(datasets[n]["time"].values, "")
                joined_step = float(wanted[1] - wanted[0])
                mean = as_mean(_with_role(datasets[n][name], recipe.roles.get(name)), step, joined_step)
                self._positions[name] = positions(place, step, wanted, joined_step, mean)

    def can_read(self, names) -> bool:
        """Whether all of some variables are laid out for it, and none is averaged."""
        return all(
            name in self._positions
            and self._positions[name].ndim == 1
            and self._readers[self._owner[name]].can_read([name])
            for name in names
        )

    def read(self, wanted, out: np.ndarray, rows: slice | None = None) -> None:
        """Several variables at several times of the joined store into `out`; see `StoreReader.read`."""
        for n, reader in enumerate(self._readers):
            own = [
                (name, int(self._positions[name][time]), *place)
                for name, time, *place in wanted
                if self._owner[name] == n
            ]
            if own:
                reader.read(own, out, rows)


def _with_role(array: xr.DataArray, role: str | None) -> xr.DataArray:
    if role is None:
        return array
    if (role == "static") == ("time" in array.dims):
        kind = "changes in time" if "time" in array.dims else "does not change"
        raise ValueError(f"Expected a role of {array.name} that fits a field which {kind}, got {role}")
    return array.assign_attrs(role=role)


def _taken(array: xr.DataArray, positions: np.ndarray) -> xr.DataArray:
    if positions.ndim == 1:
        return array.isel(time=positions)
    wide = array.chunk({"time": positions.shape[1]}).isel(time=xr.DataArray(positions, dims=("time", "part")))
    mean = wide.astype(np.float64).mean("part", skipna=False).astype(np.float32)
    return mean.assign_attrs(array.attrs)


def _or_slots(slots: dict, dataset: xr.Dataset, positions: np.ndarray) -> None:
    """Marks the times whose values are missing or interpolated in a store."""
    for name in SLOTS:
        if name in dataset:
            here = dataset[name].values[positions].astype(bool)
            here = here if here.ndim == 1 else here.any(axis=1)
            slots[name] = slots.get(name, False) | here


def _chosen(parts: Sequence[Part], datasets: Sequence[xr.Dataset]) -> list[list[str]]:
    """The variables that each store gives. Raises `ValueError` for one that is absent, or asked of two stores."""
    owner: dict[str, str] = {}
    chosen = []
    for part, dataset in zip(parts, datasets, strict=True):
        have = [str(name) for name in dataset.data_vars if name not in SLOTS]
        if part.variables is None:
            names = [name for name in have if name not in owner]
        else:
            if absent := [name for name in part.variables if name not in have]:
                raise ValueError(f"Expected variables of {part.path}, it has none named {', '.join(absent)}")
            if twice := [name for name in part.variables if name in owner]:
                raise ValueError(
                    f"Expected each variable from one store, got {twice[0]} of {owner[twice[0]]} and {part.path}"
                )
            masks = [mask_name(d) for d in (domain_name(dataset, name) for name in part.variables) if d is not None]
            fixed = [n for n in dict.fromkeys((*FIXED, *masks)) if n in have and n not in owner]
            names = [*part.variables, *(name for name in fixed if name not in part.variables)]
        owner |= dict.fromkeys(names, part.path)
        chosen.append(names)
    return chosen


def _check_alike(datasets: Sequence[xr.Dataset], paths: Sequence[str]) -> None:
    if len(datasets) < 2:
        raise ValueError(f"Expected at least two stores to join, got {len(datasets)}")
    first = datasets[0]
    for other, path in zip(datasets[1:], paths[1:], strict=True):
        where = f"{paths[0]} and {path}"
        if not grid_of(first).same_as(grid_of(other)):
            raise ValueError(
                f"Expected stores on one grid, got {grid_of(first).describe()} and {grid_of(other).describe()} in {where}; "
                "ingest one of them on the grid of the other"
            )
        if constants_of(first) != constants_of(other):
            raise ValueError(f"Expected stores with the same physical constants, got others in {where}")
    for one, other in itertools.combinations(range(len(datasets)), 2):
        pair = datasets[one], datasets[other]
        for name in sorted(set(pair[0].coords) & set(pair[1].coords) & set(pair[0].dims) - {"time"}):
            if not np.array_equal(pair[0][name].values, pair[1][name].values):
                raise ValueError(f"Expected the same {name} in {paths[one]} and {paths[other]}, got others")


def _check_masks(dataset: xr.Dataset, names: Sequence[str], variables: Mapping[str, xr.DataArray]) -> None:
    """Raises `ValueError` where a field's mask has been taken from an earlier store and is another there."""
    for name, domain in ((name, domain_name(dataset, name)) for name in names):
        mask = None if domain is None else mask_name(domain)
        if mask in dataset and mask in variables and not np.array_equal(dataset[mask].values, variables[mask].values):
            raise ValueError(
                f"Expected the same {mask}, by which {name} has the domain {domain!r}, in every store, got others"
            )


def _attributes(recipe: Recipe, datasets: Sequence[xr.Dataset], step: float) -> dict:
    attributes = dict(datasets[0].attrs)
    for dataset in datasets:
        attributes = {name: dataset.attrs[name] for name in COLUMN if name in dataset.attrs} | attributes
    chosen = [part.variables for part in recipe.parts]
    settings = json.dumps([chosen, recipe.step_hours, dict(sorted(recipe.roles.items()))])
    own = fingerprint(settings, *(str(dataset.attrs.get("fingerprint")) for dataset in datasets))
    return attributes | {"time_step_seconds": step, "fingerprint": own, "complete": True}


def _from(folder, path: str) -> str:
    """A path that a recipe names, seen from here."""
    return path if "://" in path or Path(path).is_absolute() else str(Path(folder) / path)
