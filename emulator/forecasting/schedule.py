"""When forecasts start, how long they are, and which of their steps are written: every so many, as means, or by months."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import xarray as xr

from emulator.data.forcing import Forcing
from emulator.planet.calendar import TimeStep, select_period
from emulator.planet.months import month_numbers
from emulator.store.schema import missing_times

EVERY_HOURS = 36  # between initial times, where nothing else is asked for
MEANS = ("none", "every", "monthly")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Which steps are written.

    Attributes:
      ends: numbers of the steps at whose ends fields are written, increasing.
      mean: whether they are means over the steps since the one before, rather than the state itself; else the initial
        state is written too.
    """

    ends: tuple[int, ...]
    mean: bool = False

    @classmethod
    def every(cls, steps: int, stride: int = 1, mean: bool = False) -> "Schedule":
        return cls(tuple(range(stride, steps + 1, stride)), mean)

    @classmethod
    def of(
        cls, forcing: Forcing, times: Sequence, steps: int, every_hours: float | None = None, mean: str = "none"
    ) -> "Schedule":
        """Of forecasts of `steps` steps from some initial times; `mean` is one of `MEANS`.

        Raises `ValueError` for a spacing that is not whole steps, and for calendar months that do not start together.
        """
        if mean not in MEANS:
            raise ValueError(f"Expected means among {', '.join(MEANS)}, got {mean!r}")
        if mean == "monthly":
            ends = {month_ends(time, steps, forcing.later) for time in times}
            if len(ends) > 1 or not next(iter(ends)):
                raise ValueError(
                    "Expected forecasts over whole calendar months that start together for monthly means, got "
                    f"{len(times)} initial times of {steps * forcing.step_seconds / 86400:g} days"
                )
            return cls(next(iter(ends)), mean=True)
        stride = 1.0 if every_hours is None else every_hours * 3600 / forcing.step_seconds
        if every_hours is not None and forcing.step.months:
            raise ValueError(f"Expected no thin.every_hours for a step of {forcing.step}, got {every_hours:g}")
        if stride < 1 or abs(stride - round(stride)) > 1e-9:
            hours = forcing.step_seconds / 3600
            raise ValueError(f"Expected thin.every_hours as a multiple of {hours:g}, got {every_hours:g}")
        return cls.every(steps, round(stride), mean=mean == "every")

    @property
    def numbers(self) -> list[int]:
        """Step numbers of all leads."""
        return [*self.ends] if self.mean else [0, *self.ends]

    def leads(self, step: TimeStep) -> np.ndarray:
        """Leads, timedelta64, or integers for months, `(lead,)`."""
        return step.leads(self.numbers)


def count_steps(step: TimeStep, days: float, lead: str | None = None) -> int:
    """How many steps make a forecast of some days, or, where it is given, of a lead such as `12 months`.

    Raises `ValueError` for less than a step, for part of a step, and for days of months or months of days.
    """
    number = days * 86400 / step.seconds if lead is None else step.count(TimeStep.parse(lead))
    apart = 1e-9 if lead else 1e-2  # days may be rounded, such as 0.333
    if round(number) < 1 or abs(number - round(number)) > apart or (step.months and lead is None):
        hint = "; give the lead in months, such as 12 months" if step.months and lead is None else ""
        raise ValueError(f"Expected a lead of whole steps of {step}, got {lead or f'{days:g} days'}{hint}")
    return round(number)


def month_ends(first, steps: int, later) -> tuple[int, ...]:
    """Numbers of the steps that end a calendar month, for a forecast of `steps` steps from the time `first`.

    `later`: `(time, steps) -> time`. The last month is left out unless it is whole.
    """

    def month(number):
        # a step belongs to the month of its start
        return month_numbers([later(first, number - 1)])[0]

    return tuple(number for number in range(1, steps + 1) if month(number) != month(number + 1))


@dataclasses.dataclass(frozen=True)
class Starts:
    """Which times of a store forecasts start from.

    Attributes:
      start, end: the period, both included; None is open.
      every_hours: between initial times; every: in place of it, such as `12 months`; None: 36 hours, and every time of a
        store of calendar steps. most: so many at most; None: all.
      beyond_store: whether forecasts may run past the end of the store; those of a store of one time do.
      length: of the forecasts' steps, in steps of the store. history: input times of the model.
    """

    start: object = None
    end: object = None
    every_hours: float | None = None
    most: int | None = None
    beyond_store: bool = False
    every: str | None = None
    length: int = 1
    history: int = 1

    def of(self, dataset: xr.Dataset, steps: int, name: str = "the store") -> list:
        """Initial times whose forecast of `steps` steps lies within the store, unless `beyond_store`, and is not missing.

        Nor are the input times before it. Raises `ValueError` for a spacing that is not whole steps of the store, and where
        there is no such time; `name` tells the store.
        """
        times = select_period(dataset[["time"]].reset_coords(drop=True), self.start, self.end)["time"].values
        all_times, step = dataset["time"].values, TimeStep.of(dataset)
        stride = self._stride(step)
        beyond = self.beyond_store or len(all_times) == 1  # of one time, which is there to start from
        last = len(all_times) - 1 - (0 if beyond else steps * self.length)
        first = int(np.searchsorted(all_times, times[0]))
        missing = missing_times(dataset)
        before = range(0, self.history * self.length, self.length)

        def whole(at: int) -> bool:
            return at <= last and all(at >= back and not missing[at - back] for back in before)

        chosen = [i for i in range(first, first + len(times), stride) if whole(i)]
        if not chosen:
            earlier = f" and the {self.history - 1} input times before" if self.history > 1 else ""
            raise ValueError(
                f"Expected initial times from {times[0]} to {times[-1]} with {_length(step, steps * self.length)} of {name} "
                f"after them{earlier}, which ends at {all_times[-1]}; got none"
            )
        return [all_times[i] for i in chosen[: self.most]]

    def _stride(self, step: TimeStep) -> int:
        """Steps between initial times. Raises `ValueError` for part of a step."""
        if self.every is None and step.months:
            if self.every_hours is not None:
                raise ValueError(
                    f"Expected every, such as 12 months, for a store whose step is {step}, got every_hours "
                    f"{self.every_hours:g}"
                )
            return 1
        if self.every is not None:
            number = step.count(TimeStep.parse(self.every))
            if round(number) < 1 or abs(number - round(number)) > 1e-9:
                raise ValueError(f"Expected every as a multiple of {step}, got {self.every}")
            return round(number)
        step_hours, hours = step.seconds / 3600, EVERY_HOURS if self.every_hours is None else self.every_hours
        stride = round(hours / step_hours)
        if stride < 1 or abs(stride * step_hours - hours) > 1e-9:
            raise ValueError(f"Expected every_hours as a multiple of {step_hours:g}, got {hours}")
        return stride


def _length(step: TimeStep, steps: int) -> str:
    return str(TimeStep(months=steps * step.months)) if step.months else f"{steps * step.seconds / 86400:g} days"
