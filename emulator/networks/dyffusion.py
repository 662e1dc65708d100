"""The two networks of DYffusion (`emulator.generative.windows`), each told by its `condition` where in a window it is."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from emulator.generative.windows import InterpolatorOptions, windowed
from emulator.networks import registry
from emulator.networks.conditions import check_condition, noise_time
from emulator.networks.dropout import leaves_out
from emulator.networks.generative import with_time
from emulator.planet.grid import Grid

PLACE = "where in a window it is"
INSTEAD = "windows of steps (dyffusion), whose members differ by what the interpolator leaves out"


class Timed(nn.Module):
    """A network that is told a time between 0 and 1 as one more condition.

    Args:
      names: of what it is conditioned on besides.
    """

    def __init__(self, network: nn.Module, names: tuple[str, ...] = ()):
        super().__init__()
        self.network, self.names = network, names

    def forward(self, x: Tensor, condition: Tensor | None = None, time: Tensor | None = None) -> Tensor:
        """`(batch, in, *space)` to `(batch, out, *space)`; `condition`: `(batch, scalar)` where there are names.

        `time`: `(batch,)`; None: 0.
        """
        check_condition(condition, x, self.names)
        told = noise_time(x.new_zeros(len(x)) if time is None else time.to(x.dtype))
        return self.network(x, condition=told if condition is None else torch.cat([condition, told], 1)).float()


class DYffusion(nn.Module):
    """Forecaster and interpolator. The latter keeps its weights and stays in evaluation mode, but for what it leaves out."""

    def __init__(self, forecaster: Timed, interpolator: Timed):
        super().__init__()
        self.forecaster, self.interpolator = forecaster, interpolator.requires_grad_(False)

    def train(self, mode: bool = True) -> "DYffusion":
        super().train(mode)
        self.interpolator.eval()
        return self

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """The forecaster alone, at a window's start."""
        return self.forecaster(x, condition)


def build(
    network: Mapping[str, Any], chosen: Mapping[str, Any], channels: tuple[int, int, int], grid: Grid
) -> Timed | DYffusion:
    """The networks of an objective of windows, freshly initialised. Raises as `registry.build`.

    `channels`: that a network sees, that it predicts, and those of a state, of which an interpolator sees a second one.
    """
    (inputs, outputs, state), options = channels, windowed(chosen)
    if isinstance(options, InterpolatorOptions):
        return _interpolator(network, inputs + state, outputs, grid)
    own = _timed(network, inputs, outputs, grid)
    return DYffusion(own, _interpolator(options.network, inputs + state, outputs, grid))


def _interpolator(network, inputs, outputs, grid) -> Timed:
    if network.get("checkpointing"):
        raise registry.NetworkError(
            "Expected no network.checkpointing for an interpolator, whose blocks would leave out other things when computed "
            "again, got it"
        )
    made = _timed(network, inputs, outputs, grid)
    if not leaves_out(made):
        raise registry.NetworkError(
            "Expected a network with dropout or drop_path for an interpolator, since members differ by what it leaves out, "
            f"got {network['kind']!r} without"
        )
    return made


def _timed(network, inputs, outputs, grid) -> Timed:
    made = registry.build(with_time(network, PLACE, INSTEAD), inputs, outputs, grid)
    return Timed(made, tuple(registry.options(network).condition))
