"""What tests of networks that `miles-credit` has too share: its maps end in zeros, where ours go on."""

import re

import torch.nn.functional as F

from emulator.networks.edges import Edges
from emulator.networks.map_layers import Surroundings

ENDING = Edges(round=False, open=True)  # windows end where the map does, as its masks have them


def end_in_zeros(monkeypatch):
    """Convolutions take zeros beyond the edges of a map, as miles-credit's do."""
    monkeypatch.setattr(Surroundings, "forward", lambda self, x, margin: F.pad(x, [margin] * 4))


def renamed(state, names, changed=()):
    """A peer's weights by our names.

    `names`: patterns of parts of names and what takes their place, in order. `changed`: functions of the weights by the last
    parts of their names, where they lie in another way.
    """
    found = {}
    for name, value in state.items():
        for pattern, ours in names:
            name = re.sub(pattern, ours, name)
        for part, change in dict(changed).items():
            if name.endswith(part):
                value = change(value)
        found[name] = value
    return found
