"""What a network learns so that fields can be sampled with it, and how: flow matching, stochastic interpolants, diffusion.

An objective adds noise to a target at a random level, has a network tell what it takes to get the target back, and integrates
what it tells from noise alone to a sample (`emulator.generative.samplers`). Shapes are the same everywhere:
`network(noisy (batch, channel, *space), time (batch,), condition (batch, given, *space)) -> (batch, channel, *space)`.

Targets should have about unit variance in every channel. Noise has unit variance; it may be white or smooth, as long as it is
the same in training and in sampling, since no formula here asks for its covariance. From `start`, a field that the target is
near to, only the difference is learned and sampled; then it is that which should have unit variance.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from emulator.generative.samplers import ordinary, stochastic
from emulator.options import Options, option
from emulator.registry import Registry

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclasses.dataclass(frozen=True)
class Objective(Options):
    """Base of objectives, which are options too."""

    kind: str = option()
    steps: int = option(8, "of the sampler, unless it is asked for another number", minimum=1)
    order: Literal[1, 2] = option(2, "of the sampler: 1 calls the network once a step, 2 twice and is far nearer")
    length_scale: float = option(
        0.0, "km, of the noise on the sphere, where its correlation has fallen to 0.61; 0: white", minimum=0, new=True
    )
    winds: Literal["components", "vectors"] = option(
        "components", "how noise of a length scale is drawn for winds: components apart, or as vectors", new=True
    )
    spectrum: Literal["length", "target"] = option(
        "length",
        "of the noise: by length_scale, or that of what is predicted, of every channel its own, measured before the training",
        new=True,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.winds == "vectors" and not self.length_scale:
            raise ValueError("Expected a length_scale above 0 with winds: vectors, got white noise")
        if self.spectrum == "target" and self.length_scale:
            raise ValueError(
                f"Expected no length_scale beside spectrum target, which takes its place, got {self.length_scale:g} km"
            )

    def draws(self, steps: int | None = None) -> int:
        """Fields of noise that a sample takes, each of the sample's shape."""
        return 1

    def error(
        self,
        network: Network,
        target: Tensor,
        condition: Tensor | None,
        level: Tensor,
        noise: Tensor,
        start: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """The loss of every sample, `(batch,)`, with given random numbers.

        Args:
          network: as above. target: `(batch, channel, *space)`. condition: passed on to the network.
          level: of the noise, uniform between 0 and 1, `(batch,)`. noise: of the target's shape, of unit variance.
          start: of the target's shape; None: zero.
          weights: of the squared errors, broadcast to `(channel, *space)`, of mean 1; None: all alike.
        """
        target = target if start is None else target - start
        squares = self.squares(network, target, condition, level, noise)
        return (squares if weights is None else squares * weights).flatten(1).mean(1)

    def loss(
        self,
        network: Network,
        target: Tensor,
        condition: Tensor | None,
        generator: torch.Generator | None = None,
        start: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """`error` with white noise and levels from a generator on the target's device, `(batch,)`."""
        drawn = {"generator": generator, "device": target.device, "dtype": target.dtype}
        level, noise = torch.rand(len(target), **drawn), torch.randn(target.shape, **drawn)
        return self.error(network, target, condition, level, noise, start, weights)

    def integrate(
        self,
        network: Network,
        noise: Tensor,
        condition: Tensor | None,
        steps: int | None = None,
        start: Tensor | None = None,
    ) -> Tensor:
        """The samples `(batch, channel, *space)` that noise `(draws, batch, channel, *space)` of unit variance leads to."""
        steps = self.steps if steps is None else steps
        if len(noise) != self.draws(steps):
            raise ValueError(f"Expected {self.draws(steps)} fields of noise for {steps} steps, got {len(noise)}")
        sample = self.integrated(network, noise, condition, steps)
        return sample if start is None else start + sample

    def sample(
        self,
        network: Network,
        shape: tuple[int, ...],
        condition: Tensor | None,
        generator: torch.Generator | None = None,
        steps: int | None = None,
        start: Tensor | None = None,
        device: torch.device | None = None,
    ) -> Tensor:
        """Samples of a shape `(batch, channel, *space)` from white noise of a generator; `device`: the condition's."""
        if device is None and condition is not None:
            device = condition.device
        noise = torch.randn((self.draws(steps), *shape), generator=generator, device=device)
        return self.integrate(network, noise, condition, steps, start)

    def squares(self, network, target, condition, level, noise) -> Tensor:
        """Squared errors of what the network tells, `(batch, channel, *space)`; `target` counts from the start."""
        raise NotImplementedError

    def integrated(self, network, noise, condition, steps) -> Tensor:
        """Samples, counted from the start."""
        raise NotImplementedError


OBJECTIVES: Registry[type[Objective]] = Registry("generative objective", __package__)


def objective(options: dict[str, Any]) -> Objective:
    """An objective from its `kind` and options. Raises `ValueError` for an unknown kind or option."""
    return OBJECTIVES[options.get("kind")].of(options)


def spread_over(values: Tensor, like: Tensor) -> Tensor:
    """One value a sample, `(batch,)`, as it broadcasts to `(batch, channel, *space)`."""
    return values.to(like.dtype).view(-1, *[1] * (like.dim() - 1))


def normal_quantile(level: Tensor) -> Tensor:
    """Standard normal values of uniform ones; finite for levels of 0 and 1 too."""
    tiny = 1e-6
    return torch.special.ndtri(level.double().clamp(tiny, 1 - tiny)).to(level.dtype)


@dataclasses.dataclass(frozen=True)
class FlowMatching(Objective):
    """Rectified flow (Liu, Gong and Liu 2022; Lipman et al. 2022): straight lines from noise at 0 to the target at 1.

    `x_t = (1 - t) noise + t target`; the network is told `t` and tells the velocity `target - noise`.
    """

    kind: Literal["flow_matching"] = option("flow_matching")
    levels: Literal["uniform", "logit_normal"] = option(
        "uniform", "how times are drawn in training; logit_normal: mostly from the middle (Esser et al. 2024)"
    )

    def squares(self, network, target, condition, level, noise):
        time = level if self.levels == "uniform" else torch.sigmoid(normal_quantile(level))
        t = spread_over(time, target)
        velocity = network((1 - t) * noise + t * target, time, condition)
        return (velocity - (target - noise)) ** 2

    def integrated(self, network, noise, condition, steps):
        def velocity(x, time):
            return network(x, x.new_full((len(x),), time), condition)

        return ordinary(velocity, noise[0], [k / steps for k in range(steps + 1)], self.order)


@dataclasses.dataclass(frozen=True)
class Interpolant(Objective):
    """A stochastic interpolant from the start to the target (Albergo et al. 2023; Chen et al. 2024, forecasting).

    Counted from the start, `x_s = s target + noise_level (1 - s) sqrt(s) noise`, that is a Brownian motion which fades. The
    network is told `s` and tells the drift, the mean of `target - noise_level sqrt(s) noise` given `x_s`; with it
    `dx = drift ds + noise_level (1 - s) dW` leads from the start itself to a sample.
    """

    kind: Literal["interpolant"] = option("interpolant")
    noise_level: float = option(1.0, "of the noise on the way, in units of the target's spread", above=0)

    def draws(self, steps=None):
        return self.steps if steps is None else steps

    def squares(self, network, target, condition, level, noise):
        s = spread_over(level, target)
        motion = self.noise_level * s.sqrt() * noise
        drift = network(s * target + (1 - s) * motion, level, condition)
        return (drift - (target - motion)) ** 2

    def integrated(self, network, noise, condition, steps):
        def drift(x, s):
            return network(x, x.new_full((len(x),), s), condition)

        times = [k / steps for k in range(steps + 1)]
        # the variance of the integral of (1 - s) dW over each step, which is exact
        sizes = [self.noise_level * math.sqrt(((1 - a) ** 3 - (1 - b) ** 3) / 3) for a, b in itertools.pairwise(times)]
        increments = [size * each for size, each in zip(sizes, noise, strict=True)]
        return stochastic(drift, torch.zeros_like(noise[0]), times, increments, self.order)


@dataclasses.dataclass(frozen=True)
class EDM(Objective):
    """Diffusion as Karras, Aittala, Aila and Laine (2022) have it: their preconditioning, noise levels and Heun sampler.

    The network sees `c_in x` and `ln(sigma) / 4`, and `c_skip x + c_out network` is the mean of the target given the noisy
    `x = target + sigma noise`.
    """

    kind: Literal["edm"] = option("edm")
    data_std: float = option(1.0, "of the target, in every channel", above=0)
    log_mean: float = option(-1.2, "mean of the logarithm of the noise's size in training")
    log_std: float = option(1.2, "its standard deviation", above=0)
    smallest: float = option(0.002, "size of the noise where the sampler ends", above=0)
    largest: float = option(80.0, "size of the noise where it begins", above=0)
    rho: float = option(7.0, "how much the sampler's levels crowd towards the smallest", above=0)
    path: Literal["size", "angle"] = option(
        "size",
        "what the sampler integrates along: the noise's size, as published, or arctan(size / data_std), along which samples "
        "of a Gaussian have its spread in a single step",
        new=True,
    )

    def denoised(self, network: Network, x: Tensor, sigma: Tensor, condition: Tensor | None) -> Tensor:
        """The mean of the target given noisy fields `(batch, channel, *space)` with noise of size `sigma`, `(batch,)`."""
        size, data = spread_over(sigma, x), self.data_std
        total = torch.sqrt(size**2 + data**2)
        told = network(x / total, sigma.log() / 4, condition)
        return (data / total) ** 2 * x + size * data / total * told

    def squares(self, network, target, condition, level, noise):
        sigma = torch.exp(self.log_mean + self.log_std * normal_quantile(level))
        size, data = spread_over(sigma, target), self.data_std
        wrong = self.denoised(network, target + size * noise, sigma, condition) - target
        return (size**2 + data**2) / (size * data) ** 2 * wrong**2

    def integrated(self, network, noise, condition, steps):
        if self.path == "angle":
            return self._along_the_angle(network, noise[0], condition, steps)

        def slope(x, sigma):
            return (x - self.denoised(network, x, x.new_full((len(x),), sigma), condition)) / sigma

        return ordinary(slope, self.largest * noise[0], self.sizes(steps), self.order, euler_end=True)

    def _along_the_angle(self, network, y, condition, steps):
        """With `x = sqrt(sigma^2 + data_std^2) y` the same is `dy/dangle = -network` (TrigFlow, Lu and Song 2024)."""

        def slope(y, angle):
            size = max(self.smallest, self.data_std * math.tan(angle))
            return -network(y, y.new_full((len(y),), math.log(size) / 4), condition)

        largest = math.atan(self.largest / self.data_std)
        angles = [largest * (1 - k / steps) for k in range(steps + 1)]
        return self.data_std * ordinary(slope, y, angles, self.order)

    def sizes(self, steps: int) -> list[float]:
        """The sampler's levels, from the largest to 0 after `steps` steps (equation 5)."""
        top, low = self.largest ** (1 / self.rho), self.smallest ** (1 / self.rho)
        return [(top + k / max(steps - 1, 1) * (low - top)) ** self.rho for k in range(steps)] + [0.0]


for each in (FlowMatching, Interpolant, EDM):
    OBJECTIVES.register(each.kind, each)
