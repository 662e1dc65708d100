"""Stored forecasts of an earlier network as the states that a later one starts from: how FuXi trains its cascade.

The later network sees what the earlier one has made of the atmosphere after some days and learns what the analysis says comes
next; nothing is computed of the earlier one, and no gradient reaches it (Chen et al. 2023).
"""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulator.data.channels import kept_within, outside_of
from emulator.data.samples import Samples
from emulator.model.gaps import REFUSED
from emulator.planet.calendar import lead_seconds, valid_times
from emulator.store.forecast import open_forecast
from emulator.store.schema import grid_of, levels_at, own_rows
from emulator.training.options.sections import ForecastOptions

DAY = 86400.0


class StoredForecasts:
    """The states of a forecast store whose valid times the samples have, from some leads.

    Args:
      options: the store, and the least and most lead. samples: the analysis that says what comes next.
    Raises `ValueError` for a store on another grid, of other or thinned variables, of means, or without such leads.
    """

    def __init__(self, options: ForecastOptions, samples: Samples):
        dataset, layout = open_forecast(options.store), samples.layout
        self.options, self._layout, self._step = options, layout, samples.step
        _check(dataset, options.store, samples)
        rows = samples.space.band(len(samples.grid.latitude)) if samples.space.size > 1 else None
        self._dataset, self._outside = own_rows(dataset, rows), None
        if (outside := outside_of(own_rows(samples.dataset, rows), layout.prognostic)) is not None:
            self._outside = torch.from_numpy(~outside)
        leads = dataset["lead_time"].values
        self._place = {lead: n for n, lead in enumerate(_plain(leads))}
        self._leads, days = _plain(leads), lead_seconds(leads) / DAY
        asked = (days >= options.lead_days[0] - 1e-6) & (days <= options.lead_days[1] + 1e-6)
        at = {time: n for n, time in enumerate(_plain(samples.times))}
        valid = valid_times(dataset["init_time"].values, leads)
        valid = valid if valid.dtype == object else valid.astype(samples.times.dtype)
        self._at = np.array([[at.get(time, -1) for time in _plain(row)] for row in valid]).reshape(valid.shape)
        self._at[:, ~asked] = -1

    def pairs(self, starts: np.ndarray, length: int = 1) -> np.ndarray:
        """Forecasts whose windows may start, `(pair, 4)`: position in time, initial time, lead, member.

        Args:
          starts: positions in time of which one has to be the valid time. length: of a step, in steps of the store.
        Raises `ValueError` where there is none.
        """
        whole = [all(place >= 0 for place in self._back(lead, length)) for lead in range(len(self._leads))]
        inits, leads = np.nonzero(np.isin(self._at, starts) & np.array(whole))
        if not len(inits):
            raise ValueError(
                f"Expected forecasts in {self.options.store} that are valid within the training period, with leads of "
                f"{self.options.lead_days[0]:g} to {self.options.lead_days[1]:g} days, got none"
            )
        members = np.arange(self._dataset.sizes.get("member", 1))
        rows = np.stack([self._at[inits, leads], inits, leads], 1).repeat(len(members), 0)
        return np.column_stack([rows, np.tile(members, len(inits))])

    def states(self, pairs: np.ndarray, length: int = 1) -> Tensor:
        """What windows start from, `(pair, [history,] channel, *space)`, of pairs as `pairs` gives them."""
        found = torch.stack([self._state(int(i), self._back(lead, length), int(m)) for _, i, lead, m in pairs])
        return found if self._layout.history > 1 else found[:, 0]

    def _back(self, lead: int, length: int) -> list[int]:
        """Places of the leads of all input times that end with one, the oldest first; -1 where the store has none."""
        steps = self._step.times(length).leads(range(self._layout.history))
        return [self._place.get(self._leads[lead] - back, -1) for back in reversed(_plain(steps))]

    def _state(self, init: int, leads: Sequence[int], member: int) -> Tensor:
        part = self._dataset.isel(init_time=init, lead_time=list(leads))
        part = part.isel(member=member) if "member" in part.dims else part
        names = self._layout.prognostic.names
        fields = {name: torch.from_numpy(np.asarray(part[name].values, np.float32)) for name in names}
        state = kept_within(self._layout.prognostic.pack(fields), self._outside)
        if self._layout.gaps == REFUSED and not torch.isfinite(state).all():
            wrong = [n for n, f in self._layout.prognostic.unpack(state).items() if not torch.isfinite(f).all()]
            times = self._dataset["init_time"].values[init], lead_seconds(self._dataset["lead_time"].values)[leads[-1]]
            raise ValueError(
                f"Expected finite states in {self.options.store}, got others of {', '.join(wrong)} from {times[0]} after "
                f"{times[1] / DAY:g} days"
            )
        return state


def _plain(times: np.ndarray) -> list:
    """Times or leads as what can be looked up: nanoseconds of those that have them."""
    kind = {"M": "datetime64[ns]", "m": "timedelta64[ns]"}.get(times.dtype.kind)
    return (times if kind is None else times.astype(kind)).tolist()


def _check(dataset: xr.Dataset, path, samples: Samples) -> None:
    layout = samples.layout
    if not (own := grid_of(dataset)).same_as(samples.grid):
        raise ValueError(f"Expected forecasts on {samples.grid.describe()} in {path}, got {own.describe()}")
    if absent := [name for name in layout.prognostic.names if name not in dataset]:
        raise ValueError(f"Expected forecasts of all prognostic variables in {path}, got none of {', '.join(absent)}")
    if dataset.attrs.get("time_mean"):
        raise ValueError(f"Expected forecasts of states in {path}, got means (thin.mean)")
    places = {name: (levels_at(dataset, name), layout.at.get(name, ())) for name in layout.prognostic.names}
    if others := [name for name, (got, own) in places.items() if len(got) != len(own) or not np.allclose(got, own)]:
        raise ValueError(
            f"Expected forecasts on the levels of the analysis in {path}, got other ones of {', '.join(others)}"
        )
    if bool(samples.step.months) != (dataset["lead_time"].dtype.kind in "iu"):
        raise ValueError(f"Expected forecasts by steps of {samples.step} in {path}, got leads of another kind")
