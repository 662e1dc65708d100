"""Samudra's U-Net: around the sphere, by its published size, and with all that a training asks for."""

import map_networks as shared
import pytest
import torch
from bands import DOUBLE, HALF, SINGLE, assert_equal_over_processes
from map_networks import fields, made

from emulator.networks.registry import NetworkError, build
from emulator.networks.samudra import Samudra, SamudraOptions
from emulator.parallel.space import Space
from emulator.planet.grid import Grid

SMALL = dict(kind="samudra", widths=(6, 8), dilations=(1, 2))


def published(inputs, outputs, widths, expansion):
    """Parameters by formula: biases everywhere, two norms a block, a convolution across where the width changes."""

    def block(a, b):
        hidden = expansion * a
        convolutions = 9 * a * hidden + hidden + 9 * hidden**2 + hidden + hidden * b + b
        return convolutions + 4 * hidden + (0 if a == b else a * b + b)

    down = sum(block(a, b) for a, b in zip((inputs, *widths), widths, strict=False))
    up = sum(block(b, a) for a, b in zip(widths, widths[1:], strict=False))
    return down + block(widths[-1], widths[-1]) + up + block(widths[0], widths[0]) + 9 * widths[0] * outputs + outputs


@pytest.mark.parametrize(
    ("widths", "expansion", "known"),
    [((200, 250, 300, 400), 4, 135_376_762), ((280, 380, 480, 520), 2, 84_066_474)],
    ids=["samudra", "samudra2"],
)
def test_parameters_at_one_degree_are_those_of_the_published_networks(widths, expansion, known):
    """Two states of 77 fields with 4 of forcing each in, two states out; the number is that of the authors' code."""
    inputs, outputs, dilations = 2 * (77 + 4), 2 * 77, (1, 2, 4, 8)
    options = SamudraOptions(widths=widths, dilations=dilations, expansion=expansion, edges="samudra2")
    with torch.device("meta"):
        network = Samudra(inputs, outputs, 180, 360, options=options)
    count = sum(p.numel() for p in network.parameters())
    assert count == published(inputs, outputs, widths, expansion) == known


@pytest.mark.parametrize("grid", [Grid.gaussian(12), Grid.equiangular(13, 24, poles=True)], ids=lambda g: g.describe())
@pytest.mark.parametrize("norm", ["batch", "instance", "whole", "none"])
def test_turning_about_the_axis_by_coarse_cells_commutes_with_the_network(grid, norm):
    shared.assert_turns(SMALL, grid, 4, norm=norm)


def test_first_published_doublings_leave_a_seam_and_later_ones_do_not():
    shared.assert_turns(SMALL, shared.GRID, 4, edges="samudra2")
    net, x = made(SMALL, edges="samudra"), fields(2, 3, 12, 24)
    with torch.no_grad():
        assert (net(x.roll(4, -1)) - net(x).roll(4, -1)).abs().max() > 1e-3


def test_rows_of_a_channel_within_a_box_go_round():
    """Turning by coarse cells commutes with the network; last and first are neighbours of an odd number of columns too."""
    box = Grid.box(12, 24, (-42, 42, 0, 60))
    shared.assert_turns(SMALL, box, 4, edges="round")
    with pytest.raises(AssertionError):
        shared.assert_turns(SMALL, box, 4)
    config = SMALL | {"widths": (6,), "dilations": (1,), "norm": "none"}
    net, open_net = (
        build(config | edges, 3, 2, Grid.box(12, 15, (-42, 42, 0, 60))) for edges in ({"edges": "round"}, {})
    )
    open_net.load_state_dict(net.state_dict())
    x = fields(1, 3, 12, 15)
    moved = x.clone()
    moved[..., 14] += 1
    with torch.no_grad():
        heard, unheard = ((n(moved) - n(x)).abs().amax((0, 1, 2)) for n in (net, open_net))
    assert heard[0] > 1e-2 and unheard[0] == 0


def test_a_cell_is_heard_across_the_pole_and_as_published_is_not():
    """On the finest level alone: what comes back from coarser ones is heard from everywhere."""
    x = fields(1, 3, 48, 96)
    other = x.clone()
    other[0, :, 0, 0] += 1
    heard = []
    for edges in ("sphere", "samudra2"):
        net = made(SMALL | dict(widths=(4,), dilations=(1,)), Grid.gaussian(48), edges=edges, norm="none")
        with torch.no_grad():
            heard.append((net(x) - net(other)).abs().amax(1)[0])
    assert heard[0][0, 48] > 1e-5 and heard[1][0, 48] == 0
    assert heard[0][0, 1] > 1e-3 and heard[1][0, 1] > 1e-3


