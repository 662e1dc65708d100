"""Named fields <-> one channel tensor. The only place that knows the order of channels."""

import collections
import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from emulator.data.border import Border
from emulator.planet.calendar import TimeStep
from emulator.planet.variables import VARIABLES
from emulator.planet.vertical import vertical_of
from emulator.store.masks import domain_of
from emulator.store.schema import ROWS, entry, levels_at, variables_by_role

MOMENTS = ("start", "end", "both", "mean")  # of a step, at which it is given a forcing field
MEMBERS_SHOWN = 4  # in a message


@dataclasses.dataclass(frozen=True)
class Channels:
    """Variables that share one channel axis, in order.

    Attributes:
      names: canonical variable names.
      levels: number of levels of each variable; 0 marks a surface field, which has no level axis.
    """

    names: tuple[str, ...]
    levels: tuple[int, ...]

    def __post_init__(self):
        if len(self.names) != len(self.levels) or len(set(self.names)) != len(self.names):
            raise ValueError(f"Expected one level count for each of distinct names, got {self.names} and {self.levels}")

    @classmethod
    def of(cls, dataset, names) -> "Channels":
        """Channels of the given variables of an xarray dataset. Raises `ValueError` where one has members."""
        if several := next((n for n in names if "member" in dataset[n].dims), None):
            numbers = ", ".join(f"{n:g}" for n in dataset["member"].values[:MEMBERS_SHOWN])
            raise ValueError(
                f"Expected one state at each time to train on or to forecast from, got {several} of "
                f"{dataset.sizes['member']} members ({numbers}{', ...' * (dataset.sizes['member'] > MEMBERS_SHOWN)}); "
                "ingest makes a store of one with select: {member: NUMBER}"
            )
        return cls(tuple(names), tuple(dataset.sizes.get(vertical_of(dataset[n].dims), 0) for n in names))

    @property
    def widths(self) -> list[int]:
        return [max(1, count) for count in self.levels]

    @property
    def count(self) -> int:
        return sum(self.widths)

    @property
    def slices(self) -> dict[str, slice]:
        ends = list(itertools.accumulate(self.widths))
        return {n: slice(e - w, e) for n, e, w in zip(self.names, ends, self.widths, strict=True)}

    def labels(self) -> list[str]:
        """One name per channel: `temperature[0]`, ..., `surface_pressure`."""
        return [
            f"{name}[{k}]" if count else name
            for name, count in zip(self.names, self.levels, strict=True)
            for k in range(max(1, count))
        ]

    def describe(self) -> str:
        """Variables with their numbers of levels, for people."""
        named = zip(self.names, self.levels, strict=True)
        return ", ".join(f"{name} of {count} levels" if count else name for name, count in named) or "none"

    def pack(self, fields: dict[str, Tensor]) -> Tensor:
        """Fields `(batch, level, *space)` or `(batch, *space)` -> `(batch, channel, *space)`.

        Raises `ValueError` for a missing field.
        """
        if missing := [name for name in self.names if name not in fields]:
            raise ValueError(f"Expected fields {list(self.names)}, got none for {missing}")
        parts = [
            fields[n] if count else fields[n].unsqueeze(1) for n, count in zip(self.names, self.levels, strict=True)
        ]
        return torch.cat(parts, dim=1)

    def unpack(self, tensor: Tensor, axis: int = 1) -> dict[str, Tensor]:
        """Views of a channel tensor `(batch, channel, *space)` by name; surface fields lose the channel axis."""
        if tensor.shape[axis] != self.count:
            raise ValueError(f"Expected {self.count} channels {self.labels()}, got {tensor.shape[axis]}")
        fields = {}
        for name, part, count in zip(self.names, tensor.split(self.widths, dim=axis), self.levels, strict=True):
            fields[name] = part if count else part.squeeze(axis)
        return fields

    def replace(self, tensor: Tensor, changed: dict[str, Tensor], in_place: bool = False) -> Tensor:
        """The channel tensor `(batch, channel, *space)` with some fields changed; names of other channels are ignored.

        `in_place`: the tensor itself, of which nobody needs the old values; moves half as much where half is changed.
        """
        if not any(name in changed for name in self.names):
            return tensor
        if in_place:
            for name, field in self.unpack(tensor).items():
                if name in changed:
                    field.copy_(changed[name])
            return tensor
        parts = tensor.split(self.widths, dim=1)
        new = [
            (changed[name] if count else changed[name].unsqueeze(1)) if name in changed else part
            for name, count, part in zip(self.names, self.levels, parts, strict=True)
        ]
        return torch.cat(new, dim=1)


