"""What a process holds of a state that several hold together, told without the others."""

import pytest
import torch
from together import together

from emulator.networks.registry import build
from emulator.parallel.rates import most_held
from emulator.parallel.space import ALONE, Space
from emulator.planet.grid import Grid
from emulator.training.memory import TRIED, most_of_processes

GRID = Grid.equiangular(25, 48, poles=True)  # 13 and 12 rows
NETWORKS = [
    {"kind": "sfno", "embed_dim": 8, "blocks": 1},
    {"kind": "unet", "width": 8, "depth": 2},
    {"kind": "fuxi", "width": 16, "blocks": 2, "heads": 2, "window": 4, "patch": 1, "groups": 4},
    {"kind": "wxformer", "widths": [16, 32], "depths": [1, 1], "strides": [2, 2], "stencils": [2, 4], "far": [3, 2]}
    | {"near": 6, "head_width": 8},
]


def held(space: Space) -> list[int]:
    """Bytes that a training step of each network holds at one time."""
    torch.manual_seed(0)
    rows = space.band(len(GRID.latitude))
    x = torch.zeros(1, 4, rows.stop - rows.start, 48)
    found = []
    for config in NETWORKS:
        network = build(config, 4, 4, GRID, space)
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        found.append(most_held(lambda network=network: network(x).square().sum().backward()))
    return found


def test_an_imagined_process_holds_what_a_real_one_does():
    """Rows around bands and whole windows count: no network's share is that of its rows alone."""
    real, alone = together(2, held), held(ALONE)
    for rank, found in enumerate(real):
        assert held(Space.imagined(2, rank)) == pytest.approx(found, rel=0.02)
    shares = [max(parts) / whole for *parts, whole in zip(*real, alone, strict=True)]
    assert all(0.4 < share < 0.8 for share in shares), shares
    assert max(shares) > 1.1 * 13 / 25


def test_the_process_that_holds_most_is_told_and_of_many_some_are_tried():
    assert most_of_processes(lambda space: [3, 7, 5][space.rank], 3) == 7
    tried = []
    most_of_processes(lambda space: tried.append(space.rank) or 0, 64)
    assert len(tried) == TRIED and tried[0] == 0 and tried[-1] == 63
    assert most_of_processes(lambda space: space.size, 1) == 1
