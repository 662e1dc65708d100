"""A network from coarse fields to fine ones: what it adds to the interpolated fields, and the means of coarse cells kept."""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from emulator.data.channels import Channels, Layout
from emulator.data.normalisation import Normalizer
from emulator.downscaling.conservative import Conservative
from emulator.downscaling.fields import first_guess
from emulator.downscaling.noise import InitialNoise
from emulator.downscaling.plan import Plan
from emulator.generative.objectives import Objective, objective
from emulator.networks import registry
from emulator.parallel.space import ALONE
from emulator.planet.grid import Grid
from emulator.planet.insolation import CLOCK_FEATURES

NONE = Channels((), ())


@dataclasses.dataclass(frozen=True)
class Scales:
    """Means and spreads over the training period, and features of the fine grid's places.

    Attributes:
      given: of what the network is given. made: of the targets at every step. residual: spread of what the fine truth adds to
        the interpolated fields with the coarse means, or to those of a network of the mean, `(made channel,)`. static:
        `(feature, *fine)`. noise: that samples begin as, with the spectrum of the residual.
    """

    given: Normalizer
    made: Normalizer
    residual: Tensor
    static: Tensor
    noise: InitialNoise

    @classmethod
    def blank(cls, plan: Plan, features: int, grid: Grid, degrees: int = 0) -> "Scales":
        """Placeholders for a checkpoint to fill; `degrees`: of the noise's spectra."""
        made = plan.made.count
        parts = Normalizer.blank(plan.given.count), Normalizer.blank(made)
        return cls(*parts, torch.ones(made), torch.zeros(features, *grid.shape), InitialNoise(grid, made, degrees))


