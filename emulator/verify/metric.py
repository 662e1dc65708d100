"""What a metric is: statistics of one sample that add up over initial times, and a function of their means.

A metric is a function in a file of `emulator/verify/metrics/` that registers itself by `metric`. What is accumulated, merged,
given an interval, written to scores.nc and named in the report follows from its entry here. Regions, leads, events and
members are binning, which a metric does not choose.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from emulator.registry import Registry

CHANNEL = "of the channel"  # units of a metric that are those of the field
ROW_BYTES = 2**19  # of each field worked on at a time: what stays in a core's cache


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Which leads and places of a sample count.

    Attributes:
      source: name of the axis of forecasts; "source" where the truth is one of them.
      lead: name of the axis of leads; count: of the number of initial times that count.
      place: "region", "cell", or "" where a field counts as a whole.
      headline: whether the number is that of the channels of maps, not of all.
    """

    source: str
    lead: str
    count: str
    place: str
    headline: bool = False

    @property
    def count_dims(self) -> tuple[str, ...]:
        """Axes of the number in scores.nc."""
        channel = "map_channel" if self.headline else "channel"
        region = ("region",) if self.place == "region" else ()
        return (channel, *region, self.lead, *(("cell",) if self.place == "cell" else ()))

    def counted(self, present: np.ndarray, weights: np.ndarray, exists: np.ndarray | None = None) -> np.ndarray:
        """`(lead, channel[, place])` from where truth and climatology are, `(lead, channel, cell)`, and `(region, cell)`.

        A field counts as a whole where it is present in all cells in which it `exists`, `(channel, cell)`; None: all.
        """
        if self.place == "cell":
            return present
        if self.place == "":
            return (present if exists is None else present | ~exists).all(axis=-1)
        inside = weights > 0
        if present.all():
            return np.ones((*present.shape[:2], len(inside)), bool)
        return present.astype(float) @ inside.T > 0


REGIONS = Sampling("forecast", "lead_time", "count", "region")
CELLS = Sampling("forecast", "map_lead", "map_count", "cell", headline=True)
FIELDS = Sampling("source", "spectrum_lead", "power_count", "")


@dataclasses.dataclass(eq=False)
class Sample:
    """One source at some leads of one initial time, beside the truth.

    Attributes:
      members: `(member, lead, level, cell)`; truth, climatology: `(lead, level, cell)`, all float64.
      mask: cells that count, of the shape of the truth; None where all do.
      binning: `sample.Binning`; weights: `(region, cell)`.
      normals: what the truth's record knows of the valid times, by name, `(lead, ..., level, cell)`.
      exists: where the variable exists, `(level, cell)`; None: everywhere. Elsewhere all fields are NaN.
      statistics: those worked out before, by name.
    """

    members: np.ndarray
    truth: np.ndarray
    climatology: np.ndarray
    mask: np.ndarray | None
    weights: np.ndarray
    binning: Any
    normals: Mapping[str, np.ndarray]
    exists: np.ndarray | None = None
    statistics: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    _made: dict = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def mean(self) -> np.ndarray:
        """Ensemble mean `(lead, level, cell)`."""
        return self.members.mean(axis=0)

    def once(self, function: Callable[["Sample"], Any]) -> Any:
        """`function` of this sample, worked out for the first that asks."""
        if function not in self._made:
            self._made[function] = function(self)
        return self._made[function]


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """Linear statistics that are worked out together.

    Attributes:
      names: of the statistics; the scores hold `sum_<name>`.
      of: a `Sample` -> some of the names as `(lead, [front,] channel[, place][, back])`. Where `sampling.source` is "source"
        it takes all sources at once, the truth last, and the arrays begin with an axis of sources.
      sampling: which leads and places count.
      front, back: further axes: name -> coordinates, or a length, from the `Binning`. `front` stand before the place.
      headline: only at the channels of maps.
      ensemble: sums are kept only where a forecast has members.
      wanted: variable name, `Binning` -> whether there is anything to work out.
      normals: what the truth's record has to tell: name -> `Binning` -> samples `(n, level, cell)` to `(..., level, cell)`.
      vector: names that add up over the components of a vector.
      order: where its metrics stand in tables, rising; those of one number by the names of their files.
    """

    names: tuple[str, ...]
    of: Callable[[Any], dict[str, np.ndarray]]
    sampling: Sampling = REGIONS
    front: Mapping[str, Callable[[Any], Any]] = dataclasses.field(default_factory=dict)
    back: Mapping[str, Callable[[Any], Any]] = dataclasses.field(default_factory=dict)
    headline: bool = False
    ensemble: bool = False
    wanted: Callable[[str, Any], bool] = lambda variable, binning: True
    normals: Mapping[str, Callable[[Any], Callable]] = dataclasses.field(default_factory=dict)
    vector: tuple[str, ...] = ()
    order: int = 100

    @property
    def channel(self) -> str:
        return "map_channel" if self.headline else "channel"

    @property
    def dims(self) -> tuple[str, ...]:
        """Axes of the sums, as in scores.nc; cells as one axis."""
        place = ("region",) if self.sampling.place == "region" else ()
        cell = ("cell",) if self.sampling.place == "cell" else ()
        return (self.sampling.source, self.channel, *self.front, *place, self.sampling.lead, *cell, *self.back)

    def sizes(self, binning) -> dict[str, int]:
        """Lengths of the further axes."""
        axes = {name: axis(binning) for name, axis in {**self.front, **self.back}.items()}
        return {name: values if isinstance(values, int) else len(values) for name, values in axes.items()}

    def arranged(self, values: np.ndarray) -> np.ndarray:
        """What `of` gave for one source, with the axes of `dims` after the first."""
        front, place = len(self.front), self.sampling.place == "region"
        order = [front + 1, *range(1, front + 1), *([front + 2] if place else []), 0]
        return values.transpose(*order, *range(len(order), values.ndim))


