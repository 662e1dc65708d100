"""torch-harmonics' own SFNO, unchanged, as a network of this project: the baseline that ours is compared with."""

import dataclasses
from typing import Literal

import torch
from torch import nn

from emulator.networks.registry import NetworkError, expect_global, network
from emulator.options import Options, option
from emulator.planet.grid import Grid

_GRIDS = {("gaussian", False): "legendre-gauss", ("equiangular", True): "equiangular"}


@dataclasses.dataclass(frozen=True)
class TorchHarmonicsOptions(Options):
    """torch-harmonics' own SFNO, a baseline; options by its names."""

    embed_dim: int = option(64, "channels of the state", minimum=1)
    num_layers: int = option(4, "blocks", minimum=1)
    scale_factor: int = option(1, "how much coarser the inner blocks' grid is", minimum=1)
    mlp_ratio: float = option(2.0, "hidden width of a block's MLP over embed_dim", above=0)
    normalization_layer: Literal["instance_norm", "layer_norm", "none"] = option("instance_norm", "before the MLP")
    residual_prediction: bool = option(False, "the input is added to the output")


@network("torch_harmonics", TorchHarmonicsOptions, regions=())
def build(options: TorchHarmonicsOptions, inputs: int, outputs: int, grid: Grid) -> "TorchHarmonicsSFNO":
    expect_global(grid, "gaussian", "equiangular")
    return TorchHarmonicsSFNO(inputs, outputs, *grid.shape, grid=grid.kind, poles=grid.has_poles, options=options)


class TorchHarmonicsSFNO(nn.Module):
    """`(batch, in_channels, nlat, nlon)` -> `(batch, out_channels, nlat, nlon)` on a Gaussian or pole-to-pole grid.

    Raises `ValueError` for an equiangular grid without poles, which torch-harmonics' SFNO does not take, and `NetworkError`
    where torch-harmonics is not installed.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        nlat: int,
        nlon: int,
        grid: str = "gaussian",
        poles: bool = False,
        options: TorchHarmonicsOptions | None = None,
    ):
        try:
            from torch_harmonics.examples.models import SphericalFourierNeuralOperator
        except ImportError as error:
            raise NetworkError(
                "Expected the package torch-harmonics, which has wheels for x86-64 Linux alone, for a network of kind "
                f"torch_harmonics; importing it failed: {error}"
            ) from error

        super().__init__()
        if (grid, poles) not in _GRIDS:
            raise ValueError(f"Expected a Gaussian or a pole-to-pole equiangular grid, got {grid!r} with poles={poles}")
        name = _GRIDS[grid, poles]
        options = options or TorchHarmonicsOptions()
        self.network = SphericalFourierNeuralOperator(
            img_size=(nlat, nlon),
            in_chans=in_channels,
            out_chans=out_channels,
            grid=name,
            grid_internal=name if options.scale_factor == 1 else "legendre-gauss",
            **dataclasses.asdict(options),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)
