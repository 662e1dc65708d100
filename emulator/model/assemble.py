"""The parts of a step from a store and its statistics: network, normalisation, bounds, static features."""

import logging
from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr
from torch import nn

from emulator.conservation.scheme import Scheme
from emulator.data.channels import Channels, Layout, outside_of
from emulator.data.normalisation import Normalizer, channel_statistics
from emulator.data.samples import Samples
from emulator.generative.objectives import objective
from emulator.generative.windows import DYFFUSION, INTERPOLATOR, horizon_of, windowed
from emulator.model.bounds import MARGIN, bounds, envelope
from emulator.model.gaps import TOLD
from emulator.model.noise import NetworkNoise, Seeds
from emulator.model.scalars import Scalars
from emulator.model.step import Step
from emulator.model.step_buffers import PLACES, StepBuffers, needs_spread
from emulator.model.windows import DYffusionStep, Interpolator
from emulator.networks import dyffusion, generative, registry
from emulator.networks.generative import REGRESSION
from emulator.networks.signature import Channel, Signature
from emulator.parallel.space import ALONE, Space
from emulator.planet.grid import Grid
from emulator.planet.insolation import CLOCK_FEATURES
from emulator.sphere.random_fields import degrees_on, of_length

log = logging.getLogger(__name__)
KINDS = {INTERPOLATOR: Interpolator, DYFFUSION: DYffusionStep}  # steps of objectives of windows


def input_count(channels: Layout, network: Mapping | None = None) -> int:
    """Channels that a network sees; an interpolator, as `make_step` takes it, sees a second state."""
    second = _parted(network or {})[1].get("kind") == INTERPOLATOR
    return len(signature_of(channels).inputs) + second * channels.prognostic.count


def make_step(
    network: Mapping,
    channels: Layout,
    grid: Grid,
    buffers: StepBuffers,
    scheme: Scheme | None,
    predicts: str = "change",
    space: Space = ALONE,
) -> Step:
    """A step with a freshly initialised network.

    Args:
      grid, buffers: of whole fields. space: the processes that hold a state together.
      network: `kind` and options as in a configuration or a checkpoint's JSON, with an `objective` as `network_of` has it.
      predicts: the name of a kind of prediction (`emulator.model.predictions`).
    Raises `ValueError` for a network that does not fit the grid, or asks for noise or conditions that cannot be had.
    """
    given = conditions(network, channels, grid, space)
    made = make_network(network, channels, grid, space)
    if channels.border is not None and scheme is not None and channels.border.place == "inside":
        raise ValueError(
            "Expected conservation none with a boundary inside: corrections would change the states that it prescribes"
        )
    kind = KINDS.get((chosen := _parted(network)[1])["kind"], Step)
    step = kind(made, channels, buffers, scheme, *given, predicts, space)
    step.horizon = horizon_of(chosen)
    if chosen["kind"] == DYFFUSION:
        step.pairing = windowed(chosen).pairing
    if chosen.get("spectrum") == "target":  # white until it is measured, or loaded
        white = torch.from_numpy(of_length(degrees_on(grid), 0.0))
        step.begin_as(white.repeat(made.outputs, 1))
    if channels.border is not None:
        step.prescribe(channels.border.frame(grid))
    return step


def states_of(layout: Layout) -> list[Channel]:
    """The channels of a state."""
    return [channel for channel in signature_of(layout).outputs if channel.role == "state"]


def make_network(network: Mapping, channels: Layout, grid: Grid, space: Space = ALONE) -> nn.Module:
    """The network alone, freshly initialised. Raises `ValueError` where it does not fit the grid, or the processes."""
    signature, (network, chosen) = signature_of(channels), _parted(network)
    if chosen != REGRESSION:
        if channels.border is not None:
            raise ValueError("Expected train.objective regression with a boundary, got another one")
        if space.size > 1:
            raise ValueError(f"Expected states that one process holds with train.objective, got {space.size} processes")
        make = dyffusion.build if windowed(chosen) else generative.build
        return make(network, chosen, signature, grid)
    return registry.build(
        network, len(signature.inputs), len(signature.outputs), grid, space, signature, channels.border
    )


def network_of(config: Mapping) -> dict:
    """The network of a training's options or of a checkpoint's `config`, with its objective, as `make_step` takes both."""
    chosen = config.get("objective", REGRESSION)
    return dict(config["network"]) | ({} if chosen == REGRESSION else {"objective": dict(chosen)})


def _parted(network: Mapping) -> tuple[dict, Mapping]:
    """A network's own options, and its objective."""
    return {name: value for name, value in network.items() if name != "objective"}, network.get("objective", REGRESSION)