def test_activations_are_capped():
    net = made(SMALL, norm="none")
    with torch.no_grad():
        # all but the skips of the blocks is bounded
        for block in (*net.down, net.middle, *net.up, net.last):
            block.skip = torch.nn.Sequential(torch.nn.Conv2d(block.first.in_channels, block.third.out_channels, 1))
            block.skip[0].weight.zero_(), block.skip[0].bias.zero_()
        x = fields(1, 3, 12, 24)
        assert (net(1e6 * x).abs().max() / net(1e3 * x).abs().max() - 1).abs() < 0.05


def test_gradients_of_a_tiny_network():
    shared.assert_gradients(SMALL | dict(widths=(2, 3)), Grid.gaussian(8))


def test_noise_and_conditions_start_without_effect():
    shared.assert_untouched_by_conditions(SMALL)


def test_checkpointing():
    shared.assert_checkpointing_changes_nothing_but_memory(SMALL)


def test_half_precision():
    shared.assert_half_precision_is_close(SMALL)


def test_what_comes_across_is_left_out_by_sample_in_training_alone():
    net, x = made(SMALL, drop_path=0.5, norm="none"), fields(1, 3, 12, 24).expand(16, -1, -1, -1)
    with torch.no_grad():
        assert torch.equal(net(x)[0], net(x)[1])
        assert len({float(y.norm()) for y in net.train()(x)}) > 1


def test_output_starts_at_zero_where_asked():
    assert not made(SMALL, zero_output=True)(fields(1, 3, 12, 24)).any()


@pytest.mark.parametrize(
    ("options", "grid", "message"),
    [
        ({"widths": (6,)}, shared.GRID, "as many dilations as widths, got 2 and 1"),
        ({"dilations": (1, 8)}, shared.GRID, "dilations within the grid, which has 6 x 12 cells after 1 halv.*, got 8"),
        (
            {"widths": (4,) * 3, "dilations": (1, 1, 1)},
            Grid.gaussian(
                12,
                24,
            ),
            "multiple of 16 for 3 halvings, got 24",
        ),
        ({"edges": "samudra"}, Grid.box(16, 24, (40, 66, -10, 26)), "edges sphere or round for a region"),
        ({"edges": "round"}, shared.GRID, "edges round for a region"),
    ],
)
def test_what_does_not_fit_is_refused(options, grid, message):
    with pytest.raises(NetworkError, match=message):
        build(SMALL | options, 3, 2, grid)


NOISE = shared.NOISE
GRIDS = {
    "gaussian": Grid.gaussian(16, 32),
    "uneven": Grid.gaussian(22, 48),
    "poles": Grid.equiangular(17, 32, poles=True),
    "box": Grid.box(13, 18, (40, 66, -10, 26)),
    "zone": Grid.box(15, 24, (10, 70, 0, 360)),
}
CASES = [(SMALL | {"noise": NOISE, "checkpointing": True}, "uneven", DOUBLE), (SMALL, "zone", DOUBLE)]
CASES += [(SMALL | {"norm": "none"}, "poles", DOUBLE), (SMALL, "poles", DOUBLE), (SMALL, "box", DOUBLE)]
CASES += [(SMALL | {"edges": "round"}, "box", DOUBLE)]
CASES += [(SMALL | {"norm": "none"}, "uneven", SINGLE), (SMALL, "uneven", HALF)]
CASES += [(SMALL | {"norm": norm}, "uneven", DOUBLE) for norm in ("instance", "whole")]


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_bands_give_the_outputs_and_gradients_of_one_process(size):
    """Four processes have fewer rows of the coarsest level than dilations reach over."""
    assert_equal_over_processes(size, [(config, GRIDS[grid], kind) for config, grid, kind in CASES])


def test_bands_refuse_edges_of_whole_fields():
    with pytest.raises(NetworkError, match="several processes"):
        build(SMALL | {"edges": "samudra2"}, 3, 2, GRIDS["gaussian"], Space.imagined(2))
