"""What is proposed for files: periods that never meet, optimizers as conf/train has them, networks that fit the memory."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.networks import cost
from emulator.planet.calendar import within
from emulator.planet.grid import Grid
from emulator.training import proposal
from emulator.training.proposal import OPTIMIZERS, WIDTH, split

CONF = Path(__file__).resolve().parents[2] / "conf" / "train"


@settings(max_examples=40)
@given(st.integers(24, 3000), st.sampled_from([6, 12, 24, 120]), st.integers(1, 60))
def test_periods_are_in_order_apart_and_cover_what_they_say(count, hours, lead):
    times = np.datetime64("1999-11-03T00", "ns") + np.arange(count) * np.timedelta64(hours, "h")
    length = 10 if count * hours > 20 * 24 else 16
    found = split(np.array([str(time)[:length] for time in times]), lead, round(366 * 24 / hours))
    trained = within(times, None, found.train_end)
    verified = within(times, found.verify_start, None)
    parts = [trained, verified]
    if found.validation:
        validated = within(times, *found.validation)
        assert validated.sum() == found.validated
        parts.insert(1, validated)
    assert (trained.sum(), verified.sum()) == (found.trained, found.verified)
    assert found.trained > count // 2 and found.verified >= 1
    assert np.sum(parts, axis=0).max() == 1
    order = [np.flatnonzero(part) for part in parts if part.any()]
    assert all(first[-1] < second[0] for first, second in zip(order, order[1:], strict=False))


def test_a_year_is_trained_on_where_the_record_is_a_little_longer():
    times = np.datetime64("2001-03-02T06", "ns") + np.arange(1680) * np.timedelta64(
        6, "h"
    )  # 420 days, as the quickstart's
    found = split(np.array([str(time)[:10] for time in times]), 40, 366 * 4)
    assert 366 * 4 - 4 <= found.trained <= 366 * 4 + 8 * 4 and found.verified >= 4 * 20


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_optimizers_are_those_of_the_configurations(kind):
    raw = yaml.safe_load((CONF / f"{kind}.yaml").read_text())
    expected, width = OPTIMIZERS[kind]
    assert {name: float(raw["optimizer"][name]) for name in expected} == pytest.approx(expected)
    assert raw["network"][WIDTH[kind]] == width


class Found:
    """A survey's grid and channels."""

    def __init__(self, grid, channels):
        self.plan, self.channels = type("Plan", (), {"grid": grid}), channels


def test_a_network_fits_the_memory_that_is_free(monkeypatch):
    """Half the memory: never more is asked for, and less memory never gives a larger network or batch."""
    sizes = []
    for free in (2**35, 2**28):
        monkeypatch.setattr(proposal.torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(cost, "available_memory", lambda free=free: free)
        network, needs, batch = proposal.fitting_network(Found(Grid.gaussian(16), 6))
        assert needs.memory(batch, 4) * cost.RESIDENT <= free / 2
        sizes.append((network[WIDTH[network["kind"]]], batch))
    assert sizes == sorted(sizes, reverse=True)
    monkeypatch.setattr(cost, "available_memory", lambda: 2**20)
    with pytest.raises(ValueError, match=r"16 x 32 gaussian .* more than half of the 0.00098 GiB"):
        proposal.fitting_network(Found(Grid.gaussian(16), 6))


@pytest.mark.parametrize(
    "grid, kind",
    [
        (Grid.gaussian(16), "sfno"),
        (Grid.equiangular(19, 36, poles=True), "sfno"),
        (Grid.box(16, 24, (30, 60, 0, 40)), "unet"),
        (Grid.points(np.linspace(80, -80, 60), np.linspace(0, 350, 60), np.full(60, 1 / 60)), "graph"),
    ],
    ids=["gaussian", "poles", "box", "points"],
)
def test_a_network_is_of_a_kind_that_the_grid_takes(grid, kind):
    network, needs, _ = proposal.fitting_network(Found(grid, 3))
    assert network["kind"] == kind and needs.parameters > 0


def test_what_a_coarser_grid_is_measured_for_is_near_what_the_grid_itself_needs():
    network = {"kind": "sfno", "embed_dim": 16, "blocks": 2}
    grid = Grid.gaussian(96)
    inputs = 5 + proposal.INPUTS_BESIDES
    itself = cost.measure(proposal.registry.build(network, inputs, 5, grid), inputs, grid.shape)
    carried = proposal._needs(network, 5, grid)
    assert 0.5 < carried.activations / itself.activations < 2 and 0.5 < carried.parameters / itself.parameters < 2