def outside_of(dataset, channels: Channels) -> np.ndarray | None:
    """For every channel where it does not exist, `(channel, *space)` bool; None where all exist everywhere.

    There a state or a diagnostic is 0 in tensors, and forcing is missing (NaN). Raises `ValueError` for a domain whose mask
    is absent or does not fit.
    """
    inside = {name: domain_of(dataset, name) for name in channels.names}
    masks = [
        mask if count else mask[None]
        for mask, count in zip(inside.values(), channels.levels, strict=True)
        if mask is not None
    ]
    if not masks:
        return None
    found = np.zeros((channels.count, *masks[0].shape[1:]), bool)
    for name, where in channels.slices.items():
        if inside[name] is not None:
            found[where] = ~inside[name]
    return found


def kept_within(fields: Tensor, exists: Tensor | None) -> Tensor:
    """Fields `(..., channel, *space)`, 0 where they do not exist by a mask `(channel, *space)`; None: everywhere."""
    return fields if exists is None else torch.where(exists, fields, 0.0)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which variables a network steps forward, diagnoses, is given, and knows as fixed; and what else shapes its step.

    Attributes:
      prognostic, diagnostic, forcing, static: the variables' channels.
      moments: of every forcing variable, of `MOMENTS`; none: snapshots at the start, means at the end of a step.
      history: input times, the newest included.
      lengths: of the steps that the network makes, in steps of the store.
      masked: variables that do not exist everywhere. masks: how many masks of them the network is given.
      gaps: what a step does with states that lack values: "refused", "zero" or "told", as `emulator.model.gaps` has it.
      at: of the variables with levels where these lie: hPa in an atmosphere whose surface is at 1000 hPa, else the
        coordinate. hours: length of a step of the store. Both only inform a network, and older checkpoints lack them.
      border: what it is given of the state outside a limited area; None: nothing.
    """

    prognostic: Channels
    diagnostic: Channels
    forcing: Channels
    static: Channels
    moments: tuple[str, ...] = ()
    history: int = 1
    lengths: tuple[int, ...] = (1,)
    masked: tuple[str, ...] = ()
    masks: int = 0
    gaps: str = "refused"
    at: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict, compare=False)
    hours: float = dataclasses.field(default=0.0, compare=False)
    border: Border | None = None

    def __post_init__(self):
        if not self.moments:
            usual = (
                "end" if name in VARIABLES and VARIABLES[name].cell == "mean" else "start"
                for name in self.forcing.names
            )
            object.__setattr__(self, "moments", tuple(usual))
        if len(self.moments) != len(self.forcing.names) or set(self.moments) - set(MOMENTS):
            raise ValueError(f"Expected of each of {self.forcing.names} one of {MOMENTS}, got {self.moments}")

    @classmethod
    def of(
        cls,
        dataset,
        chosen: Mapping[str, Sequence[str] | None] | None = None,
        name: str = "the store",
        more: "More | None" = None,
    ) -> "Layout":
        """Channels by their roles in an analysis, or as chosen for `prognostic`, `diagnostic` and `forcing`.

        Raises `ValueError` for a variable that the analysis, which messages call `name`, lacks or has in two roles, for a
        moment of a variable that is no forcing, and for steps that are no multiples of the analysis's.
        """
        roles, groups, more = variables_by_role(dataset), {}, more or More()
        named = {variable for names in (chosen or {}).values() for variable in names or ()}  # have no role but that one
        taken: dict[str, list[str]] = collections.defaultdict(list)
        for group in ("prognostic", "diagnostic", "forcing"):
            names = (chosen or {}).get(group)
            names = [each for each in roles[group] if each not in named] if names is None else names
            if absent := [variable for variable in names if variable not in dataset]:
                raise ValueError(f"Expected {group} variables of {name}, it has none named {', '.join(absent)}")
            for variable in names:
                taken[variable].append(group)
            groups[group] = Channels.of(dataset, dict.fromkeys(names))
        if twice := {variable: where for variable, where in taken.items() if len(where) > 1}:
            text = "; ".join(f"{variable} as {' and '.join(where)}" for variable, where in twice.items())
            raise ValueError(f"Expected every variable of {name} in one role, got {text}; name the variables of each")
        if not groups["prognostic"].names and not groups["diagnostic"].names:
            raise ValueError(f"Expected at least one prognostic or diagnostic variable in {name}, got none")
        forcing = groups["forcing"].names
        if unknown := sorted(set(more.moments) - set(forcing)):
            known = ", ".join(forcing) or "none"
            raise ValueError(f"Expected forcing_moments of forcing variables, {known}, got {', '.join(unknown)}")
        usual = {each: "start" if entry(dataset, each).cell in ("point", "fixed") else "end" for each in forcing}
        static = Channels.of(dataset, [each for each in roles["static"] if ROWS & set(dataset[each].dims)])
        moments = tuple((usual | dict(more.moments)).values())
        masked = tuple(
            n for each in (*groups.values(), static) for n in each.names if domain_of(dataset, n) is not None
        )
        shape = {
            "moments": moments,
            "history": more.history,
            "lengths": _lengths(dataset, more.steps),
            "masked": masked,
            "gaps": more.gaps,
            "at": {n: at for each in (*groups.values(), static) for n in each.names if (at := levels_at(dataset, n))},
            "hours": TimeStep.of(dataset).seconds / 3600,
        }
        layout = cls(**groups, static=static, **shape)
        return dataclasses.replace(layout, masks=len(layout.distinct_masks(dataset))) if more.mask_channels else layout

    def is_masked(self, channels: Channels) -> bool:
        """Whether some of these variables do not exist everywhere."""
        return bool(set(self.masked) & set(channels.names))

    def distinct_masks(self, dataset) -> list[np.ndarray]:
        """The masks of all moving channels that do not exist everywhere, `(*space)` bool each, every one once."""
        outside = [outside_of(dataset, group) for group in (self.prognostic, self.diagnostic, self.forcing)]
        planes = [plane for found in outside if found is not None for plane in found if plane.any()]
        return list({plane.tobytes(): ~plane for plane in planes}.values())

    @property
    def given(self) -> Channels:
        """What a step is given of the forcing: a variable wanted at both ends of a step comes as `name` and `name@end`."""
        names, levels = [], []
        for name, count, moment in zip(self.forcing.names, self.forcing.levels, self.moments, strict=True):
            both = moment == "both"
            names += [name, f"{name}@end"] if both else [name]
            levels += [count, count] if both else [count]
        return Channels(tuple(names), tuple(levels))

    @property
    def given_from(self) -> list[int]:
        """The forcing channel from which each of the `given` ones comes."""
        where = self.forcing.slices
        return [n for name in self.given.names for n in range(*where[name.removesuffix("@end")].indices(10**9))]

    def to_json(self) -> dict:
        """All of it as what JSON can hold, in which a checkpoint keeps it."""
        found = {name: dataclasses.asdict(getattr(self, name)) for name in GROUPS}
        found |= {name: getattr(self, name) for name in MORE}
        return found if self.border is None else found | {"border": dataclasses.asdict(self.border)}

    @classmethod
    def from_json(cls, values: dict) -> "Layout":
        """The layout of what `to_json` gave, read back."""
        groups = {n: Channels(tuple(values[n]["names"]), tuple(values[n]["levels"])) for n in GROUPS}
        own = {n: v for n, v in values.items() if n not in (*GROUPS, "border")}
        more = {n: tuple(v) if isinstance(v, list | tuple) else v for n, v in own.items()}
        return cls(**groups, **more, border=Border.from_json(values.get("border")))


GROUPS = ("prognostic", "diagnostic", "forcing", "static")
MORE = ("moments", "history", "lengths", "masked", "masks", "gaps", "at", "hours")


@dataclasses.dataclass(frozen=True)
class More:
    """What shapes a layout besides the variables; see `Layout`.

    Attributes:
      moments: of single forcing variables, by name.
      history: input times.
      steps: lengths of the steps in hours; none: the store's.
      mask_channels: whether the network is given the masks of fields that do not exist everywhere.
      gaps: see `Layout`.
    """

    moments: Mapping[str, str] = dataclasses.field(default_factory=dict)
    history: int = 1
    steps: Sequence[float] = ()
    mask_channels: bool = False
    gaps: str = "refused"


def _lengths(dataset, hours: Sequence[float]) -> tuple[int, ...]:
    if not hours:
        return (1,)
    if (step := TimeStep.of(dataset)).months:
        raise ValueError(f"Expected no steps in hours for a store whose step is {step}, got {list(hours)}")
    own = step.seconds / 3600
    lengths = [hour / own for hour in hours] if own else [0.0]
    if any(length < 1 or abs(length - round(length)) > 1e-9 for length in lengths):
        raise ValueError(
            f"Expected steps as multiples of the store's {own:g} h, got {', '.join(f'{h:g}' for h in hours)} h"
        )
    return tuple(sorted({round(length) for length in lengths}))