class Downscaler(nn.Module):
    """From interpolated coarse fields to fine ones, in physical units. The trainer takes it in the place of a `Step`.

    Args:
      network: `(batch, in, *fine) -> (batch, made channel, *fine)`, or `Timed` of one with a generative objective.
      plan: fields. fine, coarse: grids. scales: see `Scales`. generative: None for a network that makes the mean.
      mean: a downscaler of the same fields and grids that makes the mean, about whose fields samples are then drawn. It is
        not trained further.
    """

    def __init__(
        self,
        network: nn.Module,
        plan: Plan,
        fine: Grid,
        coarse: Grid,
        scales: Scales,
        generative: Objective | None = None,
        mean: "Downscaler | None" = None,
    ):
        super().__init__()
        self.mean = None if mean is None else mean.requires_grad_(False).eval()
        self.network, self.plan, self.grid, self.coarse_grid = network, plan, fine, coarse
        self.given_scale, self.diagnostic_scale, self.state_scale = scales.given, scales.made, Normalizer.blank(0)
        self.register_buffer("residual_std", scales.residual.view(plan.steps, -1, 1, 1))
        self.register_buffer("static", scales.static)
        self.register_buffer("instant", torch.tensor(plan.by_channel(plan.instants)), persistent=False)
        self.keep = Conservative(fine, coarse)
        self.layout = Layout(prognostic=NONE, diagnostic=plan.made, forcing=NONE, static=NONE)
        self.noise, self.space, self.generative = None, ALONE, generative
        self.initial_noise = scales.noise
        self.metadata: dict = {}
        self.places: dict[
            str, tuple[Tensor, dict]
        ] = {}  # fields of the fine grid that do not change, and their attributes

    def train(self, mode: bool = True) -> "Downscaler":
        """As of any module; the network of the mean stays in evaluation mode."""
        super().train(mode)
        if self.mean is not None:
            self.mean.eval()
        return self

    @property
    def device(self) -> torch.device:
        return self.static.device

    def whole(self, name: str, tensor: Tensor) -> Tensor:
        """An entry of the state dict as a checkpoint has it, which one process holds whole."""
        return tensor

    own = whole

    def inputs(self, given: Tensor, clock: Tensor) -> Tensor:
        """What the network sees, `(batch, in, *fine)`."""
        static = self.static.expand(len(given), *self.static.shape)
        return torch.cat([self.given_scale(given), clock, static], dim=1)

    def guess(self, given: Tensor, coarse: Tensor) -> Tensor:
        """Interpolation with the coarse means, float64 `(batch, step, channel, *fine)`: what a network adds to."""
        return self.keep(first_guess(self.plan, given), coarse, self.instant)

    def centre(self, given: Tensor, clock: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """What a network adds to, float64 `(batch, step, channel, *fine)`, and what it sees, `(batch, in, *fine)`.

        That is interpolation with the coarse means; with a network of the mean its field, and the network sees what that one
        adds to interpolation too (as CorrDiff does, Mardani et al. 2024). Arguments as for `forward`.
        """
        guess, seen = self.guess(given, coarse), self.inputs(given, clock)
        if self.mean is None:
            return guess, seen
        with torch.no_grad():
            centre = self.mean.finished(self.mean.network(self.mean.inputs(given, clock)), guess, coarse)
        added = ((centre - guess) / self.mean.residual_std).flatten(1, 2).float()
        return centre, torch.cat([seen, added], dim=1)

    def finished(self, added: Tensor, guess: Tensor, coarse: Tensor) -> Tensor:
        """Fine fields `(batch, step, channel, *fine)`, float64, with the coarse means, of what a network adds to a guess."""
        shape = (self.plan.steps, self.plan.targets.count)
        fine = guess + added.unflatten(1, shape).double() * self.residual_std
        return self.keep(fine, coarse, self.instant)

    def forward(self, given: Tensor, clock: Tensor, coarse: Tensor) -> Tensor:
        """Fine fields of a deterministic network, float64 `(batch, step, channel, *fine)`; those below zero are let be.

        Args:
          given: interpolated inputs, `(batch, given channel, *fine)`. clock: `(batch, 5, *fine)`. coarse: `(batch, channel,
            *coarse)`, the targets' coarse fields.
        """
        guess, seen = self.centre(given, clock, coarse)
        return self.finished(self.network(seen), guess, coarse)

    def sample(
        self, about: tuple[Tensor, Tensor], coarse: Tensor, generator: torch.Generator, steps: int | None = None
    ) -> Tensor:
        """Fine fields drawn by a generative network, as `forward` gives them.

        Args:
          about: what `centre` gives, once for all samples of the same coarse fields. coarse: as for `forward`. generator: of
            the noise, on the fields' device. steps: of the sampler; None: as the objective has it.
        """
        centre, seen = about
        draws = self.generative.draws(steps)
        noise = self.drawn(draws * len(seen), generator, seen.device).unflatten(0, (draws, len(seen)))
        return self.finished(self.generative.integrate(self.network, noise, seen, steps), centre, coarse)

    def drawn(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Noise that samples begin as, `(count, made channel, *fine)`, in units of the residual."""
        noise = self.initial_noise(count, generator, device)
        return self.left_open(noise).float() if self.initial_noise.degrees else noise

    def left_open(self, added: Tensor) -> Tensor:
        """What `finished` adds to a guess that has the coarse means, in units of the residual, float64."""
        fields = added.unflatten(1, (self.plan.steps, self.plan.targets.count)).double() * self.residual_std
        none = fields.new_zeros(len(fields), self.plan.targets.count, *self.coarse_grid.shape)
        return (self.keep(fields, none, self.instant) / self.residual_std).flatten(1, 2)

    def without_negatives(self, fine: Tensor, coarse: Tensor, bounded: Tensor) -> Tensor:
        """Fields of channels that cannot be negative multiplied to the coarse means wherever one is below zero.

        `bounded`: whether a channel cannot, `(channel,)`.
        """
        wrong = ((fine < 0).flatten(3).any(-1).any(1) & bounded).nonzero(as_tuple=True)
        if len(wrong[0]):
            found = fine.transpose(1, 2)[wrong], coarse[wrong]  # (field, step, *fine) and (field, *coarse)
            kept = self.keep.positive(found[0].transpose(0, 1)[None], found[1][None], self.instant[wrong[1]])
            fine.transpose(1, 2)[wrong] = kept[0].transpose(0, 1)
        return fine


class Timed(nn.Module):
    """A network on maps as a generative objective calls it: the noisy fields, what they are made from, and the time as maps.

    Sines and cosines of the time tell a network close levels of the noise apart.
    """

    OCTAVES = 4
    features = 1 + 2 * OCTAVES

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, noisy: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """`(batch, channel, *space)`, `(batch,)` and `(batch, given, *space)` -> `(batch, channel, *space)`."""
        angles = [torch.pi * 2**n * time for n in range(self.OCTAVES)]
        told = torch.stack([time, *(f(angle) for angle in angles for f in (torch.sin, torch.cos))], dim=1)
        maps = told.view(*told.shape, *[1] * (noisy.dim() - 2)).expand(-1, -1, *noisy.shape[2:])
        return self.network(torch.cat([noisy, condition, maps.to(noisy.dtype)], dim=1))


def make_downscaler(
    config: Mapping, plan: Plan, fine: Grid, coarse: Grid, scales: Scales, mean: Downscaler | None = None
) -> Downscaler:
    """A downscaler with a freshly initialised network.

    `config`: with `network`, `kind` and `objective` as in `DownscalingOptions`. `mean`: of a generative one, or None. Raises
    `ValueError` for a network that does not fit.
    """
    asked = registry.options(config["network"])
    if getattr(asked, "noise", None) or getattr(asked, "condition", None):
        raise ValueError("Expected a network without noise and condition to downscale with, got one that is given them")
    given, made = plan.given.count + len(CLOCK_FEATURES) + len(scales.static), plan.made.count
    if config["kind"] == "deterministic":
        return Downscaler(registry.build(config["network"], given, made, fine), plan, fine, coarse, scales)
    given += 0 if mean is None else made
    network = registry.build(config["network"], made + given + Timed.features, made, fine)
    return Downscaler(Timed(network), plan, fine, coarse, scales, objective(config["objective"]), mean)