def signature_of(layout: Layout) -> Signature:
    """What the channels of a layout's network are, in their order."""

    def channels(group, role, time=0):
        found = []
        for name, count in zip(group.names, group.levels, strict=True):
            at = layout.at.get(name.removesuffix("@end")) or [None] * count
            found += [Channel(name, role, n, at[n], time) for n in range(count)] or [Channel(name, role, time=time)]
        return found

    states = [channels(layout.prognostic, "state", n + 1 - layout.history) for n in range(layout.history)]
    inputs = [channel for state in states for channel in state]
    inputs += channels(layout.given, "forcing")
    inputs += [Channel(name, "clock") for name in CLOCK_FEATURES]
    inputs += channels(layout.static, "static")
    inputs += [Channel(f"mask_{n}", "mask") for n in range(layout.masks)]
    inputs += [Channel(name, "place") for name in PLACES]
    inputs += [Channel("step_length", "length")] * (len(layout.lengths) > 1)
    inputs += [Channel(f"{name}_known", "mask") for name in layout.prognostic.names] * (layout.gaps == TOLD)
    outputs = channels(layout.prognostic, "state") + channels(layout.diagnostic, "diagnostic")
    return Signature(tuple(inputs), tuple(outputs), layout.hours)


def boundary_shape(layout: Layout, grid: Grid) -> tuple[int, int] | None:
    """Channels and cells of the boundary that a network is given; None for none."""
    border = layout.border
    return border and (border.channels, len(border.frame(grid).index))


def conditions(
    network: Mapping, channels: Layout, grid: Grid, space: Space = ALONE
) -> tuple[NetworkNoise | Seeds | None, Scalars | None]:
    """What a network is given besides its inputs: noise and scalars, each None where it asks for none."""
    network, chosen = _parted(network)
    options = registry.options(network)
    noise, names = getattr(options, "noise", None), getattr(options, "condition", None)
    winds = []
    if windowed(chosen):
        noise = dyffusion.noise_of(network, chosen)
    elif chosen != REGRESSION:
        generative.with_time(network)
        sampled, outputs = objective(dict(chosen)), signature_of(channels).outputs
        noise, winds = generative.noise_of(sampled, len(outputs)), generative.winds_of(sampled, outputs)
    try:
        made, scalars = Seeds() if windowed(chosen) and not noise else None, None
        if noise:
            made = NetworkNoise(grid, noise.length_scales, noise.channels, noise.correlation, space, noise.style, winds)
        if names:
            scalars = Scalars(names, channels.given, channels.lengths, space)
        return made, scalars
    except ValueError as error:
        raise ValueError(f"The network {network['kind']!r} cannot be given what it asks for: {error}") from error


def buffers(
    samples: Samples,
    statistics: xr.Dataset,
    damping: float = 1.0,
    margin: float | Mapping[str, float] = MARGIN,
    kind: str = "envelope",
    predicts: str = "change",
) -> StepBuffers:
    """Normalisation, bounds, damping and static features from the statistics, of whole fields.

    `damping`: share of the optimal linear relaxation; `margin`, `kind`: see `emulator.model.bounds.bounds`;
    `predicts`: the name of a kind of prediction.
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

    def exists(channels):
        outside = outside_of(samples.dataset, channels)
        return None if outside is None else torch.from_numpy(~outside)

    return StepBuffers(
        state=Normalizer.of(statistics, prognostic),
        diagnostic=Normalizer.of(statistics, samples.layout.diagnostic),
        forcing=Normalizer.of(statistics, samples.layout.forcing).picked(samples.layout.given_from),
        change_std=column(change),
        lower=lower,
        upper=upper,
        damping=column(relaxation.clamp(max=1.0)),
        resting=found.mean.float(),
        static=static_features(samples.dataset, samples.layout, samples.grid),
        spread=column(found.spread) if needs_spread(samples.layout, predicts) else None,
        exists=exists(prognostic),
        diagnostic_exists=exists(samples.layout.diagnostic),
        boundary=None if samples.boundary is None else samples.boundary.scale(samples.times[~samples.missing]),
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


def static_features(dataset: xr.Dataset, layout: Layout, grid: Grid) -> torch.Tensor:
    """Normalised static fields, masks that are asked for, and position on the unit sphere, `(feature, *space)` float32.

    Static fields are 0 where they are missing or do not exist.
    """
    latitude, longitude = (np.radians(angle) for angle in grid.mesh())
    outside, features = outside_of(dataset, layout.static), []
    for name, where in layout.static.slices.items():
        fields = np.asarray(dataset[name].values, np.float64).reshape(-1, *grid.shape)
        if outside is not None:
            fields = np.where(outside[where], np.nan, fields)
        features += [_standardised(field, grid) for field in fields]
    if layout.masks:
        features += [mask.astype(np.float64) for mask in layout.distinct_masks(dataset)]
    features += [np.sin(latitude), np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude)]
    return torch.from_numpy(np.stack(features)).float()


def _standardised(field: np.ndarray, grid: Grid) -> np.ndarray:
    there = np.isfinite(field)
    if there.all():
        mean = grid.mean(field)
        std = np.sqrt(grid.mean((field - mean) ** 2))
        return (field - mean) / (std if std > 0 else 1.0)
    share = grid.mean(there.astype(np.float64))
    field = np.where(there, field, 0.0)
    departure = np.where(there, field - grid.mean(field) / (share or 1.0), 0.0)
    std = np.sqrt(grid.mean(departure**2) / (share or 1.0))
    return departure / (std if std > 0 else 1.0)
