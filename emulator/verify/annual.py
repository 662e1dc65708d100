"""Fields of a store as means of whole calendar years, or of some months of them: what scenarios are compared by."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import xarray as xr

from emulator.planet.calendar import TimeStep, valid_times
from emulator.planet.grid import Grid
from emulator.planet.vertical import vertical_of
from emulator.store.masks import counted, cut
from emulator.store.schema import ROWS, level_label
from emulator.verify.channels import compact, values
from emulator.verify.climate import BLOCK_BYTES, month_of
from emulator.verify.yearly import year_numbers


@dataclasses.dataclass(frozen=True)
class Channel:
    """A field, on the level nearest to the surface where it has several."""

    variable: str
    name: str
    units: str


@dataclasses.dataclass(frozen=True, eq=False)
class Annual:
    """A store under in-memory names, by whole years.

    Attributes:
      dataset: along `time`. label: the years that it has whole, increasing `(year,)`.
      places: for every year the positions of its times.
    """

    dataset: xr.Dataset
    label: np.ndarray
    places: Sequence[np.ndarray]

    @classmethod
    def of(cls, dataset: xr.Dataset, name: str, months: Sequence[int] = ()) -> "Annual":
        """Of an analysis, or of the first forecast in a store without its first lead, which is the analysis itself.

        `months`: 1 ... 12, of which the mean of a year is; none: of all. Raises `ValueError`, naming the store, where
        it has no whole year.
        """
        if "lead_time" in dataset.dims:
            first = dataset.isel(init_time=0, lead_time=slice(1, None))
            times = valid_times(dataset["init_time"].values[:1], first["lead_time"].values)[0]
            dataset = first.drop_vars(["lead_time", "init_time"]).rename(lead_time="time").assign_coords(time=times)
        times, step = dataset["time"].values, int(dataset.attrs.get("time_step_months", 0))
        if step and "emulator_schema" in dataset.attrs:  # the times of others lie in the middle
            times = TimeStep(months=step).middles(times)
        year = year_numbers(times, 1)
        if "missing" in dataset:
            year = np.where(dataset["missing"].values.astype(bool), -1, year)
        chosen = np.isin(month_of(times) + 1, months) if months else np.ones(len(times), bool)
        label = np.unique(year[(year >= 0) & chosen])
        if not len(label):
            raise ValueError(f"Expected whole years in {name}, got {len(times)} times from {times[0]} to {times[-1]}")
        return cls(dataset, label, [np.flatnonzero((year == one) & chosen) for one in label])

    def series(self, name: str, grid: Grid) -> np.ndarray:
        """Annual means of a variable without space, or area means of a field where it exists, `(year,)`."""
        array = self.dataset[name]
        if ROWS & set(array.dims):
            return area_means(self.fields(Channel(name, name, ""), grid), grid).mean(axis=0)
        series = np.asarray(array.values, np.float64)
        return np.array([series[place].mean() for place in self.places])

    def fields(self, channel: Channel, grid: Grid) -> np.ndarray:
        """Annual means `(member, year, cell)`, NaN where the field does not exist."""
        array, exists = self.dataset[channel.variable], counted(self.dataset, channel.variable)
        if (axis := vertical_of(array.dims)) is not None:
            at = nearest_to_surface(array, axis)
            array, exists = array.isel({axis: at}), None if exists is None else exists[at]
        array = array.transpose(*(d for d in ("member",) if d in array.dims), "time", *grid.dims)
        members, longest = array.sizes.get("member", 1), max(map(len, self.places))
        together = max(1, BLOCK_BYTES // (8 * members * longest * grid.area.size))  # years that are read at once
        found = []
        for start in range(0, len(self.places), together):
            places = self.places[start : start + together]
            block = values(array.isel(time=compact(np.concatenate(places)))).astype(np.float64)
            block = cut(block, exists).reshape(members, -1, grid.area.size)
            ends = np.cumsum([len(place) for place in places])[:-1]
            found += [year.mean(axis=1) for year in np.split(block, ends, axis=1)]
        return np.stack(found, axis=1)


def area_means(fields: np.ndarray, grid: Grid) -> np.ndarray:
    """Of fields `(member, year, cell)` over the cells that all of them have, `(member, year)`."""
    known = np.isfinite(fields).all(axis=(0, 1))
    area = grid.area.ravel()[known]
    return fields[..., known] @ (area / area.sum())


def channels_of(
    dataset: xr.Dataset, grid: Grid, variables: Sequence[str] | None = None, predicted: Collection[str] = ()
) -> list[Channel]:
    """The fields of an analysis that can be scored, or those of some variables.

    Forcing and static fields are left out that are not `predicted`. Raises `ValueError` for a variable that it lacks.
    """
    wanted = {"time", *grid.dims}
    known = {str(name): array for name, array in dataset.data_vars.items() if wanted <= set(array.dims)}
    if absent := [name for name in variables or () if name not in known]:
        raise ValueError(f"Expected scenarios with {absent[0]!r}, got stores with {', '.join(known) or 'no fields'}")
    given = {name for name, array in known.items() if array.attrs.get("role") in ("forcing", "static")}
    plain = [name for name in known if name not in given or name in predicted]
    return [_channel(dataset, name) for name in variables or plain]


def nearest_to_surface(array: xr.DataArray, axis: str) -> int:
    """Position of that level: levels of the atmosphere come from the top down, depths and heights from the surface on."""
    return array.sizes[axis] - 1 if axis == "level" else 0


def _channel(dataset: xr.Dataset, name: str) -> Channel:
    axis = vertical_of(dataset[name].dims)
    label = "" if axis is None else level_label(dataset, axis, nearest_to_surface(dataset[name], axis))
    return Channel(name, f"{name} {label}".strip(), str(dataset[name].attrs.get("units", "")))


def members_of(stores: Sequence[Annual], channel: Channel, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """All members of a scenario over the years that all stores have: labels `(year,)` and `(member, year, cell)`."""
    label = common_years(stores)
    return label, np.concatenate([one.fields(channel, grid)[:, np.isin(one.label, label)] for one in stores])


def common_years(stores: Sequence[Annual]) -> np.ndarray:
    """Years that all stores have. Raises `ValueError` where there are none."""
    label = stores[0].label
    for one in stores[1:]:
        label = np.intersect1d(label, one.label)
    if not len(label):
        raise ValueError("Expected members of a scenario with years in common, got none")
    return label


def check_fields(stores: Mapping[str, xr.Dataset], channels: Sequence[Channel]) -> None:
    """Raises `ValueError`, naming the store, where one lacks a field or has it in other units."""
    for name, dataset in stores.items():
        for channel in channels:
            if channel.variable not in dataset:
                raise ValueError(f"Expected {channel.variable} in {name}, which scenarios are scored by, got none")
            units = str(dataset[channel.variable].attrs.get("units", channel.units))
            if units != channel.units:
                raise ValueError(f"Expected {channel.variable} in {channel.units!r} in {name}, got it in {units!r}")
