"""The two networks of DYffusion (`emulator.generative.windows`), each told by its `condition` where in a window it is."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from emulator.generative.windows import InterpolatorOptions, windowed
from emulator.networks import registry
from emulator.networks.conditions import NoiseOptions, check_condition, noise_time
from emulator.networks.dropout import leaves_out
from emulator.networks.generative import with_time
from emulator.networks.signature import Signature
from emulator.planet.grid import Grid

PLACE = "where in a window it is"
INSTEAD = "windows of steps (dyffusion), whose members differ by the interpolator alone"


class Timed(nn.Module):
    """A network that is told a time between 0 and 1 as one more condition.

    Args:
      names: of what it is conditioned on besides. noise: channels of it that it is given.
    """

    def __init__(self, network: nn.Module, names: tuple[str, ...] = (), noise: int = 0):
        super().__init__()
        self.network, self.names, self.noise = network, names, noise

    def forward(
        self,
        x: Tensor,
        condition: Tensor | None = None,
        time: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """`(batch, in, *space)` to `(batch, out, *space)`; `condition`: `(batch, scalar)` where there are names.

        `time`: `(batch,)`; None: 0. `noise`: `(batch, channel, *space)`, of which it takes the first.
        """
        check_condition(condition, x, self.names)
        told = noise_time(x.new_zeros(len(x)) if time is None else time.to(x.dtype))
        more = {"noise": noise[:, : self.noise]} if self.noise else {}
        return self.network(x, condition=told if condition is None else torch.cat([condition, told], 1), **more).float()


class DYffusion(nn.Module):
    """Forecaster and interpolator. The latter keeps its weights and stays in evaluation mode, but for what it leaves out."""

    def __init__(self, forecaster: Timed, interpolator: Timed):
        super().__init__()
        self.forecaster, self.interpolator = forecaster, interpolator.requires_grad_(False)

    def train(self, mode: bool = True) -> "DYffusion":
        super().train(mode)
        self.interpolator.eval()
        return self

    def forward(self, x: Tensor, condition: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """The forecaster alone, at a window's start; the noise is the interpolator's."""
        return self.forecaster(x, condition)


def build(network: Mapping[str, Any], chosen: Mapping[str, Any], signature: Signature, grid: Grid) -> Timed | DYffusion:
    """The networks of an objective of windows, freshly initialised. Raises as `registry.build`.

    `signature`: of a step; an interpolator sees a second state.
    """
    second = [dataclasses.replace(channel, time=1) for channel in signature.outputs if channel.role == "state"]
    between = dataclasses.replace(signature, inputs=(*signature.inputs, *second))
    options = windowed(chosen)
    if isinstance(options, InterpolatorOptions):
        return _interpolator(network, between, grid)
    return DYffusion(_timed(network, signature, grid, INSTEAD), _interpolator(options.network, between, grid))


def noise_of(network: Mapping[str, Any], chosen: Mapping[str, Any]) -> NoiseOptions | None:
    """The random fields of a step of windows; None where its interpolator leaves out.

    Of every length scale there are those of two interpolations. One number more draws places in training.
    """
    options = windowed(chosen)
    inside = network if isinstance(options, InterpolatorOptions) else options.network
    noise = getattr(registry.options(inside), "noise", None)
    if noise and noise.style:
        raise registry.NetworkError(f"Expected network.noise.style 0 of an interpolator, got {noise.style}")
    return noise and dataclasses.replace(noise, channels=2 * noise.channels, style=1)


def _interpolator(network, signature, grid) -> Timed:
    if network.get("checkpointing"):
        raise registry.NetworkError(
            "Expected no network.checkpointing for an interpolator, whose blocks would leave out other things when computed "
            "again, got it"
        )
    made = _timed(network, signature, grid)
    if leaves_out(made) == bool(made.noise):
        raise registry.NetworkError(
            "Expected a network with either noise, or dropout or drop_path, for an interpolator, by which members differ, "
            f"got {network['kind']!r} with {'both' if made.noise else 'neither'}"
        )
    return made


def _timed(network, signature, grid, instead=None) -> Timed:
    counts = len(signature.inputs), len(signature.outputs)
    made = registry.build(with_time(network, PLACE, instead), *counts, grid, signature=signature)
    options = registry.options(network)
    noise = getattr(options, "noise", None)
    return Timed(made, tuple(options.condition), noise.count if noise else 0)
