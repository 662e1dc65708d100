"""What networks on maps share: the shape of what goes in and out, and blocks that are computed again or not."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from emulator.networks.conditions import NoiseModulation, check_condition, check_noise, noise_count, scalar_count
from emulator.networks.layers import linear
from emulator.options import Options


class MapNetwork(nn.Module):
    """A network on maps with the channels last in memory, whose `_output` is what it computes.

    Args:
      in_channels, out_channels: channels of the input and of the output. shape: rows and columns that it is given.
      options: with `noise`, `condition` and `checkpointing`.
    """

    def __init__(self, in_channels: int, out_channels: int, shape: tuple[int, int], options: Options):
        super().__init__()
        self.in_channels, self.out_channels, self.shape, self.options = in_channels, out_channels, shape, options

    def forward(
        self, x: torch.Tensor, condition: torch.Tensor | None = None, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """`(batch, in_channels, nlat, nlon)` -> `(batch, out_channels, nlat, nlon)`; of the own rows in a band.

        `condition`: `(batch, scalar)` and `noise`: `(batch, field, nlat, nlon)`, where the options ask for them.
        Raises `ValueError` for other shapes.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != (self.in_channels, *self.shape):
            raise ValueError(
                f"Expected an input of shape {('batch', self.in_channels, *self.shape)}, got {tuple(x.shape)}"
            )
        check_condition(condition, x, self.options.condition)
        check_noise(noise, x, noise_count(self.options.noise))
        maps = x.contiguous(memory_format=torch.channels_last)
        return self._output(maps, condition, noise).to(x.dtype).contiguous()

    def _run(self, block: nn.Module, *given):
        """What a block makes, computed again in the backward pass where the options ask for it."""
        if self.options.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *given, use_reentrant=False)
        return block(*given)


class MapModulation(nn.Module):
    """Scales and shifts maps by scalars of the sample and by noise; it starts at zero, and then changes no bit.

    Args:
      channels: of the maps. options: which may ask for a condition and for noise.
    """

    def __init__(self, channels: int, options: Options):
        super().__init__()
        scalars, noise = scalar_count(options.condition), noise_count(options.noise)
        self.condition = NoiseModulation(scalars, channels) if scalars else None
        self.noise = NoiseModulation(noise, channels) if noise else None

    def forward(
        self, x: torch.Tensor, condition: torch.Tensor | None = None, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Maps `(batch, channel, nlat, nlon)`, a condition `(batch, scalar)` and noise `(batch, field, nlat, nlon)`."""
        x = x.movedim(1, -1)
        if self.condition is not None:
            x = self.condition(x, condition[:, None, None])
        if self.noise is not None:
            x = self.noise(x, noise.movedim(1, -1))
        return x.movedim(-1, 1)


class Pointwise(nn.Conv2d):
    """1 x 1 convolution of maps, by the product that is fastest for channels that are last in memory."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, inputs, nlat, nlon)` -> `(batch, outputs, nlat, nlon)`."""
        return linear(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)


def start_at_zero(layer: nn.Conv2d, zero: bool) -> nn.Conv2d:
    """A last layer, whose weights and biases are zero at the start where asked."""
    if zero:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layer
