"""Networks by kind: from a configuration and a grid to `(batch, inputs, *space) -> (batch, outputs, *space)`.

A network is one file of this folder: a frozen dataclass of options, and a function under `@network(kind, its options)` that
makes the module or refuses, in a `ValueError`, a grid that it does not fit. The files of the folder are imported when a kind
is first asked for, so that nothing else names a network; what a file needs beyond the core dependencies it imports there.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from emulator.data.border import Border
from emulator.networks.framed import Framed, FramedInputs, check_version, widened
from emulator.networks.signature import Signature
from emulator.options import Options
from emulator.parallel.space import ALONE, Space
from emulator.planet.grid import REGIONAL, Grid
from emulator.registry import Registry


class NetworkError(ValueError):
    """A network that cannot be made as configured, in one sentence."""


class Kind(NamedTuple):
    """A registered network: its options, the function that makes it, its regions, and what else that function takes.

    `boundary`: whether it encodes cells of a boundary itself. `more_inputs`: whether it takes inputs that a step has not.
    """

    options: type[Options]
    build: Callable[..., nn.Module]
    regions: tuple[str, ...]
    bands: bool
    signature: bool
    boundary: bool = False
    more_inputs: bool = False


NETWORKS: Registry[Kind] = Registry("network of a kind", __package__, error=NetworkError)


def network(
    kind: str,
    options: type[Options],
    regions: tuple[str, ...] = REGIONAL,
    bands: bool = False,
    signature: bool = False,
    boundary: bool = False,
    more_inputs: bool = False,
) -> Callable:
    """Registers a function `(options, inputs, outputs, grid)` as what makes the networks of a kind.

    `regions`: kinds of regional grids that it fits, as far as the function does not refuse them itself. `bands`: whether
    several processes can hold a state together; the function then takes the `Space` as an argument `space`, and the network
    the band of the grid that is its process's. `signature`: whether the function wants to know what the channels are, an
    `emulator.networks.signature.Signature`, as an argument `signature`. `boundary`: whether the network encodes the cells of
    a limited area's boundary itself: the function then takes arguments `boundary`, their grid, and `boundary_channels`, and
    the network is called with a tensor `boundary`, `(batch, boundary_channels, *boundary.shape)`, normalised; without a
    boundary they are None, 0 and not given. Other networks on maps are given a map around the domain. `more_inputs`: whether
    a network that is told by a signature what its channels are takes others beside those of a step, such as a second state.
    """
    how = regions, bands, signature, boundary, more_inputs
    return lambda builder: NETWORKS.register(kind, Kind(options, builder, *how)).build


def kinds() -> tuple[str, ...]:
    """The names of all kinds."""
    return tuple(NETWORKS.names())


def options_of(kind: str) -> type[Options]:
    """The options of a kind. Raises `NetworkError` for an unknown one."""
    return NETWORKS[kind].options


def build(
    config: Mapping[str, Any],
    inputs: int,
    outputs: int,
    grid: Grid,
    space: Space = ALONE,
    signature: Signature | None = None,
    border: Border | None = None,
) -> nn.Module:
    """The network of a configuration, freshly initialised.

    Args:
      config: `kind` and its options, as in YAML or in a checkpoint's JSON.
      inputs, outputs: channels. grid: of the whole fields. space: the processes that hold a state together.
      signature: what the channels are, for networks that treat them by it; None: surface fields, the state first.
      border: of a limited area, what the network is given of the state outside; it is then called with a `boundary`.
    Raises `NetworkError` for an unknown kind or option, a value outside its limits, and a grid or processes that the network
    does not fit.
    """
    kind, made = config.get("kind"), options(config)
    if not grid.is_global() and grid.kind not in NETWORKS[kind].regions:
        raise NetworkError(
            f"Expected a network that fits the region of {grid.describe()}, got {kind!r}, which does not; networks that "
            f"may: {', '.join(name for name, known in NETWORKS.all().items() if grid.kind in known.regions)}"
        )
    if space.size > 1 and border is not None:
        raise NetworkError(
            f"Expected one process for a state with a boundary (parallel.space 1), got {space.size} that hold it together"
        )
    if space.size > 1 and not NETWORKS[kind].bands:
        raise NetworkError(
            f"Expected a network whose states {space.size} processes can hold together, got {kind!r}, whose cannot; networks "
            f"that can: {', '.join(name for name, known in NETWORKS.all().items() if known.bands)}"
        )
    more, framed = {"space": space} if NETWORKS[kind].bands else {}, None
    signature = signature or Signature.plain(inputs, outputs)
    try:
        frame = None if border is None else border.frame(grid)
        if NETWORKS[kind].boundary:
            more |= {"boundary": frame and frame.points, "boundary_channels": border.channels if border else 0}
        elif frame is not None:
            framed = FramedInputs.of(signature, border)
            check_version(framed, border, by_variable=NETWORKS[kind].signature)
            signature, grid = widened(signature, border), frame.whole
            inputs = len(signature.inputs)
        more |= {"signature": signature} if NETWORKS[kind].signature else {}
        network = NETWORKS[kind].build(made, inputs, outputs, grid, **more)
        return Framed(network, frame, framed) if framed else network
    except NetworkError:
        raise
    except ValueError as error:
        raise NetworkError(f"The network {kind!r} does not fit {grid.describe()}: {error}") from error


def options(config: Mapping[str, Any]) -> Options:
    """The options of a configuration, as `build` takes it. Raises `NetworkError` as that does."""
    kind = config.get("kind")
    try:
        return options_of(kind).of({name: value for name, value in config.items() if name != "kind"})
    except NetworkError:
        raise
    except ValueError as error:
        raise NetworkError(f"The network {kind!r} has an option that it cannot take: {error}") from error


def expect_global(grid: Grid, *kinds_of_grid: str) -> None:
    """Raises `ValueError` for a grid that is regional or of another kind than those, or lacks rows at a pole."""
    if not grid.is_global() or grid.kind not in kinds_of_grid:
        raise ValueError(
            f"Expected a global {' or '.join((*kinds_of_grid, 'grid'))}, got {grid.describe()}{grid.remedy}"
        )
    if grid.remedy:
        raise ValueError(
            f"Expected rows at both poles, or half a cell away from both, got {grid.describe()}{grid.remedy}"
        )
