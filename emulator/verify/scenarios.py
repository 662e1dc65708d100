"""Emulators of scenarios scored on scenarios that they have not seen, beside pattern scaling and the noise of the
truth itself.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from emulator.planet.grid import Grid
from emulator.store.masks import LAND_SEA_MASK, with_land_sea_mask
from emulator.store.schema import horizontal_coordinates
from emulator.verify.annual import Annual, Channel, area_means, channels_of, check_fields, common_years, members_of
from emulator.verify.channels import scored_variables
from emulator.verify.nrmse import NRMSE, another_member, noise_floor, norm, nrmse
from emulator.verify.options import ScenarioOptions
from emulator.verify.pattern_scaling import PatternScaling

PATTERN, FLOOR, MEMBER = "pattern scaling", "noise floor", "another member"
OWN = (PATTERN, FLOOR, MEMBER)
TEMPERATURE = "2m_temperature"
DIMS = ("scenario", "scenario_source", "scenario_channel")
Stores = Mapping[str, Sequence[xr.Dataset]]  # by scenario: the stores of its members

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Scenarios:
    """What is scored against what, under in-memory names.

    Attributes:
      train, held_out: scenario -> analyses, one or more members each.
      forecasts: emulator -> held-out scenario -> forecasts.
      control: analyses whose time mean is taken from all fields; none: fields are departures already.
    """

    train: Stores
    held_out: Stores
    forecasts: Mapping[str, Mapping[str, xr.Dataset]] = dataclasses.field(default_factory=dict)
    control: Sequence[xr.Dataset] = ()
    options: ScenarioOptions = ScenarioOptions()  # noqa: RUF009 - frozen

    def __post_init__(self):
        if taken := [name for name in self.forecasts if name in OWN]:
            raise ValueError(f"Expected names of emulators other than {', '.join(OWN)}, got {taken[0]!r}")
        for name, stores in self.forecasts.items():
            if unknown := [scenario for scenario in stores if scenario not in self.held_out]:
                raise ValueError(
                    f"Expected forecasts of {name} for held-out scenarios ({', '.join(self.held_out)}), got {unknown[0]!r}"
                )

    def stores(self) -> dict[str, xr.Dataset]:
        """All of them, by names for messages."""
        found = {}
        for kind, groups in (("training", self.train), ("held-out", self.held_out), ("", {"control": self.control})):
            for scenario, stores in groups.items():
                found |= {f"{kind} {scenario} {n}".strip(): store for n, store in enumerate(stores, 1)}
        return found | {f"{n} of {s}": store for n, own in self.forecasts.items() for s, store in own.items()}


def scenario_scores(scenarios: Scenarios, grid: Grid) -> xr.Dataset:
    """`scenario_<score>` `(scenario, scenario_source, scenario_channel)` of all held-out scenarios and fields; see
    docs/verification.md.

    Raises `ValueError` for stores without a field, a forcing or whole years, and for emulators without all years of
    the truth.
    """
    asked = scenarios.options
    first = next(iter(scenarios.train.values()))[0]
    channels = channels_of(first, grid, asked.variables, _predicted_by_all(scenarios, grid))
    check_fields(scenarios.stores(), channels)
    with_mask = next((d for d in scenarios.stores().values() if LAND_SEA_MASK in d), None)

    def by_years(dataset: xr.Dataset, name: str) -> Annual:
        return Annual.of(with_land_sea_mask(dataset, with_mask), name, asked.months)

    annual = {
        kind: {s: [by_years(d, f"a store of {s}") for d in stores] for s, stores in groups.items()}
        for kind, groups in (("train", scenarios.train), ("held_out", scenarios.held_out))
    }
    annual["control"] = {"control": [by_years(d, "the control") for d in scenarios.control]}
    emulators = {
        name: {s: by_years(d, f"{name} of {s}") for s, d in stores.items()}
        for name, stores in scenarios.forecasts.items()
    }
    if both := sorted(set(scenarios.train) & set(scenarios.held_out)):
        raise ValueError(f"Expected held-out scenarios other than those of the training, got {both[0]!r} in both")
    forcings = {s: _forcing(stores, s, grid, asked) for k in ("train", "held_out") for s, stores in annual[k].items()}
    scale_by = asked.scale_by or next((c.variable for c in channels if c.variable == TEMPERATURE), None)
    parts = []
    for channel in channels:
        scale = channel if scale_by is None else channels_of(first, grid, [scale_by])[0]
        parts.append(_of_channel(_Work(annual, emulators, forcings, grid, channel, scale), asked))
        log.info("scenarios: %s", channel.name)
    result = xr.concat(parts, "scenario_channel", join="outer", data_vars="all")
    result = result.assign(_ranges(forcings, scenarios))
    units = "scenario_channel", [channel.units for channel in channels]
    return result.assign_coords(scenario_channel=[channel.name for channel in channels], scenario_units=units)


def _predicted_by_all(scenarios: Scenarios, grid: Grid) -> set[str]:
    """What every emulator predicts of every scenario, such as the temperature of a sea that it steps."""
    names = [scored_variables(d, grid, "lead_time") for own in scenarios.forecasts.values() for d in own.values()]
    return set.intersection(*map(set, names)) if names else set()


def _ranges(forcings, scenarios: Scenarios) -> dict[str, tuple]:
    """Lowest and highest forcing of every held-out scenario, and of all training: beyond that everything is extrapolated."""
    trained = np.concatenate([forcings[s][1] for s in scenarios.train])
    given = [[forcings[s][1].min(), forcings[s][1].max()] for s in scenarios.held_out]
    return {
        "scenario_forcing": (("scenario", "scenario_bound"), np.array(given)),
        "scenario_forcing_trained": (("scenario_bound",), np.array([trained.min(), trained.max()])),
    }


def _forcing(
    stores: Sequence[Annual], scenario: str, grid: Grid, asked: ScenarioOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Years, and the forcing in them as pattern scaling takes it."""
    one = stores[0]
    if asked.forcing not in one.dataset:
        raise ValueError(f"Expected the forcing {asked.forcing} in the stores of {scenario}, got none of that name")
    series = one.series(asked.forcing, grid)
    if asked.form == "logarithm" and not (series > 0).all():
        raise ValueError(
            f"Expected a forcing {asked.forcing} above 0 for its logarithm, got {series.min():g} in {scenario}"
        )
    return one.label, np.log(series) if asked.form == "logarithm" else series


