"""Localisation: how the weight of an observation falls with its distance."""

import torch
from torch import Tensor


def gaspari_cohn(distance: Tensor, support: float) -> Tensor:
    """Weights 1 at distance 0, falling smoothly to 0 at `support`, in the same unit: Gaspari and Cohn (1999), eq. 4.10.

    A compactly supported correlation of the fifth order, near a Gaussian of standard deviation `support / 3.65`.
    """
    r = distance.abs() * 2 / support
    near = 1 - 5 / 3 * r**2 + 5 / 8 * r**3 + r**4 / 2 - r**5 / 4
    far = 4 - 5 * r + 5 / 3 * r**2 + 5 / 8 * r**3 - r**4 / 2 + r**5 / 12 - 2 / (3 * r.clamp(min=1))
    return torch.where(r < 1, near, torch.where(r < 2, far.clamp(min=0), torch.zeros_like(r)))
