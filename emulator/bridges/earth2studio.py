"""A trained step as a prognostic model of earth2studio, for its workflows, perturbations, outputs and checkpoints.

Needs the extra `earth2studio`. `docs/ecosystem.md` shows its use.
"""

import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

try:
    from earth2studio.models.auto import AutoModelMixin, Package
    from earth2studio.models.batch import batch_coords, batch_func
    from earth2studio.models.px.utils import PrognosticMixin
    from earth2studio.utils import handshake_coords, handshake_dim
    from earth2studio.utils.checkpoint import bind_checkpoint_state
except ImportError as error:
    raise ImportError(f"earth2studio is not here ({error}): pip install 'emulator[earth2studio]'") from error

from emulator.bridges.given import GivenFields, given_fields
from emulator.bridges.lexicon import Name, names_of
from emulator.conservation.budgets import Anchor
from emulator.data.channels import Channels
from emulator.model.checkpoint import METADATA, TENSORS
from emulator.model.noise import forecast_key
from emulator.model.saved_model import grid_from_json, load_model
from emulator.model.step import Step
from emulator.planet.calendar import MONTH_SECONDS
from emulator.planet.variables import known


@dataclass
class _Restart:
    """What earth2studio saves of a forecast and gives back, at its level 2."""

    state: Tensor | None = None
    dry_mass: Tensor | None = None
    lead_times: np.ndarray | None = None
    number: int = 1