@dataclasses.dataclass(frozen=True, eq=False)
class _Work:
    """One field of all stores."""

    annual: Mapping
    emulators: Mapping
    forcings: Mapping
    grid: Grid
    channel: Channel
    scale: Channel

    def members(self, kind: str, scenario: str, channel: Channel) -> tuple[np.ndarray, np.ndarray]:
        return members_of(self.annual[kind][scenario], channel, self.grid)

    def forcing(self, scenario: str, label: np.ndarray) -> np.ndarray:
        years, values = self.forcings[scenario]
        return values[np.searchsorted(years, label)]


def _of_channel(work: _Work, asked: ScenarioOptions) -> xr.Dataset:
    control = 0.0
    if work.annual["control"]["control"]:
        control = work.members("control", "control", work.channel)[1].mean(axis=(0, 1))
    training = {s: work.members("train", s, work.channel) for s in work.annual["train"]}
    training = {s: (label, fields - control) for s, (label, fields) in training.items()}
    exists = np.all([np.isfinite(fields).all(axis=(0, 1)) for _, fields in training.values()], axis=0)
    area = work.grid.area.ravel()[exists] / work.grid.area.ravel()[exists].sum()
    scales = {s: fields[..., exists] @ area for s, (_, fields) in training.items()}
    if work.scale != work.channel:
        scales = {s: area_means(work.members("train", s, work.scale)[1], work.grid) for s in training}
    least = min(len(fields) for _, fields in training.values())

    def fitted(members: slice) -> PatternScaling:
        """Pattern scaling from the mean of some members of every training scenario."""
        parts = [
            (work.forcing(s, label), scales[s][members].mean(axis=0), fields[members].mean(axis=0)[:, exists])
            for s, (label, fields) in training.items()
        ]
        return PatternScaling.fit(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    whole = fitted(slice(None))
    groups = {k: [fitted(slice(n, n + k)) for n in range(0, least - k + 1, k)] for k in _counts(least)}
    parts = []
    for scenario in work.annual["held_out"]:
        label = _years(work, scenario, asked.years)
        own, fields = work.members("held_out", scenario, work.channel)
        members = (fields - control)[:, np.isin(own, label)][..., exists]
        forcing = work.forcing(scenario, label)
        predicted = {n: _predicted(work, n, scenario, label)[:, exists] - _on(control, exists) for n in work.emulators}
        predicted = {n: p for n, p in predicted.items() if p.size} | {PATTERN: whole(forcing)}
        part = _scored(predicted, members, area, label, list(work.emulators))
        part = part.assign(_maps(predicted, members, exists, work.grid, list(work.emulators)))
        curve = _curve({k: [one(forcing) for one in fits] for k, fits in groups.items()}, members, area)
        parts.append(part.assign(curve).expand_dims(scenario=[scenario]))
    return xr.concat(parts, "scenario", join="outer", data_vars="all")


def _on(control, exists):
    return control[exists] if np.ndim(control) else control


def _years(work: _Work, scenario: str, asked: Sequence[int]) -> np.ndarray:
    """The years that are scored: of the truth, within those asked for."""
    label = common_years(work.annual["held_out"][scenario])
    label = label[(label >= asked[0]) & (label <= asked[1])] if asked else label
    if not len(label):
        raise ValueError(f"Expected whole years of {scenario} from {asked[0]} to {asked[1]}, got none")
    return label


def _predicted(work: _Work, name: str, scenario: str, label: np.ndarray) -> np.ndarray:
    """Mean over an emulator's members, `(year, cell)`; no years where it has no forecast of the scenario."""
    one = work.emulators[name].get(scenario)
    if one is None:
        return np.empty((0, work.grid.area.size))
    if absent := sorted(set(label.tolist()) - set(one.label.tolist())):
        raise ValueError(
            f"Expected all scored years of {scenario} from {name}, got none of {absent[0]}; years says which to score"
        )
    return one.fields(work.channel, work.grid).mean(axis=0)[np.isin(one.label, label)]


def _counts(most: int) -> list[int]:
    """Numbers of members of the curve: powers of two, and all."""
    return sorted({*(2**n for n in range(most.bit_length()) if 2**n <= most), most})


def _scored(predicted, members, area, label, emulators) -> xr.Dataset:
    truth = members.mean(axis=0)
    found = {n: nrmse(p, truth, area) for n, p in predicted.items()}
    found |= {FLOOR: noise_floor(members, area), MEMBER: another_member(members, area)}
    nothing = NRMSE(float("nan"), float("nan"))
    rows = [found.get(name, nothing) for name in (*emulators, *OWN)]
    series = [predicted[n] @ area if n in predicted else np.full(len(label), np.nan) for n in (*emulators, PATTERN)]
    return xr.Dataset(
        {
            "scenario_nrmse_spatial": ("scenario_source", [row.spatial for row in rows]),
            "scenario_nrmse_global": ("scenario_source", [row.whole for row in rows]),
            "scenario_nrmse_total": ("scenario_source", [row.total for row in rows]),
            "scenario_norm": ((), norm(truth, area)),
            "scenario_members": ((), len(members)),
            "scenario_series": (("scenario_predicted", "scenario_year"), np.stack(series)),
            "scenario_series_members": (("scenario_member", "scenario_year"), members @ area),
        },
        {
            "scenario_source": [*emulators, *OWN],
            "scenario_predicted": [*emulators, PATTERN],
            "scenario_year": label,
            "scenario_member": np.arange(len(members)),
        },
    )


def _maps(predicted, members, exists, grid: Grid, emulators) -> dict[str, tuple]:
    """Time mean of the truth, and errors of the time means."""
    truth = members.mean(axis=(0, 1))
    fields = [truth]
    fields += [predicted[n].mean(axis=0) - truth if n in predicted else np.nan * truth for n in (*emulators, PATTERN)]
    maps = np.full((len(fields), exists.size), np.nan)
    maps[:, exists] = fields
    maps = maps.reshape(-1, *grid.shape)
    place = horizontal_coordinates(grid)
    return {n: v for n, v in place.items()} | {
        "scenario_truth_map": (grid.dims, maps[0]),
        "scenario_error_map": (("scenario_predicted", *grid.dims), maps[1:]),
    }


def _curve(predicted: Mapping[int, Sequence[np.ndarray]], members: np.ndarray, area: np.ndarray) -> dict[str, tuple]:
    """Pattern scaling from k members of every training scenario.

    `scenario_curve_error`: its spatial error against the truth's mean, root mean square over groups of k members.
    `scenario_curve_noise`: what of it is noise of the training: the spread between groups, which share no member, NaN
    where there is one. As an error of independent means it falls as 1 / sqrt(k).
    """
    truth, size = members.mean(axis=(0, 1)), norm(members.mean(axis=0), area)
    error, noise = [], []
    for each in predicted.values():
        means = np.stack([one.mean(axis=0) for one in each])
        error.append(np.sqrt(np.mean((means - truth) ** 2 @ area)) / size)
        noise.append(np.sqrt(means.var(axis=0, ddof=1) @ area) / size if len(each) > 1 else np.nan)
    return {
        "scenario_curve_members": ("scenario_curve_members", list(predicted)),
        "scenario_curve_error": ("scenario_curve_members", error),
        "scenario_curve_noise": ("scenario_curve_members", noise),
    }
