"""One step of the emulator in physical units: normalise, predict the change, correct the budgets."""

import copy
import dataclasses

import torch
from torch import Tensor, nn

from emulator.data.channels import Layout
from emulator.data.normalisation import Normalizer
from emulator.model.noise import NetworkNoise
from emulator.model.scalars import Scalars
from emulator.model.stepper import StepResult

PLACE_FEATURES = 3  # position on the unit sphere


class Step(nn.Module):
    """The emulator's step from physical state to physical state.

    The network sees normalised fields and predicts the change of the prognostic fields, in units of the standard deviation
    of that change, and the normalised diagnostics. Two measures keep long rollouts bounded, and cost nothing where the
    training data lie. The step starts from damped persistence instead of persistence: a relaxation towards the mean of the
    training period at the rate that a linear forecast would choose, `1/2 (std of change / std about the mean)^2`. And its
    result is kept inside the envelope of the training data, cell by cell and widened by a margin; the corrections of the
    budgets come after that.

    Args:
      network: `(batch, in, *space) -> (batch, prognostic + diagnostic, *space)`.
      layout: names of the channels.
      buffers: see `StepBuffers`.
      scheme: conservation scheme or None, called outside autocast with fields by name.
      noise: of a stochastic network, the fields that callers draw for every step and member; else None.
      scalars: of a network that is conditioned on some, what they are; else None.
    """

    def __init__(
        self,
        network: nn.Module,
        layout: Layout,
        buffers: "StepBuffers",
        scheme=None,
        noise: NetworkNoise | None = None,
        scalars: Scalars | None = None,
    ):
        super().__init__()
        self.network, self.layout, self.scheme = network, layout, scheme
        self.noise, self.scalars = noise, scalars
        self.metadata: dict = {}  # of the checkpoint that it was loaded from, else empty
        self.loaded = ""  # digest of its tensors as they were loaded
        self.state_scale, self.diagnostic_scale = buffers.state, buffers.diagnostic
        self.forcing_scale = buffers.forcing
        for name in ("change_std", "lower", "upper", "damping", "resting", "static"):
            self.register_buffer(name, getattr(buffers, name))

    @classmethod
    def without_scheme(cls, step: "Step") -> "Step":
        """The same network and buffers with no corrections."""
        plain = copy.copy(step)
        plain.scheme = None
        return plain

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

    def anchor(self, state: Tensor):
        """What the budgets of a forecast from this state are pinned to."""
        return None if self.scheme is None else self.scheme.anchor(self.fields(state))

    def inputs(self, state: Tensor, forcing: Tensor, clock: Tensor) -> Tensor:
        """What the network sees, `(batch, in, *space)`."""
        normalised = torch.nan_to_num(self.forcing_scale(forcing))
        return torch.cat(
            [self.state_scale(state), normalised, clock, self.static.expand(len(state), *self.static.shape)], dim=1
        )

    def forward(
        self, state: Tensor, forcing: Tensor, clock: Tensor, anchor=None, noise: Tensor | None = None
    ) -> StepResult:
        """One step from `state`; arguments as one time of `emulator.data.samples.Batch`.

        Raises `ValueError` for noise that the network does not take, and for none where it takes some.
        """
        more = {} if noise is None else {"noise": noise}
        if (self.noise is None) != (noise is None):
            raise ValueError(
                f"Expected {'no ' * (self.noise is None)}noise for this network's step, got {len(more)} of it"
            )
        if self.scalars is not None:
            more["condition"] = self.scalars(self.forcing_scale(forcing), clock)
        predicted = self.network(self.inputs(state, forcing, clock), **more).float()
        change, diagnosed = predicted.split([self.layout.prognostic.count, self.layout.diagnostic.count], dim=1)
        following = state + (self.damping * (self.resting - state) + self.change_std * change)
        following = torch.minimum(torch.maximum(following, self.lower), self.upper)
        diagnostic = self.diagnostic_scale.inverse(diagnosed)
        if self.scheme is None:
            return StepResult(following, diagnostic, {})
        with torch.autocast(state.device.type, enabled=False):
            changed, record = self.scheme(self.fields(state), self.fields(following, diagnostic), anchor)
        mine = not torch.is_grad_enabled()  # both were made here, and no gradient needs them as they were
        following = self.layout.prognostic.replace(following, changed, mine)
        diagnostic = self.layout.diagnostic.replace(diagnostic, changed, mine)
        return StepResult(following, diagnostic, record, self.scheme.advance(anchor))


@dataclasses.dataclass(frozen=True)
class StepBuffers:
    """Constants of a step that travel in its checkpoint.

    Attributes:
      state, diagnostic, forcing: normalisers.
      change_std: standard deviation of the step difference, `(channel, 1, 1)`.
      lower, upper: envelope of the training data widened by the margin, `(channel, *space)`.
      damping: relaxation per step, `(channel, 1, 1)`, and resting: its target, `(channel, *space)`.
      static: features of the place: normalised static fields, and position, `(feature, *space)`.
    """

    state: Normalizer
    diagnostic: Normalizer
    forcing: Normalizer
    change_std: Tensor
    lower: Tensor
    upper: Tensor
    damping: Tensor
    resting: Tensor
    static: Tensor

    @classmethod
    def blank(cls, layout: Layout, space: tuple[int, ...]) -> "StepBuffers":
        """Placeholders of the right shapes, for a checkpoint to fill."""
        count, ones = layout.prognostic.count, [1] * len(space)
        features = layout.static.count + PLACE_FEATURES
        return cls(
            state=Normalizer.blank(count),
            diagnostic=Normalizer.blank(layout.diagnostic.count),
            forcing=Normalizer.blank(layout.forcing.count),
            change_std=torch.zeros(count, *ones),
            lower=torch.zeros(count, *space),
            upper=torch.zeros(count, *space),
            damping=torch.zeros(count, *ones),
            resting=torch.zeros(count, *space),
            static=torch.zeros(features, *space),
        )
