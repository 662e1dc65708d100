"""Configuration -> objects: the only bridge between the two."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr

from emulator import checkpoint
from emulator.channels import Channels, Layout
from emulator.conservation import build as build_scheme
from emulator.conservation.anchors import Unaccounted, truth_residuals
from emulator.conservation.atmosphere import Atmosphere
from emulator.conservation.checks import check_means, check_units
from emulator.conservation.penalties import Penalty
from emulator.conservation.scheme import Options, Scheme, make_budgets
from emulator.constants import Constants
from emulator.dataset import Samples
from emulator.grid import Grid
from emulator.losses import ScaledError, channel_weights
from emulator.normalize import Normalizer, channel_statistics
from emulator.spectral_loss import SpectralError
from emulator.spherical import SphericalTransform
from emulator.step import Step, StepBuffers
from emulator.store import constants_of, grid_of, levels_of, time_step_seconds, variables_by_role
from emulator.training.recipe import Phase, Recipe
from emulator.training.validation import Validation
from emulator.training.window import StepLoss
from emulator.vertical import Levels
from pipelines.config import ConfigError, ConservationConfig, NetworkConfig, TrainConfig
from pipelines.load import parse
from pipelines.networks import make_network

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
    return make_network(config, input_count(channels), outputs, grid)


def input_count(channels: Layout) -> int:
    """Channels that a network sees."""
    given = channels.prognostic.count + channels.forcing.count + channels.static.count
    return given + CLOCK_FEATURES + PLACE_FEATURES


def buffers(samples: Samples, statistics: xr.Dataset, config: TrainConfig) -> StepBuffers:
    """Normalisation, bounds, damping and static features from the training period."""
    prognostic = samples.layout.prognostic
    space = [1] * len(samples.grid.shape)
    change = channel_statistics(statistics, prognostic, "difference_std")
    if not (change > 0).all():
        labels = [label for label, value in zip(prognostic.labels(), change.tolist(), strict=True) if not value > 0]
        raise ConfigError(f"Expected prognostic variables that change over the training period, {labels} do not")
    resting, spread, lowest, highest = envelope(samples)
    widened = config.margin * (highest - lowest)
    damping = config.damping * 0.5 * (change / spread).square()

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


def envelope(samples: Samples) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Time mean `(channel, *space)`, area-mean std about it `(channel,)`, and lowest and highest `(channel, *space)` state.

    Mean and std in float64. They and the extremes need no weighting by season: a period of whole years is the user's choice.
    """
    area = torch.as_tensor(samples.grid.area)
    lowest, highest = samples.state(0).clone(), samples.state(0).clone()
    total, square = torch.zeros_like(lowest, dtype=torch.float64), torch.zeros_like(lowest, dtype=torch.float64)
    for index in range(len(samples)):
        if samples.missing[index]:
            continue
        field = samples.state(index)
        lowest, highest = torch.minimum(lowest, field), torch.maximum(highest, field)
        total += field
        square += field.double().square()
    count = int((~samples.missing).sum())
    mean = total / count
    variance = ((square / count - mean.square()).clamp(min=0) * area).flatten(1).sum(1)
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
    if asked.kind != "spectral":
        return StepLoss(error(samples, statistics, config, asked.kind, asked.delta), penalty)
    if grid.kind not in ("gaussian", "equiangular"):
        raise ConfigError(f"Expected a Gaussian or equiangular grid for the spectral loss, got {grid.describe()}")
    transform = SphericalTransform(*grid.shape, grid.kind, _has_poles(grid))
    return StepLoss(SpectralError(error(samples, statistics, config), transform, asked.power), penalty)


def error(samples: Samples, statistics: xr.Dataset, config: TrainConfig, kind="mse", delta=1.0) -> ScaledError:
    """The error of a step, weighted by area, variable and level."""
    channels = samples.layout
    weights = channel_weights(channels, config.variable_weights, config.diagnostic_weight)
    scales = (
        channel_statistics(statistics, channels.prognostic, "difference_std"),
        channel_statistics(statistics, channels.diagnostic, "std"),
    )
    return ScaledError(torch.as_tensor(samples.grid.area), *scales, *weights, kind, delta)


def _has_poles(grid: Grid) -> bool:
    return grid.kind == "equiangular" and bool(abs(grid.latitude[0]) > 90 - 1e-6)


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
        log_every=config.log_every,
        keep=config.keep,
        precision=config.precision,
        checkpoint_steps=config.checkpoint_steps,
        retries=config.retries,
    )


