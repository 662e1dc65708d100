"""torch-harmonics' own SFNO, untouched, as a network of this project: the baseline that ours is held against."""

import dataclasses

import torch
from torch import nn
from torch_harmonics.examples.models import SphericalFourierNeuralOperator

_GRIDS = {("gaussian", False): "legendre-gauss", ("equiangular", True): "equiangular"}


@dataclasses.dataclass(frozen=True)
class TorchHarmonicsOptions:
    """The published options, by torch-harmonics' names; see its documentation."""

    embed_dim: int = 64
    num_layers: int = 4
    scale_factor: int = 1
    mlp_ratio: float = 2.0
    normalization_layer: str = "instance_norm"
    residual_prediction: bool = False


class TorchHarmonicsSFNO(nn.Module):
    """`(batch, in_channels, nlat, nlon)` -> `(batch, out_channels, nlat, nlon)` on a Gaussian or pole-to-pole grid.

    Raises `ValueError` for an equiangular grid without poles, which torch-harmonics' SFNO does not take.
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
