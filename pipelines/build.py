"""Configuration -> the parts of a training: channels, network, normalisation, loss, recipe, validation."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from emulator.conservation.penalties import Penalty
from emulator.data.channels import Channels, Layout
from emulator.data.normalisation import Normalizer, channel_statistics
from emulator.data.samples import Samples
from emulator.losses.ensemble import EnsembleError
from emulator.losses.scaled import ScaledError, channel_weights
from emulator.losses.spectral import SpectralError
from emulator.model.noise import NetworkNoise
from emulator.model.scalars import Scalars
from emulator.model.step import StepBuffers
from emulator.networks import registry
from emulator.planet.grid import Grid
from emulator.sphere.transform import SphericalTransform
from emulator.store.schema import levels_of, variables_by_role
from emulator.training.recipe import Phase, Recipe
from emulator.training.validation import Validation
from emulator.training.window import StepLoss
from pipelines.config import ConfigError, NetworkConfig, TrainConfig

log = logging.getLogger(__name__)
STATIC = ("geopotential_at_surface", "land_sea_mask")
CLOCK_FEATURES = 5
PLACE_FEATURES = 3


def layout(dataset: xr.Dataset, config: TrainConfig) -> Layout:
    """Channels by the configuration, or by the roles in the store. Raises `ConfigError` for a variable it lacks."""
    roles = variables_by_role(dataset)
    groups = {}
    for group in ("prognostic", "diagnostic", "forcing"):
        names = getattr(config, group)
        names = roles[group] if names is None else names
        if absent := [name for name in names if name not in dataset]:
            raise ConfigError(f"Expected {group} variables of {config.store}, it has none named {', '.join(absent)}")
        groups[group] = Channels.of(dataset, names)
    if not groups["prognostic"].names:
        raise ConfigError(f"Expected at least one prognostic variable in {config.store}, got none")
    return Layout(**groups, static=Channels.of(dataset, [name for name in STATIC if name in dataset]))


def network(config: NetworkConfig, channels: Layout, grid: Grid) -> torch.nn.Module:
    """The network of a configuration, freshly initialised. Raises `ConfigError` where it does not fit the grid."""
    outputs = channels.prognostic.count + channels.diagnostic.count
    try:
        return registry.build(config.model_dump(), input_count(channels), outputs, grid)
    except registry.NetworkError as error:
        raise ConfigError(str(error)) from error


def conditions(config: NetworkConfig, channels: Layout, grid: Grid) -> tuple[NetworkNoise | None, Scalars | None]:
    """What a network is told besides its input: noise and scalars, each None where it asks for none. `ConfigError`."""
    noise, names = getattr(config, "noise", None), getattr(config, "condition", None)
    try:
        return (
            NetworkNoise(grid, noise.length_scales, noise.channels, noise.correlation) if noise else None,
            Scalars(names, channels.forcing) if names else None,
        )
    except ValueError as error:
        raise ConfigError(f"The network {config.kind!r} cannot be told what it asks for: {error}") from error


def input_count(channels: Layout) -> int:
    """Channels that a network sees."""
    given = channels.prognostic.count + channels.forcing.count + channels.static.count
    return given + CLOCK_FEATURES + PLACE_FEATURES


def buffers(samples: Samples, statistics: xr.Dataset, config: TrainConfig) -> StepBuffers:
    """Normalisation, bounds, damping and static features from the training period."""
    prognostic = samples.layout.prognostic
    space = [1] * len(samples.grid.shape)
    change = changes(statistics, prognostic)
    if still := [label for label, value in zip(prognostic.labels(), change.tolist(), strict=True) if value == 0]:
        log.info("never change over the training period, and are held as they are: %s", ", ".join(still))
    resting, spread, lowest, highest = envelope(samples)
    widened = config.margin * (highest - lowest)
    damping = torch.where(change > 0, config.damping * 0.5 * (change / spread).square(), 0.0)

    def column(values):
        return values.float().view(-1, *space)

    return StepBuffers(
        state=Normalizer.of(statistics, prognostic),
        diagnostic=Normalizer.of(statistics, samples.layout.diagnostic),
        forcing=Normalizer.of(statistics, samples.layout.forcing),
        change_std=column(change),
        lower=lowest - widened,
        upper=highest + widened,
        damping=column(damping.clamp(max=1.0)),
        resting=resting.float(),
        static=static_features(samples.dataset, samples.layout.static, samples.grid),
    )


def changes(statistics: xr.Dataset, prognostic: Channels) -> torch.Tensor:
    """Std of a step's change by channel, float64 `(channel,)`; 0 for a level that never changes, as of cloud water aloft.

    Raises `ConfigError` for a variable of which no level changes.
    """
    change = channel_statistics(statistics, prognostic, "difference_std")
    if still := [name for name, where in prognostic.slices.items() if not (change[where] > 0).any()]:
        raise ConfigError(
            f"Expected prognostic variables that change over the training period, {', '.join(still)} does not: leave it "
            "out of train.prognostic"
        )
    return change


def envelope(samples: Samples) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Time mean `(channel, *space)`, area-mean std about it `(channel,)`, and lowest and highest `(channel, *space)` state.

    Of the times that are there, not of missing slots. Mean and std in float64. They and the extremes need no weighting by
    season: a period of whole years is the user's choice. Raises `ValueError` when every time is missing.
    """
    present = np.flatnonzero(~samples.missing)
    if not len(present):
        raise ValueError(
            f"Expected a state to train on from {samples.times[0]} to {samples.times[-1]}, all are missing"
        )
    area, first = torch.as_tensor(samples.grid.area), samples.state(int(present[0]))
    lowest, highest, total, square = first, first, first.double(), first.double().square()
    for index in present[1:]:
        field = samples.state(int(index))
        lowest, highest = torch.minimum(lowest, field), torch.maximum(highest, field)
        total += field
        square += field.double().square()
    mean = total / len(present)
    variance = ((square / len(present) - mean.square()).clamp(min=0) * area).flatten(1).sum(1)
    return mean, variance.sqrt(), lowest, highest


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


