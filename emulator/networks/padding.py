"""Maps of the sphere with what lies beyond their edges."""

import torch


def pad_sphere(x: torch.Tensor, margin: int, poles: bool = False) -> torch.Tensor:
    """Scalar fields `(..., nlat, nlon)` with `margin` more cells on every side.

    Longitude is periodic. Beyond a pole lies the meridian half a turn away; rows at the poles (`poles`) are not repeated.
    """
    beyond = x.roll(x.shape[-1] // 2, -1)
    first = 1 if poles else 0
    north = beyond[..., first : first + margin, :].flip(-2)
    south = beyond[..., x.shape[-2] - first - margin : x.shape[-2] - first, :].flip(-2)
    x = torch.cat([north, x, south], -2)
    return torch.cat([x[..., -margin:], x, x[..., :margin]], -1)
