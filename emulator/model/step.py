"""One step of the emulator in physical units: normalise, predict what comes, correct the budgets."""

import copy
import dataclasses

import torch
from torch import Tensor, nn

from emulator.data.channels import Channels, Layout, kept_within
from emulator.kernels.columns import whole
from emulator.kernels.fields import Part, finished, normalised
from emulator.kernels.library import alone
from emulator.model.gaps import REFUSED, TOLD, completed, filled, known_in
from emulator.model.given import expect_given
from emulator.model.in_parts import in_parts
from emulator.model.lengths import over_length
from emulator.model.noise import NetworkNoise, Seeds
from emulator.model.predictions import PREDICTIONS, Known
from emulator.model.scalars import Scalars
from emulator.model.step_buffers import StepBuffers
from emulator.model.stepper import StepResult, newest
from emulator.parallel.space import ALONE, Space
from emulator.planet.frame import Frame
from emulator.store.outflow import PREFIX

OF_PLACES = ("lower", "upper", "resting", "static", "exists", "diagnostic_exists")  # buffers `(channel, *space)`
# buffers of a frame inside the domain: its cells, the state's channels that are set there, and those of the boundary
FRAME = ("frame_cells", "frame_channels", "boundary_channels")


def _colour_noise(step: "Step", *_) -> None:
    """Draw noise of the spectra that a step holds, where it does, when it was given them or has loaded them."""
    if step.noise_power is not None:
        step.noise.colour(step.noise_power)


