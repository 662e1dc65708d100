"""What is made of what: the fields of a coarse and a fine store, their kinds, and how many fine steps an interval has."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import xarray as xr

from emulator.data.channels import Channels
from emulator.planet.calendar import TimeStep
from emulator.planet.vertical import VERTICAL, vertical_of
from emulator.store.schema import entry, levels_at, moving_variables, variables_by_role

INSTANT, MEAN = "point", "mean"
ATTRIBUTES = ("units", "standard_name", "long_name", "short_name", "sign", "role", "minimum", "maximum")


@dataclasses.dataclass(frozen=True)
class Plan:
    """Fields in and out of a downscaling network. Those that are means over an interval follow those that are instants.

    Attributes:
      inputs, targets: coarse and fine channels; every target is an input too.
      input_instants, instants: of each variable whether the coarse store has it at instants, or as means.
      fine_instants: the same of the targets in the fine store.
      steps: fine steps in a coarse one. seconds: of a fine step.
      attributes: of the targets in the fine store, by name. positive: targets that cannot be below 0.
      levels: values of the vertical coordinate of every input that has one; none in checkpoints that do not tell.
    """

    inputs: Channels
    targets: Channels
    input_instants: tuple[bool, ...]
    instants: tuple[bool, ...]
    fine_instants: tuple[bool, ...]
    steps: int
    seconds: float
    attributes: dict[str, dict[str, str | float]]
    positive: tuple[str, ...]
    levels: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, fine: xr.Dataset, coarse: xr.Dataset, targets: Sequence[str] | None, more: Sequence[str]) -> "Plan":
        """Raises `ValueError` in one sentence for fields that a store lacks or that differ, and steps that do not divide."""
        steps, seconds = _steps(fine, coarse)
        targets = _targets(fine, coarse, targets)
        if missing := [name for name in more if name not in coarse]:
            raise ValueError(f"Expected inputs of the coarse store, it has none named {', '.join(missing)}")
        for name in targets:
            _check_alike(name, fine, coarse, steps)
        known = {name: entry(coarse, name).cell == INSTANT for name in dict.fromkeys([*targets, *more])}
        inputs = sorted(known, key=lambda name: not known[name])
        chosen = [name for name in inputs if name in targets]
        entries = {name: entry(fine, name) for name in chosen}
        return cls(
            inputs=Channels.of(coarse, inputs),
            targets=Channels.of(fine, chosen),
            input_instants=tuple(known[name] for name in inputs),
            instants=tuple(known[name] for name in chosen),
            fine_instants=tuple(entries[name].cell == INSTANT for name in chosen),
            steps=steps,
            seconds=seconds,
            attributes={name: _attributes(fine, name) for name in chosen},
            positive=tuple(name for name in chosen if entries[name].minimum == 0),
            levels={name: values for name in inputs if (values := list(levels_at(coarse, name)))},
        )

    def to_json(self) -> dict:
        """All of it as what JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, saved: dict) -> "Plan":
        """What `to_json` made, read back."""
        channels = {n: Channels(*(tuple(saved[n][key]) for key in ("names", "levels"))) for n in ("inputs", "targets")}
        return cls(**{n: tuple(v) if isinstance(v, list) else v for n, v in saved.items()} | channels)

    @property
    def given(self) -> Channels:
        """What a network sees of the coarse fields: with several steps in an interval instants at its start too."""
        if self.steps == 1:
            return self.inputs
        starts = [n for n, instant in enumerate(self.input_instants) if instant]
        names = [f"{self.inputs.names[n]}@start" for n in starts]
        levels = [self.inputs.levels[n] for n in starts]
        return Channels((*names, *self.inputs.names), (*levels, *self.inputs.levels))

    @property
    def made(self) -> Channels:
        """What it makes: the targets of every fine step, one step after the other."""
        if self.steps == 1:
            return self.targets
        names = [f"{name}@{step + 1}" for step in range(self.steps) for name in self.targets.names]
        return Channels(tuple(names), self.targets.levels * self.steps)

    def by_channel(self, flags: Sequence[bool]) -> list[bool]:
        """Flags of the targets as flags of their channels."""
        return [flag for flag, width in zip(flags, self.targets.widths, strict=True) for _ in range(width)]

    @property
    def target_inputs(self) -> list[int]:
        """The channels of the inputs which the targets' channels are made from."""
        where = self.inputs.slices
        return [n for name in self.targets.names for n in range(where[name].start, where[name].stop)]


def _steps(fine: xr.Dataset, coarse: xr.Dataset) -> tuple[int, float]:
    small, large = TimeStep.of(fine), TimeStep.of(coarse)
    if small.months or large.months or not small.seconds or not large.seconds:
        raise ValueError(f"Expected stores with steps of hours or days to downscale, got {small} and {large}")
    count = large.seconds / small.seconds
    if count < 1 or abs(count - round(count)) > 1e-9:
        raise ValueError(f"Expected a step of the coarse store that the fine one's {small} divides, got {large}")
    return round(count), small.seconds


def _targets(fine, coarse, asked) -> list[str]:
    if asked is None:
        roles = variables_by_role(coarse)
        asked = [n for role in ("prognostic", "diagnostic") for n in roles[role] if n in moving_variables(fine)]
        if not asked:
            raise ValueError("Expected fields that change in both stores, got none that is in both")
    for kind, store in (("fine", fine), ("coarse", coarse)):
        if missing := [name for name in asked if name not in store]:
            raise ValueError(f"Expected targets in both stores, the {kind} one has none named {', '.join(missing)}")
    return list(dict.fromkeys(asked))


def _check_alike(name: str, fine, coarse, steps: int) -> None:
    here, there = entry(fine, name), entry(coarse, name)
    if here.units != there.units:
        raise ValueError(
            f"Expected {name} in one unit, got {here.units!r} in the fine store and {there.units!r} in the other"
        )
    axes = [vertical_of(store[name].dims) for store in (fine, coarse)]
    if axes[0] != axes[1] or (axes[0] and not np.allclose(fine[axes[0]], coarse[axes[1]], rtol=1e-6)):
        labels = [VERTICAL[axis].label if axis else "no levels" for axis in axes]
        raise ValueError(f"Expected {name} on the same levels in both stores, got others ({labels[0]} and {labels[1]})")
    within = (here.cell, there.cell) in ((INSTANT, INSTANT), (MEAN, MEAN), (INSTANT, MEAN))
    if not (within if steps > 1 else here.cell == there.cell):
        raise ValueError(
            f"Expected {name} at instants in both stores, or as means in the coarse one, got {here.cell!r} in the fine store "
            f"and {there.cell!r} in the coarse one"
        )


def _attributes(fine: xr.Dataset, name: str) -> dict[str, str | float]:
    given = fine[name].attrs
    found = {key: given[key] for key in (*ATTRIBUTES, "cell_methods") if key in given}
    return {key: value if isinstance(value, str) else float(value) for key, value in found.items()}
