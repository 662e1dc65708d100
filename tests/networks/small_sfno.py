"""A small SFNO for the tests of its network, fields to give it, and weights in which every parameter matters."""

import torch

from emulator.networks.sfno import SFNO, SFNOOptions

SMALL = SFNOOptions(embed_dim=8, blocks=3)


def network(options=SMALL, *, channels=(3, 2), shape=(12, 24), seed=0, **grid):
    torch.manual_seed(seed)
    return SFNO(*channels, *shape, **grid, options=options)


def fields(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def awaken(net, seed=2):
    """Random values in place of zeros and ones, so that every parameter matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1 or not parameter.any():
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return net
