"""Named fields <-> one channel tensor. The only place that knows the order of channels."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from emulator.planet.vertical import vertical_of
from emulator.store.schema import variables_by_role

STATIC = ("geopotential_at_surface", "land_sea_mask")


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
        """Channels of the given variables of an xarray dataset."""
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


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which variables a network steps forward, diagnoses, is given, and knows as fixed."""

    prognostic: Channels
    diagnostic: Channels
    forcing: Channels
    static: Channels

    @classmethod
    def of(cls, dataset, chosen: Mapping[str, Sequence[str] | None] | None = None, name: str = "the store") -> "Layout":
        """Channels by their roles in an analysis, or as chosen for `prognostic`, `diagnostic` and `forcing`.

        Raises `ValueError` for a variable that the analysis, which messages call `name`, lacks.
        """
        roles, groups = variables_by_role(dataset), {}
        for group in ("prognostic", "diagnostic", "forcing"):
            names = (chosen or {}).get(group)
            names = roles[group] if names is None else names
            if absent := [variable for variable in names if variable not in dataset]:
                raise ValueError(f"Expected {group} variables of {name}, it has none named {', '.join(absent)}")
            groups[group] = Channels.of(dataset, names)
        if not groups["prognostic"].names:
            raise ValueError(f"Expected at least one prognostic variable in {name}, got none")
        return cls(**groups, static=Channels.of(dataset, [name for name in STATIC if name in dataset]))

    def to_json(self) -> dict:
        return {group.name: dataclasses.asdict(getattr(self, group.name)) for group in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, values: dict) -> "Layout":
        return cls(**{n: Channels(tuple(v["names"]), tuple(v["levels"])) for n, v in values.items()})
