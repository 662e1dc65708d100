"""A network of other code, named in configurations as package.module:name."""

import torch


def columns(inputs, outputs, shape, width):
    """A network as a user would bring it: every cell by itself, and a field of its own."""
    layers = [torch.nn.Conv2d(inputs, width, 1), torch.nn.GELU(), torch.nn.Conv2d(width, outputs, 1)]
    return torch.nn.Sequential(torch.nn.LayerNorm(shape), *layers)