def validation(dataset: xr.Dataset, config: TrainConfig, error: torch.nn.Module, channels: Layout) -> Validation | None:
    """What a training validates on, if anything. Raises `ValueError` for a period that the store lacks."""
    asked = config.validation
    if asked is None:
        return None
    cache = int(config.cache_gigabytes * 1e9)
    samples = Samples(dataset, channels, asked.period.start, asked.period.end, cache)
    return Validation(samples, error, asked.every, asked.windows, asked.steps, asked.batch_size, asked.patience)


def metadata(config: TrainConfig, samples: Samples, scheme_state: dict) -> dict:
    """Everything but the tensors that a checkpoint needs to be used without the store it was trained on."""
    dataset, levels = samples.dataset, levels_of(samples.dataset)
    return {
        "schema": "checkpoint-1",
        "config": json.loads(config.model_dump_json()),
        "layout": samples.layout.to_json(),
        "grid": {"latitude": samples.grid.latitude.tolist(), "longitude": samples.grid.longitude.tolist()},
        "levels": None
        if levels is None
        else {k: v if isinstance(v, str) else v.tolist() for k, v in dataclasses.asdict(levels).items()},
        "constants": json.loads(constants_of(dataset).to_json()),
        "step_seconds": time_step_seconds(dataset),
        "period": [str(samples.times[0]), str(samples.times[-1])],
        "store": {key: dataset.attrs.get(key) for key in ("fingerprint", "source")},
        "scheme": scheme_state,
    }


def load_step(path: Path) -> tuple[Step, dict]:
    """The trained step of a checkpoint, in evaluation mode, and its metadata. Raises `CheckpointError`."""
    tensors, saved = checkpoint.load(path)
    if saved.get("schema") != "checkpoint-1":
        raise checkpoint.CheckpointError(
            f"Expected a checkpoint of schema checkpoint-1 at {path}, got {saved.get('schema')!r}"
        )
    config = parse(TrainConfig, saved["config"], str(path))
    channels, grid = Layout.from_json(saved["layout"]), _grid(saved)
    net = network(config.network, channels, grid)
    step = Step(net, channels, StepBuffers.blank(channels, grid.shape), restore_scheme(saved, config, grid))
    step.load_state_dict(tensors)
    return step.eval(), saved


def _grid(saved: dict) -> Grid:
    return Grid.from_coordinates(saved["grid"]["latitude"], saved["grid"]["longitude"])


def _levels(saved: dict) -> Levels | None:
    values = saved["levels"]
    if values is None:
        return None
    return Levels(values["kind"], *(np.asarray(values[name]) for name in ("values", "half_a", "half_b")))


def check_match(saved: dict, dataset: xr.Dataset, checkpoint_path: Path, store_path: Path) -> None:
    """Raises `ConfigError`, naming both sides, unless a checkpoint can run on a store's states and forcing."""

    def refuse(what, expected, got):
        raise ConfigError(
            f"Expected {what} {expected} as checkpoint {checkpoint_path} has, store {store_path} has {got}"
        )

    grid, other = _grid(saved), grid_of(dataset)
    if not grid.same_as(other):
        refuse("the grid", grid.describe(), other.describe())
    seconds = time_step_seconds(dataset)
    if seconds != saved["step_seconds"]:
        refuse("a time step of", f"{saved['step_seconds'] / 3600:g} h", f"{seconds / 3600:g} h")
    channels = Layout.from_json(saved["layout"])
    for group in (channels.prognostic, channels.diagnostic, channels.forcing):
        for name, count in zip(group.names, group.levels, strict=True):
            if name not in dataset:
                refuse("variable", name, f"only {', '.join(sorted(map(str, dataset.data_vars)))}")
            levels = dataset.sizes["level"] if "level" in dataset[name].dims else 0
            if levels != count:
                refuse(f"{name} on", f"{count} levels", f"{levels}")
    levels, others = _levels(saved), levels_of(dataset)
    if levels is not None and any(channels.prognostic.levels):
        if others is None or levels.kind != others.kind or not np.allclose(levels.values, others.values, rtol=1e-4):
            refuse(
                "levels",
                f"{levels.kind} {levels.values.tolist()}",
                f"{others and (others.kind, others.values.tolist())}",
            )


class Conservation(NamedTuple):
    """What keeps the budgets of a training: hard corrections, soft penalty, and what a checkpoint keeps of them."""

    scheme: Scheme | None
    penalty: Penalty | None
    saved: dict


