"""Fine fields of some intervals of a store: its fields read, a network or interpolation applied, members drawn."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulator.downscaling.downscaler import Downscaler
from emulator.downscaling.fields import Interpolation, clock_of, first_guess, given_to
from emulator.downscaling.options import ApplyOptions
from emulator.store.schema import grid_of, time_step_seconds


class Making:
    """What a trained network makes of a coarse store, `axis` of which is its time, or the leads of its forecasts.

    Args:
      step: as `load_downscaler` gives it. dataset: the store. options: see `ApplyOptions`. name: of the store in messages.

    Raises `ValueError` in one sentence for a store on another grid, of another step, or without a field of the network, and
    for members of a network that makes one field of another.
    """

    def __init__(self, step: Downscaler, dataset: xr.Dataset, options: ApplyOptions, name: object):
        self.step, self.dataset, self.options, self.plan = step, dataset, options, step.plan
        self.axis = "lead_time" if "lead_time" in dataset.dims else "time"
        self._check(name)
        positive = {*step.plan.positive, *options.at_least_zero}
        self._bounded = torch.tensor(step.plan.by_channel([n in positive for n in step.plan.targets.names]))
        self._interpolation = Interpolation(step.coarse_grid, step.grid)
        self.given_members = dataset.sizes.get("member", 0)
        drawn = options.members if options.method == "network" else 1
        self.members = max(1, self.given_members) * drawn if self.given_members or drawn > 1 else 0

    def _check(self, name: object) -> None:
        def refuse(what: str, expected: object, got: object) -> None:
            raise ValueError(f"Expected {what} {expected} as the downscaling network has, store {name} has {got}")

        grid, wanted = grid_of(self.dataset), self.step.coarse_grid
        if not grid.same_as(wanted):
            refuse("the grid", wanted.describe(), grid.describe())
        seconds, own = time_step_seconds(self.dataset), self.plan.seconds * self.plan.steps
        if self.dataset.sizes[self.axis] > 1 and abs(seconds - own) > 1e-3:
            refuse("a step of", f"{own / 3600:g} h", f"{seconds / 3600:g} h")
        for variable, count in zip(self.plan.inputs.names, self.plan.inputs.levels, strict=True):
            if variable not in self.dataset:
                refuse("variable", variable, f"only {', '.join(sorted(map(str, self.dataset.data_vars)))}")
            field = self.dataset[variable]
            levels = [field.sizes[d] for d in field.dims if d not in ("init_time", *self._front, *grid.dims)]
            if (levels or [0])[0] != count:
                refuse(f"{variable} on", f"{count} levels", f"{(levels or [0])[0]}")
        if unknown := set(self.options.at_least_zero) - set(self.plan.targets.names):
            names = ", ".join(self.plan.targets.names)
            raise ValueError(f"Expected at_least_zero among the targets {names}, got {', '.join(sorted(unknown))}")
        if self.options.members > 1 and self.step.generative is None and self.options.method == "network":
            raise ValueError(
                f"Expected members of a generative network, got {self.options.members} of one that makes the mean"
            )

    @property
    def _front(self) -> tuple[str, str]:
        return self.axis, "member"

    @property
    def first(self) -> int:
        """Position of the first time that ends an interval which can be made: with several steps its start is needed."""
        return 0 if self.plan.steps == 1 else 1

    def fields(self, part: xr.Dataset, at: slice, ends: Sequence) -> dict[str, np.ndarray]:
        """Fine fields `(fine time, [member,] [level,] *fine)`, float32, of the intervals that end at positions of a dataset.

        Args:
          part: the store, or one of its forecasts. at: positions along the axis, from `first` on. ends: their times. What
          follows from values that are missing is missing.
        """
        end = self._read(part, at)
        before = end if self.plan.steps == 1 else self._read(part, slice(at.start - 1, at.stop - 1))
        count, several = len(ends), max(1, self.given_members)
        coarse, whole = end[:, self.plan.target_inputs], torch.isfinite(end).flatten(1).all(1)
        given = given_to(self.plan, before, end)
        whole &= torch.isfinite(given).flatten(1).all(1)
        given, coarse = (torch.nan_to_num(x) for x in (self._interpolation(given), coarse))
        clock = clock_of(ends, self.plan, self.step.grid).repeat_interleave(several, 0)
        made = list(self._made(given, clock, coarse, str(ends[0])))
        fine = torch.stack(made, dim=1)  # (interval and member, drawn, step, channel, *space)
        fine[~whole] = torch.nan
        fine = fine.unflatten(0, (count, several)).flatten(1, 2).movedim(1, 2).flatten(0, 1)  # (fine time, member, ...)
        fields = self.plan.targets.unpack(fine.float(), axis=2)
        return {n: (field if self.members else field[:, 0]).cpu().numpy() for n, field in fields.items()}

    @torch.inference_mode()
    def _made(self, given: Tensor, clock: Tensor, coarse: Tensor, first: str) -> Iterator[Tensor]:
        """Fine fields of every interval, of one member after the other, `(batch, step, channel, *fine)`."""
        step, device = self.step, self.step.device
        if self.options.method == "bilinear":
            yield first_guess(self.plan, given).double()
            return
        given, clock, coarse, bounded = (x.to(device) for x in (given, clock, coarse, self._bounded))
        if step.generative is None:
            yield step.without_negatives(step(given, clock, coarse), coarse, bounded).cpu()
            return
        about = step.centre(given, clock, coarse)
        for number in range(self.options.members):
            text = f"{self.options.seed} {number} {first}"
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
            generator = torch.Generator(device).manual_seed(seed)
            fine = step.sample(about, coarse, generator, self.options.sampling_steps)
            yield step.without_negatives(fine, coarse, bounded).cpu()

    def _read(self, part: xr.Dataset, at: slice) -> Tensor:
        """Inputs `(time and member, channel, *coarse)`."""
        found = []
        for name in self.plan.inputs.names:
            values = np.asarray(part[name].isel({self.axis: at}).values, np.float32)
            if self.given_members and "member" not in part[name].dims:
                values = np.repeat(values[:, None], self.given_members, 1)
            space = len(self.step.coarse_grid.shape)
            lead = values.shape[0] * max(1, self.given_members)
            found.append(torch.from_numpy(values.reshape(lead, -1, *values.shape[values.ndim - space :])))
        return torch.cat(found, dim=1)
