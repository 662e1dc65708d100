"""The planar Fourier neural operator: its waves in closed form, and beside another package's."""

import math

import map_networks as shared
import pytest
import torch
from map_networks import fields, made
from torch.testing import assert_close

from emulator.networks.fno import FNO, FNOOptions, Waves
from emulator.networks.registry import NetworkError, build
from emulator.planet.grid import Grid

SMALL = dict(kind="fno", width=6, blocks=2, modes=(3, 5), padding=4, hidden=8)


def complex_weight(waves):
    return torch.view_as_complex(waves.weight.detach())


@pytest.mark.parametrize(("k", "m"), [(0, 0), (2, 0), (0, 3), (2, 4), (-2, 4), (-3, 1)])
def test_a_wave_comes_out_times_its_own_matrix(k, m):
    """cos(k y + m x + p) with complex factor w becomes Re(w exp(i (k y + m x + p))); of other waves nothing comes out."""
    waves, rows, columns = Waves(2, 3, (3, 5)).double(), 14, 20
    y, x = torch.arange(rows).double() * 2 * math.pi / rows, torch.arange(columns).double() * 2 * math.pi / columns
    wave = torch.exp(1j * (k * y[:, None] + m * x + 0.7))
    weight = complex_weight(waves)[k, m]  # (in, out); a negative number counts from the end, as rows do
    if m == 0:  # real fields hold a wave and its mirror image, each with a matrix of its own
        mirrored = complex_weight(waves)[-k, 0].conj() if abs(k) < 3 else 0
        weight = (weight + mirrored) / 2 if k else weight.real
    given = torch.stack([wave.real, 2 * wave.imag])[None]
    amplitudes = torch.tensor([1, -2j], dtype=torch.complex128)
    expected = ((amplitudes[:, None] * weight).sum(0)[:, None, None] * wave).real if k or m else None
    if expected is None:
        expected = (given[0].mean((1, 2))[:, None] * weight).sum(0)[:, None, None].expand(3, rows, columns)
    assert_close(waves(given)[0], expected, rtol=0, atol=1e-12)
    beyond = torch.cos(4 * y[:, None] + m * x) + torch.cos(k * y[:, None] + 6 * x)
    assert waves(beyond.expand(1, 2, -1, -1)).abs().max() < 1e-12


def test_with_their_weights_waves_are_those_of_neuralop():
    convolution = pytest.importorskip("neuralop.layers.spectral_convolution").SpectralConv
    torch.manual_seed(0)
    theirs = convolution(3, 2, n_modes=(6, 8), bias=False, implementation="reconstructed")
    weight = theirs.weight.to_tensor() if hasattr(theirs.weight, "to_tensor") else theirs.weight
    ours = Waves(3, 2, (3, 5))
    with torch.no_grad():  # they count rows from -3 to 2, we from 0 to 2 and then from -3 on
        ours.weight.copy_(torch.view_as_real(weight.permute(2, 3, 0, 1).roll(3, 0).resolve_conj().contiguous()))
        x = fields(2, 3, 12, 24)
        y = theirs(x)
        assert_close(ours(x), y, rtol=0, atol=1e-5 * float(y.abs().max()))


def test_parameters_by_formula():
    options = FNOOptions(width=32, blocks=4, modes=(12, 12), hidden=128)
    with torch.device("meta"):
        network = FNO(3, 1, 64, 64, options=options)
    expected = 4 * 32 + 4 * (2 * 2 * 12 * 12 * 32**2 + 33 * 32) + 33 * 128 + 129
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize("grid", [Grid.gaussian(12), Grid.equiangular(13, 24, poles=True)], ids=lambda g: g.describe())
@pytest.mark.parametrize("latitude", ["padded", "periodic", "sphere"])
def test_turning_about_the_axis_by_a_cell_commutes_with_the_network(grid, latitude):
    shared.assert_turns(SMALL, grid, 1, latitude=latitude)


@pytest.mark.parametrize("poles", [False, True])
def test_meridians_go_on_across_the_poles(poles):
    """A smooth function of the place goes on smoothly: sampled on whole great circles it is itself."""
    rows = 12 + poles
    net = FNO(1, 1, rows, 24, poles, FNOOptions(modes=(3, 5), latitude="sphere"))
    step = math.pi / 12
    theta = (torch.arange(24).double() + (0 if poles else 0.5)) * step
    phi = torch.arange(24).double() * 2 * math.pi / 24
    field = theta.sin()[:, None] * phi.cos() + 0.3 * theta.cos()[:, None] ** 2
    assert_close(net._extended(field[None, None, :rows])[0, 0], field, rtol=0, atol=1e-12)


def test_what_is_near_the_other_end_is_near_where_latitude_is_periodic_alone():
    """An impulse at the south pole reaches the north pole at once; with a wide padding it has further to go."""
    x = torch.zeros(1, 3, 12, 24)
    x[0, :, -1, 3] = 1
    heard = {}
    for latitude in ("periodic", "padded"):
        net = made(SMALL, latitude=latitude, padding=12)
        with torch.no_grad():
            heard[latitude] = net.blocks[0].waves(net._extended(net.lift(x) - net.lift(0 * x)))[:, :, 0].abs().max()
    assert heard["padded"] < 0.8 * heard["periodic"]


def test_gradients_of_a_tiny_network():
    shared.assert_gradients(SMALL | dict(width=2, modes=(2, 2), hidden=3, padding=1), Grid.gaussian(6))


def test_noise_and_conditions_start_without_effect():
    shared.assert_untouched_by_conditions(SMALL)


def test_checkpointing():
    shared.assert_checkpointing_changes_nothing_but_memory(SMALL)


def test_half_precision():
    shared.assert_half_precision_is_close(SMALL)


def test_output_starts_at_zero_where_asked():
    assert not made(SMALL, zero_output=True)(fields(1, 3, 12, 24)).any()


def test_more_modes_than_the_grid_has_are_refused():
    with pytest.raises(NetworkError, match="modes of at most 8 and 13, got 9 and 5"):
        build(SMALL | {"modes": (9, 5)}, 3, 2, shared.GRID)
    with pytest.raises(NetworkError, match="two numbers of modes"):
        build(SMALL | {"modes": (9,)}, 3, 2, shared.GRID)