class Step(nn.Module):
    """The emulator's step from physical state to physical state.

    The network sees normalised fields and predicts, as `emulator.model.predictions` has it, the change of the prognostic
    fields, or the fields themselves, and the normalised diagnostics. Two measures keep long rollouts bounded, and cost
    nothing where the training data lie. Changes start from damped persistence instead of persistence: a relaxation towards
    the mean of the training period at the rate that a linear forecast would choose, `1/2 (std of change / std about the
    mean)^2`. And the result is kept inside the envelope of the training data, cell by cell and widened by a margin; the
    corrections of the budgets come after that. Where a field does not exist it is 0, as the network sees it and as it
    comes out, whatever went in.

    Args:
      network: `(batch, in, *space) -> (batch, prognostic + diagnostic, *space)`.
      layout: names of the channels, and what else shapes the step.
      buffers: see `StepBuffers`.
      scheme: conservation scheme or None, called outside autocast with fields by name.
      noise: of a stochastic network, the fields that callers draw for every step and member; else None.
      scalars: of a network that is conditioned on some, what they are; else None.
      predicts: the name of a kind of prediction.
      space: the processes that hold a state together. Fields are then those of this process's rows; the buffers, of whole
        fields, are cut to them, and `whole` and `own` change the names of a state dict between the two.
    """

    horizon = 1  # steps that belong together, see `emulator.model.windows`

    def __init__(
        self,
        network: nn.Module,
        layout: Layout,
        buffers: StepBuffers,
        scheme=None,
        noise: NetworkNoise | Seeds | None = None,
        scalars: Scalars | None = None,
        predicts: str = "change",
        space: Space = ALONE,
    ):
        super().__init__()
        self.diffusion: nn.Module | None = None  # of a rollout that asks for it, see `emulator.model.diffusion`
        self.diffused_by = ""  # what was asked for, as stores of forecasts tell it
        # of a rollout, see `emulator.model.bounds.released`: within which the network is shown states, and the kind of bounds
        self.shown: tuple[Tensor, Tensor] | None = None
        self.bounded_by = ""
        self.space, self._nlat = space, buffers.static.shape[1]
        self.network, self.layout, self.scheme = network, layout, scheme
        self.noise, self.scalars, self.prediction = noise, scalars, PREDICTIONS[predicts]
        self.metadata: dict = {}  # of the checkpoint that it was loaded from, else empty
        self.loaded = ""  # digest of its tensors as they were loaded
        self.rows = 0  # that a training runs the network on at a time, see `in_parts`; 0: all
        self.state_scale, self.diagnostic_scale = buffers.state, buffers.diagnostic
        self.forcing_scale, self.boundary_scale = buffers.forcing, buffers.boundary
        for name in FRAME:
            self.register_buffer(name, None, persistent=False)
        for name in ("change_std", "damping", "spread", *OF_PLACES):  # None is no part of a checkpoint
            value = getattr(buffers, name)
            self.register_buffer(name, space.cut(value) if value is not None and name in OF_PLACES else value)
        self.register_buffer("noise_power", None)  # see `begin_as`
        self.register_load_state_dict_post_hook(_colour_noise)

    @classmethod
    def without_scheme(cls, step: "Step") -> "Step":
        """The same network and buffers with no corrections."""
        plain = copy.copy(step)
        plain.scheme = None
        return plain

    def prescribe(self, frame: Frame) -> None:
        """Has every step end with the boundary's state in a frame of the domain's own cells; one outside changes nothing."""
        if not frame.is_inside:
            return
        border, own = self.layout.border, self.layout.prognostic.slices
        given = Channels(border.names, border.levels).slices
        ours, theirs = ([n for name in own for n in range(at[name].start, at[name].stop)] for at in (own, given))
        for name, index in zip(FRAME, (frame.index, ours, theirs), strict=True):
            self.register_buffer(name, torch.as_tensor(index, device=self.device), persistent=False)

    def begin_as(self, power: Tensor) -> None:
        """Has what is sampled begin as noise of a power by degree, `(network's output, degree)`, which checkpoints hold."""
        self.noise_power = power.float().to(self.device)
        _colour_noise(self)

    def whole(self, name: str, tensor: Tensor) -> Tensor:
        """An entry of the state dict as a checkpoint has it; all processes of a space ask together."""
        if name not in OF_PLACES or self.space.size == 1:
            return tensor
        gathered = self.space.whole(tensor.to(torch.uint8) if tensor.dtype is torch.bool else tensor, self._nlat)
        return gathered.to(tensor.dtype)

    def own(self, name: str, tensor: Tensor) -> Tensor:
        """What this process has of an entry of a checkpoint."""
        return self.space.cut(tensor) if name in OF_PLACES else tensor

    def at(self, number: int) -> "Step":
        """All steps are made by this one."""
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.change_std.device

    def fields(self, state: Tensor, diagnostic: Tensor | None = None) -> dict[str, Tensor]:
        """Fields by name: levels `(batch, level, *space)`, surface `(batch, *space)`."""
        named = self.layout.prognostic.unpack(state)
        return named if diagnostic is None else named | self.layout.diagnostic.unpack(diagnostic)

    def mean_diagnostic(self, like: Tensor) -> Tensor:
        """Diagnostics at their mean over the training period, of the shape of others."""
        mean = self.diagnostic_scale.inverse(torch.zeros_like(like))
        return kept_within(mean, self.diagnostic_exists)

    def anchor(self, state: Tensor):
        """What the budgets of a forecast from this state are pinned to."""
        if self.scheme is None:
            return None
        return self.scheme.anchor(self.fields(kept_within(newest(state, self.layout), self.exists)))

    def as_shown(self, state: Tensor) -> Tensor:
        """A state `(..., channel, *space)` as the network is shown it."""
        return state if self.shown is None else torch.clamp(state, *self.shown)

    def inputs(
        self,
        state: Tensor,
        forcing: Tensor,
        clock: Tensor,
        length: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """What the network sees, `(batch, in, *space)`; `known` as of `emulator.model.gaps`, None: all."""
        state = self.as_shown(state)
        static = self.static.expand(len(state), *self.static.shape)
        if self._fused and alone(state, forcing, clock, static):
            now, given = self.state_scale, self.forcing_scale
            parts = [Part(whole(state), now.mean, now.std), Part(whole(forcing), given.mean, given.std, gaps=True)]
            return normalised([*parts, Part(whole(clock)), Part(static)])
        if self.layout.history == 1:
            fields = kept_within(self.state_scale(state), self.exists)
        else:  # one time after the other
            times = self.state_scale(state.flatten(0, 1)).unflatten(0, state.shape[:2])
            fields = kept_within(times, self.exists).flatten(1, 2)
        parts = [fields, torch.nan_to_num(self.forcing_scale(forcing)), clock]
        parts.append(static)
        if len(self.layout.lengths) > 1:
            told = torch.log2(length).float().view(-1, 1, *[1] * (clock.dim() - 2))
            parts.append(told.expand(-1, 1, *clock.shape[2:]))
        if self.layout.gaps == TOLD:
            ones = clock.new_ones(len(clock), len(self.layout.prognostic.names), *clock.shape[2:])
            parts.append(ones if known is None else known.to(clock.dtype))
        return torch.cat(parts, dim=1)

    def forward(
        self,
        state: Tensor,
        forcing: Tensor,
        clock: Tensor,
        anchor=None,
        noise: Tensor | None = None,
        length: Tensor | float | None = None,
        reference: Tensor | None = None,
        boundary: Tensor | None = None,
        outflow: Tensor | None = None,
    ) -> StepResult:
        """One step from `state`; arguments as one time of `emulator.data.batch.Batch`.

        Of several lengths one comes as a number; to be told it by a tensor `(batch,)` the host waits for the device. Raises
        `ValueError` for noise, a length, a climatology, a boundary or an outflow that the step does not take, and for none
        where it needs it.
        """
        expect_given(self, noise, length, reference, boundary, outflow)
        common = self._common(length)
        if common is not None:
            length = torch.full((len(state),), common, dtype=torch.float64, device=state.device)
        state, known = kept_within(state, self.exists), None
        past = state[:, 1:] if self.layout.history > 1 else None  # lacks what it lacks until it is out of sight
        if self.layout.gaps != REFUSED:
            known = known_in(state, self.layout)
            state = filled(state, known, self.state_scale.mean, self.layout)
        more = {} if noise is None else {"noise": noise}
        if self.scalars is not None:
            more["condition"] = self.scalars(self.forcing_scale(forcing), clock, length)
        if boundary is not None:
            more["boundary"] = self.boundary_scale(boundary)
        predicted = in_parts(self.network, self.rows, self.inputs(state, forcing, clock, length, known), **more).float()
        now = newest(state, self.layout)
        made = self._finished(predicted, now, length, reference, known)
        closing = (None, None) if self.scheme is None else self._closing(length, common)
        return dataclasses.replace(self._ended(now, made, forcing, anchor, (boundary, outflow), closing), past=past)

    def _ended(
        self, now: Tensor, made: tuple[Tensor, Tensor], forcing: Tensor, anchor, outside: tuple, closing
    ) -> StepResult:
        """A step from the state and diagnostics that were made of it: diffused, and with budgets closed.

        `outside`: boundary and outflow, None each for none. `closing`: the scheme for the step's length, and its seconds, as
        `_closing` has them.
        """
        (following, diagnostic), (boundary, outflow) = made, outside
        if self.diffusion is not None:
            following = torch.clamp(self.diffusion(following, self.resting), self.lower, self.upper)
        if self.frame_cells is not None:
            following = self._with_frame(following, boundary)
        told = {} if outflow is None else dict(zip(self._outflows, outflow.unbind(1), strict=True))
        if self.scheme is None:
            return StepResult(following, diagnostic, told)
        with torch.autocast(now.device.type, enabled=False):
            fields = self.fields(now), self._given_fluxes(forcing) | self.fields(following, diagnostic)
            scheme, seconds = closing
            changed, record = scheme(*fields, anchor, seconds, outflow)
        mine = not torch.is_grad_enabled()  # both were made here, and no gradient needs them as they were
        following = kept_within(self.layout.prognostic.replace(following, changed, mine), self.exists)
        diagnostic = kept_within(self.layout.diagnostic.replace(diagnostic, changed, mine), self.diagnostic_exists)
        return StepResult(following, diagnostic, record | told, scheme.advance(anchor, outflow, seconds))

    def _with_frame(self, following: Tensor, boundary: Tensor) -> Tensor:
        """The state at the end of the step with that of the boundary in the frame, bit for bit."""
        flat, end = following.flatten(2).clone(), boundary[:, self.layout.border.count :]
        flat[:, self.frame_channels[:, None], self.frame_cells] = end[:, self.boundary_channels]
        return flat.view_as(following)

    def _given_fluxes(self, forcing: Tensor) -> dict[str, Tensor]:
        """What the budgets need of the forcing: means over the step, 0 where they do not exist."""
        known = {*self.layout.prognostic.names, *self.layout.diagnostic.names}
        if set(self.scheme.required) <= known:
            return {}
        given = self.layout.given.unpack(forcing)
        return {name: torch.nan_to_num(given[name]) for name in self.scheme.required if name not in known}

    @property
    def _outflows(self) -> list[str]:
        """Names of the records of what leaves the domain by its sides."""
        return [PREFIX + name for name in self.layout.border.outflow]

    @property
    def _fused(self) -> bool:
        """Whether all that is done to maps before and after the network is what the compiled passes do."""
        masked = self.exists is not None or self.diagnostic_exists is not None
        return self.layout.history == 1 and self.layout.lengths == (1,) and self.layout.gaps == REFUSED and not masked

    def _finished(self, predicted: Tensor, now: Tensor, length, reference, known=None) -> tuple[Tensor, Tensor]:
        """Fields at the end of the step, within the envelope, and diagnostics, from what the network predicts."""
        bounds, scales = (self.resting, self.lower, self.upper), (self.damping, self.change_std)
        if self._fused and self.prediction.damped and alone(predicted, now, *bounds, *scales):
            moments = self.diagnostic_scale.mean, self.diagnostic_scale.std
            return finished(predicted.contiguous(), whole(now), bounds, scales, moments)
        change, diagnosed = predicted.split([self.layout.prognostic.count, self.layout.diagnostic.count], dim=1)
        about = self.known(now, reference, length)
        following = self.prediction.following(about, change)
        if known is not None:
            following = completed(following, known, about, change, self.layout.prognostic)
        following = torch.minimum(torch.maximum(following, self.lower), self.upper)
        diagnostic = kept_within(self.diagnostic_scale.inverse(diagnosed), self.diagnostic_exists)
        return kept_within(following, self.exists), diagnostic

    def _common(self, length: Tensor | float | None) -> float | None:
        """The length of all rows where the network makes steps of several; raises `ValueError` for rows that differ."""
        if not isinstance(length, Tensor):
            return length
        if self.layout.lengths == (1,):  # calendar steps, which may differ
            return None
        found = set(length.tolist())
        if len(found) > 1:
            raise ValueError(f"Expected steps of one length in a batch, got {sorted(found)}")
        return found.pop()

    def _closing(self, length: Tensor | None, common: float | None) -> tuple:
        """The scheme for steps of a length, and their seconds where they are calendar months, which differ by row."""
        if self.layout.lengths != (1,):
            return self.scheme.lasting(float(common)), None
        return self.scheme, None if length is None else length * self.scheme.atmosphere.step_seconds

    def known(self, now: Tensor, reference: Tensor | None = None, length: Tensor | None = None) -> Known:
        """What the prediction starts from, for a state `(batch, channel, *space)`."""
        change, damping = self.change_std, self.damping
        if length is not None and self.layout.lengths != (1,):
            change, damping = over_length(change, damping, self.spread, length)
        space = [1] * (now.dim() - 2)
        mean, std = (values.view(-1, *space) for values in (self.state_scale.mean, self.state_scale.std))
        return Known(now, self.resting, mean, std, change, damping, self.spread, reference)