@dataclasses.dataclass(frozen=True)
class Interval:
    """How sure a metric is: from its statistic at every initial time.

    Attributes:
      statistic: whose mean the metric is, or whose mean's root where `root`.
      everywhere: kept for every channel; otherwise for those of maps.
      differences: whether differences to baselines, and between models, are judged by it.
    """

    statistic: str
    everywhere: bool = False
    root: bool = False
    differences: bool = False

    @property
    def series(self) -> str:
        """Name in scores.nc of the values at every initial time."""
        return self.statistic if self.everywhere else f"each_{self.statistic}"

    @property
    def dims(self) -> tuple[str, ...]:
        """Axes of the metric, and after initial times of its values at each."""
        return ("forecast", "channel" if self.everywhere else "map_channel", "region", "lead_time")


@dataclasses.dataclass(frozen=True, eq=False)
class Metric:
    """A score: a function of mean statistics.

    Attributes:
      name: in scores.nc; title: on the page; label: one line that defines it.
      statistics: what it needs.
      of: means over initial times by the statistics' names, with `members` by forecast, and `initial_times` by channel of
        maps, region and lead -> the scores.
      units: "of the channel", "1", ...
      better: "lower", "higher", "one" or "zero", the value nearest to which is best; "" where no value is.
    """

    name: str
    title: str
    label: str
    statistics: tuple[Statistics, ...]
    of: Callable[[xr.Dataset], xr.DataArray]
    units: str = "1"
    better: str = ""
    interval: Interval | None = None

    @property
    def order(self) -> tuple[int, str]:
        """Where it stands in tables: after the last of its statistics, and by the name of its file."""
        return max(group.order for group in self.statistics), self.of.__module__

    @property
    def prefix(self) -> str:
        """Of the names of its differences in scores.nc, which belong to the metric of every channel where there is none."""
        return "" if self.interval is not None and self.interval.everywhere else f"{self.name}_"


METRICS: Registry[Metric] = Registry("metric", "emulator.verify.metrics", order=lambda entry: entry.order)


def register(entry: Metric) -> Metric:
    """Adds a metric to what is scored. Raises `ValueError` for a name that is taken."""
    return METRICS.register(entry.name, entry)


def metric(
    title: str, statistics: tuple[Statistics, ...], units: str = "1", better: str = "", interval: Interval | None = None
):
    """Registers a function of mean statistics under its own name, with its docstring as the label."""

    def of(function: Callable[[xr.Dataset], xr.DataArray]) -> Callable[[xr.Dataset], xr.DataArray]:
        label = (function.__doc__ or "").strip()
        register(Metric(function.__name__, title, label, statistics, function, units, better, interval))
        return function

    return of


def registered() -> tuple[Metric, ...]:
    """All metrics, in their order."""
    return tuple(METRICS.all().values())


def all_statistics() -> tuple[Statistics, ...]:
    """Every group of statistics that a metric needs, each once, in the order of the metrics."""
    return tuple(dict.fromkeys(group for metric in registered() for group in metric.statistics))


def with_interval(statistics: Sequence[str] | None = None) -> list[Metric]:
    """The metrics with an interval; of some statistics where these are named."""
    return [m for m in registered() if m.interval and (statistics is None or m.interval.statistic in statistics)]


def scores_of(mean: xr.Dataset) -> xr.Dataset:
    """Every metric whose statistics `mean` holds, means over initial times under their names with `members` by forecast."""
    scores = {}
    for metric in registered():
        if all(name in mean for group in metric.statistics for name in group.names):
            scores[metric.name] = metric.of(mean).assign_attrs(long_name=metric.label, units=metric.units)
    return xr.Dataset(scores)


def ratio(numerator, denominator):
    """Where the denominator is positive, else NaN; of xarray objects."""
    return numerator / denominator.where(denominator > 0)


def area_means(field: np.ndarray, weights: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Weighted means over cells: `(..., cell)` and weights `(region, cell)` summing to 1 -> `(..., region)`.

    `mask`, `(..., cell)`, marks the cells that count; the weights are renormalised over them, and a region without any
    gives NaN. A cell that counts and is NaN makes the regions that hold it NaN, and no others: a forecast that has failed
    cannot score well.
    """
    if mask is None or mask.all():
        means, share = field @ weights.T, 1.0
    else:
        field = np.where(mask, field, 0.0)
        means, share = field @ weights.T, mask.astype(np.float64) @ weights.T
    if not np.isfinite(means).all():  # a product takes 0 times NaN for NaN: also where a region ends far from the cell
        broken = ~np.isfinite(field)
        means = np.where(broken, 0.0, field) @ weights.T
        means[broken.astype(np.float64) @ (weights > 0).T > 0] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        return means / share


def by_rows(function: Callable, fields: Sequence[np.ndarray], weights: np.ndarray, mask: np.ndarray | None) -> dict:
    """`function(*fields, weights, mask)` of fields `(..., cell)`, some rows at a time: name -> `(..., region)`."""
    shape = fields[0].shape
    rows = [np.broadcast_to(field, shape).reshape(-1, shape[-1]) for field in fields]
    marks = None if mask is None else mask.reshape(rows[0].shape)
    step = max(1, ROW_BYTES // (8 * shape[-1]))
    parts = []
    for start in range(0, len(rows[0]), step):
        part = slice(start, start + step)
        parts.append(function(*(row[part] for row in rows), weights, None if marks is None else marks[part]))
    return {name: np.concatenate([part[name] for part in parts]).reshape(*shape[:-1], -1) for name in parts[0]}
