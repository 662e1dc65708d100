"""Network kinds: from a configuration and a grid to `(batch, in, *space) -> (batch, out, *space)`.

A new network is a module of `emulator/networks`, a class of options in `pipelines/config/networks.py` and a function here.
"""

import functools
import inspect
import pkgutil
from collections.abc import Callable

import torch

from emulator.model.scalars import scalar_count
from emulator.networks.graph import GraphNetwork, GraphOptions
from emulator.networks.sfno import SFNO, SFNOOptions
from emulator.networks.torch_harmonics_sfno import TorchHarmonicsOptions, TorchHarmonicsSFNO
from emulator.networks.unet import UNet, UNetOptions
from emulator.planet.grid import Grid
from emulator.sphere.mesh import MeshOptions, graph_of
from pipelines.config import (
    ConfigError,
    ExternalConfig,
    GraphConfig,
    NetworkConfig,
    SFNOConfig,
    TorchHarmonicsConfig,
    UNetConfig,
)


def make_network(config: NetworkConfig, inputs: int, outputs: int, grid: Grid) -> torch.nn.Module:
    """The network of a configuration, freshly initialised. Raises `ConfigError` where it does not fit the grid."""
    try:
        return KINDS[config.kind](config, inputs, outputs, grid)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"The network {config.kind!r} does not fit {grid.describe()}: {error}") from error


def _own(config: NetworkConfig, *others: str) -> dict:
    """The options of the network itself: without those of others, and counts in place of what it is told besides."""
    options = config.model_dump(exclude={"kind", "noise", "condition", *others})
    if getattr(config, "noise", None) is not None:
        options["noise_channels"] = config.noise.count
    if getattr(config, "condition", None):
        options["condition_dim"] = scalar_count(config.condition)
    return options


def _spectral(config, inputs, outputs, grid, network, options):
    if grid.kind not in ("gaussian", "equiangular") or not grid.is_global():
        raise ConfigError(
            f"Expected a global Gaussian or equiangular grid for the network {config.kind!r}, got {grid.describe()}"
        )
    chosen = options(**_own(config))
    return network(inputs, outputs, *grid.shape, grid=grid.kind, poles=grid.has_poles, options=chosen)


def _sfno(config: SFNOConfig, inputs, outputs, grid):
    return _spectral(config, inputs, outputs, grid, SFNO, SFNOOptions)


def _torch_harmonics(config: TorchHarmonicsConfig, inputs, outputs, grid):
    return _spectral(config, inputs, outputs, grid, TorchHarmonicsSFNO, TorchHarmonicsOptions)


def _graph(config: GraphConfig, inputs, outputs, grid):
    if not grid.is_global():
        raise ConfigError(f"Expected a global grid for the network {config.kind!r}, got {grid.describe()}")
    graph = graph_of(grid, MeshOptions(config.refinement, config.multi, config.radius), config.file)
    options = _own(config, "refinement", "multi", "radius", "file")
    return GraphNetwork(inputs, outputs, graph, GraphOptions(**options))


def _unet(config: UNetConfig, inputs, outputs, grid):
    if grid.kind == "points" or not grid.is_global():
        raise ConfigError(f"Expected a global latitude-longitude grid for the network 'unet', got {grid.describe()}")
    options = UNetOptions(**_own(config))
    return UNet(inputs, outputs, *grid.shape, poles=grid.has_poles, options=options)


def _external(config: ExternalConfig, inputs, outputs, grid):
    try:
        factory = pkgutil.resolve_name(config.factory)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"Expected an importable package.module:name as the network's factory, got {config.factory!r}: {error}"
        ) from error
    try:
        inspect.signature(factory).bind(inputs, outputs, grid.shape, **config.options)
    except (TypeError, ValueError) as error:  # a fault inside the factory is another matter
        raise ConfigError(
            f"The network's factory {config.factory!r} does not take what it is given: {error}"
        ) from error
    network = factory(inputs, outputs, grid.shape, **config.options)
    if not isinstance(network, torch.nn.Module):
        raise ConfigError(f"Expected a torch module from the factory {config.factory!r}, got {type(network).__name__}")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ConfigError(f"Expected a network with parameters to train from the factory {config.factory!r}, got none")
    network.register_forward_hook(functools.partial(_check_result, config.factory, outputs, grid.shape))
    return network


def _check_result(factory, outputs, shape, network, given, result):
    """A result of another shape would be spread over the grid without a word."""
    expected = (len(given[0]), outputs, *shape)
    got = tuple(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
    if got != expected:
        raise ConfigError(f"Expected a result of shape {expected} from the network of {factory!r}, got {got}")


KINDS: dict[str, Callable[..., torch.nn.Module]] = {
    "sfno": _sfno,
    "graph": _graph,
    "unet": _unet,
    "torch_harmonics": _torch_harmonics,
    "external": _external,
}
