"""Networks from other packages: whatever a function of a configured name returns, checked for this library's shapes."""

import dataclasses
import functools
import inspect
import pkgutil
from typing import Any

import torch

from emulator.networks.registry import NetworkError, network
from emulator.options import Options, option
from emulator.planet.grid import Grid


@dataclasses.dataclass(frozen=True)
class ExternalOptions(Options):
    """A network from your own code or another package: any module from `(batch, in, *space)` to `(batch, out, *space)`."""

    factory: str = option(about="package.module:name, called with channels in, channels out, the grid's shape, options")
    options: dict[str, Any] = option({}, "named arguments of the factory")


@network("external", ExternalOptions)
def build(options: ExternalOptions, inputs: int, outputs: int, grid: Grid) -> torch.nn.Module:
    """Calls the factory; what it raises itself is passed on. Raises `NetworkError` for what is no factory of networks."""
    name, arguments = options.factory, options.options
    try:
        factory = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise NetworkError(
            f"Expected an importable package.module:name as the network's factory, got {name!r}: {error}"
        ) from error
    try:
        inspect.signature(factory).bind(inputs, outputs, grid.shape, **arguments)
    except (TypeError, ValueError) as error:  # a fault inside the factory is another matter
        raise NetworkError(f"The network's factory {name!r} does not take the arguments: {error}") from error
    made = factory(inputs, outputs, grid.shape, **arguments)
    if not isinstance(made, torch.nn.Module):
        raise NetworkError(f"Expected a torch module from the factory {name!r}, got {type(made).__name__}")
    if not any(parameter.requires_grad for parameter in made.parameters()):
        raise NetworkError(f"Expected a network with parameters to train from the factory {name!r}, got none")
    made.register_forward_hook(functools.partial(_check_result, name, outputs, grid.shape))
    return made


def _check_result(factory, outputs, shape, module, inputs, result):
    """A result of another shape would be spread over the grid without a word."""
    expected = (len(inputs[0]), outputs, *shape)
    got = tuple(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
    if got != expected:
        raise NetworkError(f"Expected a result of shape {expected} from the network of {factory!r}, got {got}")
