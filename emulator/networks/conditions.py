"""What a network may be given at a step besides its inputs: random fields, and scalars of the sample."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn

from emulator.networks.layers import linear
from emulator.options import Options, option

TIME_OF_YEAR = "time_of_year"  # a condition of two scalars, sine and cosine of the day of the year
TIME_STEP = "time_step"  # of a network that makes steps of several lengths
NOISE_TIME = "noise_time"  # of a network that samples are drawn with: where between noise and sample it is
NOISE_TIME_FREQUENCIES = tuple(0.25 * 2.0**n for n in range(8))  # periods from 4 to 1/32 of the way


@dataclasses.dataclass(frozen=True)
class NoiseOptions(Options):
    """Gaussian random fields on the sphere, new at every step, that make a network stochastic (docs/models.md)."""

    length_scales: tuple[float, ...] = option(
        (2000.0, 500.0), "km, at which the correlation has fallen to 0.61; 0: white noise", minimum=0, shortest=1
    )
    channels: int = option(4, "independent fields of every length scale", minimum=1)
    correlation: float = option(0.0, "of a step's fields with those of the step before", minimum=0, below=1)
    style: int = option(
        0,
        "random numbers, the same everywhere, by which a network learns to make all its noise stronger or weaker",
        minimum=0,
        new=True,
        keyword=True,
    )

    @property
    def fields(self) -> int:
        """Channels that differ from place to place."""
        return len(self.length_scales) * self.channels

    @property
    def count(self) -> int:
        """Channels that are drawn: the fields, then the numbers of the style."""
        return self.fields + self.style


def noise_count(noise: NoiseOptions | None) -> int:
    """Channels of the noise that layers are given, 0 without."""
    return 0 if noise is None else noise.fields


def scalar_count(names: Sequence[str]) -> int:
    """Numbers that some conditions make."""
    several = {TIME_OF_YEAR: 2, NOISE_TIME: 2 * len(NOISE_TIME_FREQUENCIES)}
    return sum(several.get(name, 1) for name in names)


def noise_time(time: torch.Tensor) -> torch.Tensor:
    """Sines and cosines of times `(batch,)` between noise and sample, `(batch, scalar)`; about 1 of them is the whole way."""
    angles = 2 * torch.pi * time[:, None] * time.new_tensor(NOISE_TIME_FREQUENCIES)
    return torch.cat([angles.sin(), angles.cos()], 1)


class NoiseModulation(nn.Module):
    """Scales and shifts states by a linear map of noise at the same place; it starts at zero, and then changes no bit.

    No random number is drawn for it, so that the rest of a network starts as it would without noise.
    """

    def __init__(self, noise: int, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2 * channels, noise))

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """States `(..., channel)` and noise `(..., noise)`."""
        scale, shift = linear(noise, self.weight, None).to(x.dtype).chunk(2, -1)
        return torch.addcmul(x + shift, x, scale)


class NoiseStyle(nn.Module):
    """The strength of every field of the noise, from numbers that are drawn for the whole sphere at once.

    A field is multiplied by `exp(z . weight)` of standard normal numbers z. So a step's noise is weak or strong as a whole,
    as the style of the stochastic decomposition layers in miles-credit has it, and its amplitude log-normal. It starts at
    zero, which changes no bit, and draws no random number.
    """

    def __init__(self, noise: NoiseOptions):
        super().__init__()
        self.fields = noise.fields
        self.weight = nn.Parameter(torch.zeros(noise.fields, noise.style))

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        """Fields and numbers `(batch, field + number, *space)` to fields `(batch, field, *space)`."""
        fields, numbers = noise.split([self.fields, noise.shape[1] - self.fields], 1)
        strength = torch.exp(numbers.flatten(2)[..., 0] @ self.weight.T)
        return fields * strength.view(*strength.shape, *[1] * (noise.dim() - 2))


def noise_style(noise: NoiseOptions | None) -> NoiseStyle | None:
    """What makes fields for the layers of a network from all that is drawn; None where those are the fields themselves."""
    return NoiseStyle(noise) if noise is not None and noise.style else None


class Modulation(nn.Module):
    """Scales and shifts normalised states by the noise at the same place and by scalars of the sample, where there are any.

    It starts as nothing, as `NoiseModulation` does.

    Args:
      channels: of the states. given: the numbers of `noise` and of scalars (`condition`), in the order of the parameters.
    """

    def __init__(self, channels: int, **given: int):
        super().__init__()
        for name, count in given.items():
            setattr(self, name, NoiseModulation(count, channels) if count else None)

    def forward(
        self, x: torch.Tensor, condition: torch.Tensor | None = None, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """States `(cell, batch, channel)`, a condition `(batch, scalar)` and noise `(cell, batch, field)`."""
        x = x if self.condition is None else self.condition(x, condition)
        return x if self.noise is None else self.noise(x, noise)


class ModulatedNorm(nn.LayerNorm):
    """Normalisation of `(cell, batch, channel)` over the channels, with `Modulation`."""

    def __init__(self, channels: int, noise: int = 0, scalars: int = 0):
        super().__init__(channels)
        self.modulation = Modulation(channels, noise=noise, condition=scalars)

    def forward(
        self, x: torch.Tensor, condition: torch.Tensor | None = None, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        return self.modulation(super().forward(x), condition, noise)


class MapModulation(Modulation):
    """`Modulation` of maps.

    Args:
      channels: of the maps. options: which may ask for a condition and for noise.
    """

    def __init__(self, channels: int, options: Options):
        super().__init__(channels, condition=scalar_count(options.condition), noise=noise_count(options.noise))

    def forward(
        self, x: torch.Tensor, condition: torch.Tensor | None = None, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Maps `(batch, channel, nlat, nlon)`, a condition `(batch, scalar)` and noise `(batch, field, nlat, nlon)`."""
        return modulated(x, (self.condition, condition), (self.noise, noise))


def modulated(x: torch.Tensor, *given: tuple[NoiseModulation | None, torch.Tensor | None]) -> torch.Tensor:
    """Maps `(batch, channel, nlat, nlon)`, scaled and shifted by pairs of a modulation and what it is given.

    That is scalars `(batch, scalar)` or fields `(batch, field, nlat, nlon)`; a pair without a modulation changes nothing.
    """
    x = x.movedim(1, -1)
    for modulation, values in given:
        if modulation is not None:
            x = modulation(x, values[:, None, None] if values.ndim == 2 else values.movedim(1, -1))
    return x.movedim(-1, 1)


def check_condition(condition: torch.Tensor | None, x: torch.Tensor, names: Sequence[str]) -> None:
    """Raises `ValueError` unless a condition is `(batch, scalar)` for an input `(batch, ...)`; None for no `names`."""
    scalars = scalar_count(names)
    wanted = (len(x), scalars) if scalars else None
    came = None if condition is None else tuple(condition.shape)
    if came != wanted:
        raise ValueError(f"Expected a condition of shape {wanted}, got {came}")


def check_noise(noise: torch.Tensor | None, x: torch.Tensor, channels: int) -> None:
    """Raises `ValueError` unless noise is `(batch, channels, *space)` for an input `(batch, in, *space)`; None for none."""
    wanted = (len(x), channels, *x.shape[2:]) if channels else None
    came = None if noise is None else tuple(noise.shape)
    if came != wanted:
        raise ValueError(f"Expected noise of shape {wanted}, got {came}")