def conservation(config: ConservationConfig, samples: Samples, statistics: xr.Dataset) -> Conservation:
    """Scheme and penalty, with constant residuals and tolerances estimated from the training data.

    Raises `ValueError` for a flux of the wrong unit or sign, or one that a budget lacks.
    """
    if not config.budgets or (config.kind == "none" and not config.penalty):
        return Conservation(None, None, {})
    channels, dataset = samples.layout, samples.dataset
    atmosphere = Atmosphere(
        area=torch.as_tensor(samples.grid.area),
        levels=levels_of(dataset),
        constants=constants_of(dataset),
        geopotential_at_surface=_orography(dataset),
        step_seconds=time_step_seconds(dataset),
        has_surface_pressure="surface_pressure" in channels.prognostic.names,
    )
    names = (*channels.prognostic.names, *channels.diagnostic.names)
    check_units({name: dict(dataset[name].attrs) for name in names})
    check_means({n: float(statistics[n].sel(statistic="mean").mean()) for n in names}, atmosphere.constants)
    orography = atmosphere.geopotential_at_surface
    saved = {
        "variances": {
            name: np.atleast_1d(statistics[name].sel(statistic=kind).values ** 2).tolist()
            for group, kind in ((channels.prognostic, "difference_std"), (channels.diagnostic, "std"))
            for name in group.names
        },
        "orography": None if orography is None else orography.tolist(),
    }
    found = truth_residuals(
        make_budgets(_options(config, {}), atmosphere, names).values(), _true_pairs(samples), atmosphere.step_seconds
    )
    log.info(
        "residuals of the training data per step: %s",
        ", ".join(f"{n} {found.mean[n]:+.3g} (std {found.deviation[n]:.2g})" for n in found.mean),
    )
    rates = dataclasses.asdict(found.unaccounted())
    saved |= {f"unaccounted_{name}": rates[name] for name in config.unaccounted}
    penalty = None
    if config.penalty:
        budgets = make_budgets(_options(config, saved), atmosphere, names)
        penalty = Penalty.from_truth(budgets, found, dict.fromkeys(budgets, config.penalty))
    if config.kind == "none":
        return Conservation(None, penalty, {})
    return Conservation(_make_scheme(config, saved, atmosphere, names), penalty, saved)


def restore_scheme(saved: dict, config: TrainConfig, grid: Grid) -> Scheme | None:
    """The scheme of a checkpoint."""
    if not saved["scheme"]:
        return None
    channels, orography = Layout.from_json(saved["layout"]), saved["scheme"]["orography"]
    atmosphere = Atmosphere(
        area=torch.as_tensor(grid.area),
        levels=_levels(saved),
        constants=Constants(**saved["constants"]),
        geopotential_at_surface=None if orography is None else torch.tensor(orography, dtype=torch.float32),
        step_seconds=saved["step_seconds"],
        has_surface_pressure="surface_pressure" in channels.prognostic.names,
    )
    names = (*channels.prognostic.names, *channels.diagnostic.names)
    return _make_scheme(config.conservation, saved["scheme"], atmosphere, names)


def _make_scheme(config: ConservationConfig, saved: dict, atmosphere: Atmosphere, names) -> Scheme:
    variances = {name: torch.tensor(values, dtype=torch.float64) for name, values in saved["variances"].items()}
    return build_scheme(_options(config, saved), atmosphere, names, variances)


def _options(config: ConservationConfig, saved: dict) -> Options:
    values = config.model_dump(exclude={"unaccounted", "penalty"})
    values["budgets"] = tuple(values["budgets"])
    values["controls"] = None if values["controls"] is None else tuple(values["controls"])
    rates = {n.removeprefix("unaccounted_"): v for n, v in saved.items() if n.startswith("unaccounted_")}
    return Options(**values, unaccounted=Unaccounted(**rates))


def _true_pairs(samples: Samples, most: int = 256, batch_size: int = 16):
    """Consecutive true states by name, evenly over the period, as `truth_residuals` takes them."""
    starts = samples.starts(1)
    chosen = starts[np.unique(np.linspace(0, len(starts) - 1, min(most, len(starts))).round().astype(int))]
    prognostic, diagnostic = samples.layout.prognostic, samples.layout.diagnostic
    for first in range(0, len(chosen), batch_size):
        batch = samples.batch(chosen[first : first + batch_size], 1)
        after = prognostic.unpack(batch.state[:, 1]) | diagnostic.unpack(batch.diagnostic[:, 0])
        yield prognostic.unpack(batch.state[:, 0]), after


def _orography(dataset: xr.Dataset) -> torch.Tensor | None:
    if "geopotential_at_surface" not in dataset:
        return None
    return torch.from_numpy(np.asarray(dataset["geopotential_at_surface"].values, np.float32))