def loss(samples: Samples, statistics: xr.Dataset, config: TrainConfig, penalty: Penalty | None = None) -> StepLoss:
    asked, grid = config.loss, samples.grid
    if config.members > 1:
        scaled = error(samples, statistics, config, "l1" if asked.kind == "crps" else "mse")
        return StepLoss(EnsembleError(scaled, asked.kind, config.members), penalty)
    if asked.kind != "spectral":
        return StepLoss(error(samples, statistics, config, asked.kind, asked.delta), penalty)
    if grid.kind not in ("gaussian", "equiangular"):
        raise ConfigError(f"Expected a Gaussian or equiangular grid for the spectral loss, got {grid.describe()}")
    transform = SphericalTransform(*grid.shape, grid.kind, grid.has_poles)
    return StepLoss(SpectralError(error(samples, statistics, config), transform, asked.power), penalty)


def error(samples: Samples, statistics: xr.Dataset, config: TrainConfig, kind="mse", delta=1.0) -> ScaledError:
    """The error of a step, weighted by area, variable and level."""
    channels = samples.layout
    both = weights(samples.dataset, channels, config)
    scales = (
        channel_statistics(statistics, channels.prognostic, "difference_std"),
        channel_statistics(statistics, channels.diagnostic, "std"),
    )
    return ScaledError(torch.as_tensor(samples.grid.area), *scales, *both, kind, delta)


def weights(dataset: xr.Dataset, channels: Layout, config: TrainConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of the prognostic and diagnostic channels. Raises `ValueError` where the store has not what they ask for."""
    asked, levels = config.level_weights, levels_of(dataset)
    if asked == "mass" and levels is None:
        raise ConfigError(f"Expected levels that make up columns in {config.store} for level_weights mass, got none")
    by_level = None
    if asked == "mass":  # of the air in a layer over a ground at 1000 hPa
        by_level = torch.as_tensor(np.diff(levels.half_a + levels.half_b * 1e5))
    elif asked != "alike":
        by_level = torch.tensor(asked, dtype=torch.float64)
    return channel_weights(channels, config.variable_weights, config.diagnostic_weight, by_level)


def recipe(config: TrainConfig) -> Recipe:
    optimizer = config.optimizer
    return Recipe(
        phases=tuple(Phase(**phase.model_dump()) for phase in config.phases),
        lr=optimizer.lr,
        final_lr=optimizer.final_lr,
        warmup=optimizer.warmup_steps,
        betas=optimizer.betas,
        weight_decay=optimizer.weight_decay,
        clip=optimizer.clip,
        ema=config.ema,
        seed=config.seed,
        save_every=config.save_every,
        save_seconds=60 * config.save_minutes,
        log_every=config.log_every,
        keep=config.keep,
        precision=config.precision,
        checkpoint_steps=config.checkpoint_steps,
        retries=config.retries,
        **({} if config.loss_limit is None else {"loss_limit": config.loss_limit}),
        members=config.members,
    )


def validation(
    stores: Sequence[xr.Dataset], config: TrainConfig, error: torch.nn.Module, channels: Layout
) -> Validation | None:
    """What a training validates on, if anything, by a squared error, or a score of ensembles where it trains by one.

    Raises `ValueError` for a period that the stores lack.
    """
    asked = config.validation
    if asked is None:
        return None
    cache = int(config.cache_gigabytes * 1e9)
    paths = [config.store, *config.later_stores]
    samples = Samples(stores, channels, asked.period.start, asked.period.end, cache, paths, config.loader_threads)
    how = asked.every, asked.windows, asked.steps, asked.batch_size, asked.patience
    return Validation(samples, error, *how, members=config.members, squared=config.members == 1)