class Emulator(torch.nn.Module, AutoModelMixin, PrognosticMixin):
    """A prognostic model of earth2studio that steps with a trained network and closes its budgets.

    A forecast's tensors are `(..., time, lead_time, variable, lat, lon)`: prognostic variables go in, these and diagnostic
    ones come out, under the names of `emulator.bridges.lexicon`. The first that the iterator yields is the initial state,
    with the analysis's diagnostics where `forcing` is an analysis. Budgets stay pinned to the state that the iterator
    begins with, also where hooks change states, and after a restart from a checkpoint of earth2studio.

    Args:
      model: a checkpoint's folder, or what `emulator.load_model` gives.
      forcing: what the network is prescribed: an analysis store, opened, its path or an `AnalysisSource`, or any data source
        of earth2studio that has the names of `forcing_names`; None for a network that needs nothing.
      step_hours: of a network that makes steps of several lengths; None: the shortest.
      climatology: path of what the network's predictions count from, where they do; None: as it was trained.
      seed: of the noise of a stochastic network, whose members are those of the coordinate `ensemble`.

    Raises `ValueError` for a grid without rows of latitude, for calendar steps and steps of windows, and where forcing is
    needed and absent.
    """

    def __init__(self, model, forcing=None, *, step_hours: float | None = None, climatology=None, seed: int = 0):
        super().__init__()
        self.stepper = model if isinstance(model, Step) else load_model(model)
        saved, layout = self.stepper.metadata, self.stepper.layout
        if not saved:
            raise ValueError("Expected a model of a checkpoint, which has its grid and step, got one without")
        self._grid, self._seconds, self._seed = grid_from_json(saved["grid"]), saved["step_seconds"], seed
        if not self._grid.has_rows:
            raise ValueError(
                f"Expected a grid of latitudes and longitudes for earth2studio, got {self._grid.describe()}"
            )
        if self._seconds > MONTH_SECONDS - 1:
            raise ValueError(
                "Expected a step of hours or days, whose lead times earth2studio counts, got calendar months"
            )
        if self.stepper.horizon > 1:
            raise ValueError(
                "Expected a network whose steps stand alone for earth2studio, got one of windows (dyffusion)"
            )
        self._length = self._length_of(step_hours)
        self._seconds *= self._length
        self._inputs = self._names(layout.prognostic, saved)
        self._outputs = [*self._inputs, *self._names(layout.diagnostic, saved)]
        needed = self._names(layout.forcing, saved)
        self.forcing_names = [name.text for name in needed]
        self._given: GivenFields = given_fields(forcing, self.stepper, self._length, climatology, needed)
        self._members: np.ndarray | None = None
        self.restart = bind_checkpoint_state(_Restart())

    def __str__(self) -> str:
        return "emulator"

    @property
    def dt(self) -> np.timedelta64:
        """Length of a step, timedelta64[ns]."""
        return np.timedelta64(round(self._seconds), "s").astype("timedelta64[ns]")

    @classmethod
    def load_default_package(cls) -> Package:
        """Raises `NotImplementedError`: there is none."""
        raise NotImplementedError("Expected the folder or URL of a checkpoint of emulator, which has no default one")

    @classmethod
    def load_model(cls, package: Package, forcing=None, **more) -> "Emulator":
        """The model of a package, a checkpoint's folder or URL; `forcing` and `more` as of the class."""
        with tempfile.TemporaryDirectory() as folder:  # a package's cache may have other names for its files
            for name in (TENSORS, METADATA):
                os.symlink(Path(package.resolve(name)).resolve(), Path(folder) / name)
            model = load_model(folder)
        return cls(model, forcing, **more)

    def input_coords(self) -> OrderedDict:
        """Coordinates of the initial state; those of `batch` and `time` are free."""
        history = self.stepper.layout.history
        leads = np.array([-k for k in reversed(range(history))]) * self.dt
        return self._coords(leads, self._inputs)

    @batch_coords()
    def output_coords(self, input_coords: OrderedDict) -> OrderedDict:
        """Coordinates a step later. Raises `ValueError` and `KeyError` for those that the model does not take."""
        tested, target = input_coords.copy(), self.input_coords()
        tested["lead_time"] = tested["lead_time"] - input_coords["lead_time"][-1]
        for place, key in enumerate(target):
            handshake_dim(tested, key, place)
            if key not in ("batch", "time"):
                handshake_coords(tested, target, key)
        found = self._coords(input_coords["lead_time"][-1:] + self.dt, self._outputs)
        found["batch"], found["time"] = input_coords["batch"], input_coords["time"]
        return found

    @batch_func()
    def __call__(self, x: Tensor, coords: OrderedDict) -> tuple[Tensor, OrderedDict]:
        """One step of forecasts from `x`, whose budgets are pinned to `x` itself."""
        found = self.output_coords(coords)
        out, _ = self._step(x, coords, None, number=round(coords["lead_time"][-1] / self.dt) + 1)
        return out, found

    def create_iterator(self, x: Tensor, coords: OrderedDict) -> Iterator[tuple[Tensor, OrderedDict]]:
        """The initial state and then the state after every step, without end."""
        self._members = _members(coords)  # of the batch, which the decorator numbers anew
        yield from self._default_generator(x, coords)

    @batch_func()
    def _default_generator(self, x: Tensor, coords: OrderedDict):
        members, self._members = self._members, None
        x, coords, anchor, number, restored = self._restored(x, coords.copy())
        self.output_coords(coords.copy())
        if not restored:
            anchor = self.stepper.anchor(self._states(x))
            self._save(x, coords, anchor, number)
            yield self._initial(x, coords)
        while True:
            x, coords = self.front_hook(x, coords)
            out, anchor = self._step(x, coords, anchor, number, members)
            out, found = self.rear_hook(out, self.output_coords(coords.copy()))
            x = torch.cat([x[:, :, 1:], out[:, :, :, : len(self._inputs)]], 2)
            coords = coords | {"lead_time": coords["lead_time"] + self.dt}
            number += 1
            self._save(x, coords, anchor, number)
            yield out, found.copy()

    @torch.no_grad()
    def _step(self, x: Tensor, coords: OrderedDict, anchor: Anchor | None, number: int, members=None):
        """Fields `(batch, time, 1, variable, lat, lon)` a step after `x`, and what the next step's budgets are pinned to."""
        batch, times = x.shape[:2]
        state = self._states(x)
        starts = [time.astype("datetime64[ns]") + coords["lead_time"][-1] for time in coords["time"]]
        rows = torch.arange(times).repeat(batch)
        given = self._given.inputs(starts).rows(rows).to(state.device)
        noise = self._noise(coords["time"], members, batch, number)
        anchor = self.stepper.anchor(state) if anchor is None else anchor
        result = self.stepper(state, given.forcing, given.clock, anchor, noise, **given.more())
        return self._fields(result.state, result.diagnostic).unflatten(0, (batch, times)).to(x), result.anchor

    def _states(self, x: Tensor) -> Tensor:
        """`(batch, time, lead_time, variable, lat, lon)` as states of the stepper, `(row, [history,] channel, lat, lon)`."""
        states = (x.flatten(0, 1) / self._factors(self._inputs, x)).float().to(self.stepper.device)
        return states[:, 0] if self.stepper.layout.history == 1 else states

    def _fields(self, state: Tensor, diagnostic: Tensor) -> Tensor:
        """`(row, 1, variable, lat, lon)`, missing where fields do not exist."""
        parts = []
        for fields, exists in ((state, self.stepper.exists), (diagnostic, self.stepper.diagnostic_exists)):
            parts.append(fields if exists is None else fields.masked_fill(~exists, torch.nan))
        return (torch.cat(parts, 1) * self._factors(self._outputs, state))[:, None]

    def _initial(self, x: Tensor, coords: OrderedDict) -> tuple[Tensor, OrderedDict]:
        """The last input time with the diagnostics of its time, missing where no analysis tells them."""
        names = [name.text for name in self._outputs[len(self._inputs) :]]
        known = self._given.fields([time + coords["lead_time"][-1] for time in coords["time"]], names).to(x)
        out = torch.cat([x[:, :, -1:], known[None, :, None].expand(len(x), *[-1] * 5)], 3)
        found = self._coords(coords["lead_time"][-1:], self._outputs)
        return out, found | {"batch": coords["batch"], "time": coords["time"]}

    def _noise(self, times, members: np.ndarray | None, batch: int, number: int) -> Tensor | None:
        if self.stepper.noise is None:
            return None
        members = np.arange(batch) if members is None else members
        named = [(time.astype("datetime64[ns]"), int(member)) for member in members for time in times]
        rows = self.stepper.noise.rows(forecast_key(self._seed, *name, number) for name in named)
        return rows.to(self.stepper.device)

    def _restored(self, x: Tensor, coords: OrderedDict) -> tuple:
        """Where a forecast goes on: from what earth2studio has restored, or from its beginning."""
        saved = self.restart
        if saved.checkpoint_level != 2 or not saved.checkpoint_state_loaded or saved.state is None:
            return x, coords, None, 1, False
        anchor = None if saved.dry_mass is None else Anchor(saved.dry_mass.to(self.stepper.device))
        coords["lead_time"] = np.asarray(saved.lead_times).copy()
        return saved.state.to(x), coords, anchor, saved.number, True

    def _save(self, x: Tensor, coords: OrderedDict, anchor: Anchor | None, number: int) -> None:
        saved = self.restart
        if not saved.checkpoint_enabled or saved.checkpoint_level != 2:
            return
        saved.state, saved.number = x.detach().clone().to(saved.device), number
        saved.dry_mass = None if anchor is None else anchor.dry_mass.detach().clone().to(saved.device)
        saved.lead_times = coords["lead_time"].copy()

    def _names(self, channels: Channels, saved: dict) -> list[Name]:
        """Names of channels; levels of the atmosphere are the checkpoint's, those on other axes where the layout says."""
        levels, values = saved["levels"], {}
        for name, count in zip(channels.names, channels.levels, strict=True):
            aloft = (entry := known(name)) is None or entry.vertical == "level"
            theirs = levels["values"] if levels and aloft and len(levels["values"]) == count else range(1, count + 1)
            values[name] = theirs if levels and aloft else self.stepper.layout.at.get(name, theirs)
        return names_of(channels, levels and levels["kind"], values, self._seconds)

    def _length_of(self, hours: float | None) -> int:
        made = self.stepper.layout.lengths
        if hours is None:
            return made[0]
        if (length := hours * 3600 / self._seconds) not in made:
            text = ", ".join(f"{each * self._seconds / 3600:g}" for each in made)
            raise ValueError(f"Expected step_hours among those of the network, {text}, got {hours:g}")
        return int(length)

    def _factors(self, names: list[Name], like: Tensor) -> Tensor:
        return torch.tensor([name.factor for name in names], device=like.device, dtype=torch.float32).view(-1, 1, 1)

    def _coords(self, leads: np.ndarray, names: list[Name]) -> OrderedDict:
        free = OrderedDict(batch=np.empty(0), time=np.empty(0))
        texts = np.array([name.text for name in names])
        place = {"lat": self._grid.latitude, "lon": self._grid.longitude}
        return free | OrderedDict(lead_time=leads.astype("timedelta64[ns]"), variable=texts) | place


def _members(coords: OrderedDict) -> np.ndarray | None:
    """The member of each element of the batch that coordinates before `time` make; None where they do not tell."""
    front = list(coords)[: list(coords).index("time")]
    if "ensemble" not in front:
        return None
    shape = [len(coords[key]) for key in front]
    place = front.index("ensemble")
    along = [1] * place + [-1] + [1] * (len(front) - place - 1)
    return np.broadcast_to(np.asarray(coords["ensemble"]).reshape(along), shape).ravel()
