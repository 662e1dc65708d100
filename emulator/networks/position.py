"""A field that tells places apart, for networks that otherwise treat all cells alike."""

import torch
from torch import nn

from emulator.kernels.kept import made_of
from emulator.kernels.library import alone
from emulator.networks.layers import full
from emulator.sphere.transform import harmonics


class Position(nn.Module):
    """A field that differs from cell to cell, added to the encoded state, so that the network knows places."""

    cell_fields = ("field",)  # `(nlat, nlon, channel)`, which a start from weights takes to another grid

    def __init__(self, kind, transform, channels):
        super().__init__()
        self.kind, self.transform = kind, transform
        if kind == "learned":  # in the order of latitudes and longitudes, which checkpoints can rely on
            self.field = nn.Parameter(torch.randn(transform.nlat, transform.nlon, channels) * 0.02)
            cells = transform.cell_index + transform.band.start * transform.nlon
            self.register_buffer("cells", cells, persistent=False)  # of the field, in the transform's order
        elif kind == "harmonics":
            self.register_buffer("field", harmonics(transform, channels)[:, None], persistent=False)

    def forward(self, encoder, x):
        """What an encoder makes of x, with the field added."""
        if self.kind == "none":
            return full(encoder(x))
        if self.kind == "learned" and alone(x, self.field):
            return encoder(x, made_of(self.field, _at_cells, self.cells))
        return full(encoder(x)) + (self._arranged(self.field) if self.kind == "learned" else self.field)

    def _arranged(self, field):
        return self.transform.arrange(field[self.transform.band])[:, None]


def _at_cells(field, cells):
    return field.flatten(0, 1).index_select(0, cells)[:, None]
