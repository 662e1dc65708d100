"""The parts of a step from a store and its statistics: network, normalisation, bounds, static features."""

import logging
from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr
from torch import nn

from emulator.conservation.scheme import Scheme
from emulator.data.channels import Channels, Layout
from emulator.data.normalisation import Normalizer, channel_statistics
from emulator.data.samples import Samples
from emulator.model.bounds import MARGIN, bounds, envelope
from emulator.model.noise import NetworkNoise
from emulator.model.scalars import Scalars
from emulator.model.step import PLACE_FEATURES, Step, StepBuffers
from emulator.networks import registry
from emulator.planet.grid import Grid
from emulator.planet.insolation import CLOCK_FEATURES

log = logging.getLogger(__name__)


def input_count(channels: Layout) -> int:
    """Channels that a network sees."""
    given = channels.prognostic.count + channels.forcing.count + channels.static.count
    return given + len(CLOCK_FEATURES) + PLACE_FEATURES


def make_step(network: Mapping, channels: Layout, grid: Grid, buffers: StepBuffers, scheme: Scheme | None) -> Step:
    """A step with a freshly initialised network.

    Args:
      network: `kind` and options as in a configuration or a checkpoint's JSON.
    Raises `ValueError` for a network that does not fit the grid, or asks for noise or conditions that cannot be had.
    """
    return Step(make_network(network, channels, grid), channels, buffers, scheme, *conditions(network, channels, grid))


def make_network(network: Mapping, channels: Layout, grid: Grid) -> nn.Module:
    """The network alone, freshly initialised. Raises `ValueError` where it does not fit the grid."""
    outputs = channels.prognostic.count + channels.diagnostic.count
    return registry.build(network, input_count(channels), outputs, grid)


def conditions(network: Mapping, channels: Layout, grid: Grid) -> tuple[NetworkNoise | None, Scalars | None]:
    """What a network is given besides its inputs: noise and scalars, each None where it asks for none."""
    options = registry.options(network)
    noise, names = getattr(options, "noise", None), getattr(options, "condition", None)
    try:
        return (
            NetworkNoise(grid, noise.length_scales, noise.channels, noise.correlation) if noise else None,
            Scalars(names, channels.forcing) if names else None,
        )
    except ValueError as error:
        raise ValueError(f"The network {network['kind']!r} cannot be given what it asks for: {error}") from error


def buffers(
    samples: Samples,
    statistics: xr.Dataset,
    damping: float = 1.0,
    margin: float | Mapping[str, float] = MARGIN,
    kind: str = "envelope",
) -> StepBuffers:
    """Normalisation, bounds, damping and static features from the statistics.

    `damping`: share of the optimal linear relaxation; `margin`, `kind`: see `emulator.model.bounds.bounds`.
    """
    prognostic = samples.layout.prognostic
    space = [1] * len(samples.grid.shape)
    change = changes(statistics, prognostic)
    if constant := [label for label, value in zip(prognostic.labels(), change.tolist(), strict=True) if value == 0]:
        log.info("Constant in training, held fixed: %s", ", ".join(constant))
    found = envelope(samples, statistics)
    lower, upper = bounds(kind, margin, found, samples)
    relaxation = torch.where(change > 0, damping * 0.5 * (change / found.spread).square(), 0.0)

    def column(values):
        return values.float().view(-1, *space)

    return StepBuffers(
        state=Normalizer.of(statistics, prognostic),
        diagnostic=Normalizer.of(statistics, samples.layout.diagnostic),
        forcing=Normalizer.of(statistics, samples.layout.forcing),
        change_std=column(change),
        lower=lower,
        upper=upper,
        damping=column(relaxation.clamp(max=1.0)),
        resting=found.mean.float(),
        static=static_features(samples.dataset, samples.layout.static, samples.grid),
    )


def changes(statistics: xr.Dataset, prognostic: Channels) -> torch.Tensor:
    """Std of a step's change by channel, float64 `(channel,)`; 0 for a level that never changes, as of cloud water aloft.

    Raises `ValueError` for a variable of which no level changes.
    """
    change = channel_statistics(statistics, prognostic, "difference_std")
    if constant := [name for name, where in prognostic.slices.items() if not (change[where] > 0).any()]:
        raise ValueError(
            f"Expected prognostic variables that change over the training period, {', '.join(constant)} does not: leave it "
            "out of train.prognostic"
        )
    return change


def static_features(dataset: xr.Dataset, channels: Channels, grid: Grid) -> torch.Tensor:
    """Normalised static fields and the position on the unit sphere, `(feature, *space)` float32."""
    latitude, longitude = (np.radians(angle) for angle in grid.mesh())
    features = []
    for name in channels.names:
        field = np.asarray(dataset[name].values, np.float64)
        mean = grid.mean(field)
        std = np.sqrt(grid.mean((field - mean) ** 2))
        features.append((field - mean) / (std if std > 0 else 1.0))
    features += [np.sin(latitude), np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude)]
    return torch.from_numpy(np.stack(features)).float()
