"""What networks share: the checks of what they are given, and blocks that are computed again or not."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from emulator.networks.conditions import check_condition, check_noise, noise_style
from emulator.options import Options
from emulator.parallel.space import ALONE, Space


class GridNetwork(nn.Module):
    """A network on the cells of a grid, which refuses what has other shapes; `_output` is what it computes.

    Args:
      in_channels, out_channels: channels of the input, all its times together, and of the output.
      shape: of the cells that it is given. options: with `noise` and `checkpointing`, and `condition` or not.
    """

    def __init__(self, in_channels: int, out_channels: int, shape: tuple[int, ...], options: Options):
        super().__init__()
        self.in_channels, self.out_channels, self.shape, self.options = in_channels, out_channels, tuple(shape), options
        self.noise_style = noise_style(options.noise)

    def forward(
        self, x: torch.Tensor, condition: torch.Tensor | None = None, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """`(batch, in_channels, *shape)` -> `(batch, out_channels, *shape)`; of the own rows in a band.

        `condition`: `(batch, scalar)` and `noise`: `(batch, field, *shape)`, where the options ask for them.
        Raises `ValueError` for other shapes.
        """
        self._check(x, condition, noise)
        if self.noise_style is not None:
            noise = self.noise_style(noise)
        return self._output(x, condition, noise)

    def _check(self, x, condition, noise):
        if tuple(x.shape[1:]) != (self.in_channels, *self.shape):
            raise ValueError(
                f"Expected an input of shape {('batch', self.in_channels, *self.shape)}, got {tuple(x.shape)}"
            )
        check_condition(condition, x, getattr(self.options, "condition", ()))
        check_noise(noise, x, self.options.noise.count if self.options.noise else 0)

    def _run(self, block: nn.Module, *given):
        """What a block makes, computed again in the backward pass where the options ask for it."""
        if self.options.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *given, use_reentrant=False)
        return block(*given)


class MapNetwork(GridNetwork):
    """A network on maps with the channels last in memory, whose `_map` is what it computes.

    Args:
      in_channels, out_channels, options: as above. shape: rows and columns of the whole grid.
      space: processes that hold a state together, each a band of rows.
    """

    def __init__(
        self, in_channels: int, out_channels: int, shape: tuple[int, int], options: Options, space: Space = ALONE
    ):
        band = space.band(shape[0])
        super().__init__(in_channels, out_channels, (band.stop - band.start, shape[1]), options)

    def _output(self, x, condition, noise):
        maps = x.contiguous(memory_format=torch.channels_last)
        return self._map(maps, condition, noise).to(x.dtype).contiguous()
