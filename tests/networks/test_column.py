"""Networks of columns: cells do not meet, levels do, and a recurrence is torch's."""

import dataclasses

import numpy as np
import pytest
import torch
from learning import assert_learns
from torch.testing import assert_close

from emulator.networks import column
from emulator.networks.column import ColumnNetwork, ColumnOptions
from emulator.networks.conditions import NoiseModulation, NoiseOptions
from emulator.networks.recurrence import Recurrence
from emulator.networks.registry import NetworkError, build
from emulator.networks.signature import Channel, Signature
from emulator.parallel.space import Space
from emulator.planet.grid import Grid

GRID = Grid.gaussian(8)
SPIRAL = np.arange(60) + 0.5
POINTS = Grid.points(np.degrees(np.arcsin(1 - SPIRAL / 30)), SPIRAL * 137.507764 % 360, np.ones(60))
LEVELS = (100.0, 500.0, 850.0)
DESIGNS = {name: ColumnOptions(design=name, width=8) for name in ("perceptron", "recurrence")}


def on_levels(name, role="state", levels=LEVELS, time=0):
    return [Channel(name, role, n, at, time) for n, at in enumerate(levels)]


def signature():
    """Two times of winds, a forcing on two of the levels; fluxes on levels and at the surface in between."""
    inputs = [*on_levels("u", time=-1), Channel("ps", "state", time=-1), *on_levels("u"), Channel("ps", "state")]
    inputs += [*on_levels("ozone", "forcing", LEVELS[:2]), Channel("orography", "static")]
    outputs = [*on_levels("drag", "diagnostic"), Channel("rain", "diagnostic"), *on_levels("heating", "diagnostic")]
    return Signature(tuple(inputs), (*outputs, Channel("stress", "diagnostic")))


def made(options, shape=GRID.shape, seed=0, **more):
    torch.manual_seed(seed)
    return ColumnNetwork(signature(), shape, dataclasses.replace(options, **more))


def fields(net, batch=2, seed=1):
    return torch.randn(batch, net.in_channels, *net.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("options", DESIGNS.values(), ids=DESIGNS)
def test_a_cell_hears_itself_alone(options):
    net = made(options)
    x = fields(net)
    other = x.clone()
    other[1, :, 3, 5] += 1
    with torch.no_grad():
        changed = (net(other) - net(x)).abs().amax(1)
        assert changed[1, 3, 5] > 1e-3
        changed[1, 3, 5] = 0
        assert changed.max() < 1e-6
        order = torch.randperm(x.shape[-1])
        assert_close(net(x[..., order]), net(x)[..., order])


@pytest.mark.parametrize("layers", [1, 2])
def test_the_recurrence_is_torchs(layers):
    torch.manual_seed(0)
    peer = torch.nn.LSTM(5, 4, layers, bidirectional=True).double()
    recurrences = torch.nn.Sequential(*(Recurrence(5 if n == 0 else 8, 4) for n in range(layers))).double()
    with torch.no_grad():
        for n, made in enumerate(recurrences):
            ways = [f"l{n}", f"l{n}_reverse"]
            made.weight.copy_(torch.cat([getattr(peer, f"weight_ih_{way}") for way in ways]))
            made.hidden.copy_(torch.cat([getattr(peer, f"weight_hh_{way}") for way in ways]))
            made.bias.copy_(torch.cat([getattr(peer, f"bias_ih_{w}") + getattr(peer, f"bias_hh_{w}") for w in ways]))
    x = torch.randn(6, 7, 5, dtype=torch.float64)
    expected = peer(x)[0]
    assert_close(recurrences(x), expected)
    written = x
    for one in recurrences:
        written = one.written_out(written)
    assert_close(written, expected)
    (ours,) = torch.autograd.grad(written.square().sum(), recurrences[0].hidden)
    (theirs,) = torch.autograd.grad(recurrences(x).square().sum(), recurrences[0].hidden)
    assert_close(ours, theirs)


def test_levels_hear_each_other_up_and_down_and_the_surface():
    net = made(DESIGNS["recurrence"], layers=1)
    told = signature()
    x = fields(net).double().requires_grad_()
    y = net.double()(x)
    heard = {}
    for n, channel in enumerate(told.outputs):
        (g,) = torch.autograd.grad(y[:, n].sum(), x, retain_graph=True)
        heard[channel.label] = {
            c.label for c, size in zip(told.inputs, g.abs().amax((0, 2, 3)), strict=True) if size > 0
        }
    assert all(inputs == {channel.label for channel in told.inputs} for inputs in heard.values())


def test_outputs_are_where_the_signature_says():
    net = made(DESIGNS["recurrence"], zero_output=True)
    names = {"drag": 1.0, "heating": 2.0, "rain": 3.0, "stress": 4.0}
    with torch.no_grad():
        net.columns.on_levels.bias.copy_(torch.tensor([1.0, 2.0]))
        net.columns.on_surface.bias.copy_(torch.tensor([3.0, 4.0]))
        y = net(fields(net))
        assert y[0, :, 0, 0].tolist() == [names[channel.name] for channel in signature().outputs]
        net.columns.on_levels.weight.normal_()
        y = net(fields(net))
    upper, middle, lower = y[:, :3].unbind(1)
    assert (upper - middle).abs().max() > 1e-2 and (middle - lower).abs().max() > 1e-2
    # what stands still below and above is told apart by the end it is reached from
    assert y[:, 3].unique().tolist() == [3.0]


@pytest.mark.parametrize("options", DESIGNS.values(), ids=DESIGNS)
def test_gradients_are_those_of_differences_with_conditions_noise_and_parts_computed_again(options, monkeypatch):
    monkeypatch.setattr(column, "CHUNK", 5)
    more = dict(noise=NoiseOptions((0.0,), 2), condition=("co2",), width=3)
    net = made(options, (3, 4), **more).double()
    for module in net.modules():
        if isinstance(module, NoiseModulation):
            torch.nn.init.normal_(module.weight, std=0.3)
    again = made(options, (3, 4), **more, checkpointing=True).double()
    again.load_state_dict(net.state_dict())
    condition, noise = (torch.randn(2, *of).double().requires_grad_() for of in ((1,), (2, 3, 4)))
    given = fields(net).double().requires_grad_(), condition, noise
    assert torch.autograd.gradcheck(net, given, fast_mode=True)
    for one in (net, again):
        one(*given).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().max() > 0
        assert_close(again.get_parameter(name).grad, parameter.grad)


@pytest.mark.parametrize("options", DESIGNS.values(), ids=DESIGNS)
def test_conditions_and_noise_change_no_bit_until_they_are_learned(options):
    noise = NoiseOptions((0.0,), 2, style=1)
    plain, other = made(options), made(options, noise=noise, condition=("co2", "time_of_year"))
    x, condition, noise = fields(plain), torch.randn(2, 3), torch.randn(2, 3, *GRID.shape)
    with torch.no_grad():
        assert torch.equal(other(x, condition, noise), plain(x))
        for module in other.modules():
            if isinstance(module, NoiseModulation):
                torch.nn.init.normal_(module.weight, std=0.3)
        before, after = other(x, condition, noise), other(x, condition + torch.tensor([[0.0], [1.0]]), noise)
        assert_close(after[0], before[0])  # a sample's scalars are its own
        assert (after[1] - before[1]).abs().amax(0).min() > 1e-4  # and reach every cell
        other.noise_style.weight.fill_(0.5)
        assert (other(x, condition, noise) - before).abs().max() > 1e-4
    with pytest.raises(ValueError, match=r"noise of shape \(2, 3, 8, 16\), got None"):
        other(x, condition)
    with pytest.raises(ValueError, match=r"condition of shape \(2, 3\), got None"):
        other(x, noise=noise)


@pytest.mark.parametrize("options", DESIGNS.values(), ids=DESIGNS)
def test_half_precision_is_close(options):
    net = made(options)
    x = fields(net)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = net(x)
    assert half.dtype == torch.float32
    with torch.no_grad():
        assert 0 < (half - net(x)).abs().max() < 0.05


@pytest.mark.parametrize("design", DESIGNS)
def test_bands_of_rows_are_parts_of_the_whole(design):
    """Of three processes with 3, 3 and 2 rows; gradients of weights add up."""
    config = dataclasses.asdict(DESIGNS[design]) | {"kind": "column"}
    told, x, results = signature(), None, []
    for spaces in ([Space()], [Space.imagined(3, rank) for rank in range(3)]):
        parts, gradients = [], []
        for space in spaces:
            torch.manual_seed(0)
            net = build(config, len(told.inputs), len(told.outputs), GRID, space, told).double()
            x = torch.randn(2, net.in_channels, *GRID.shape, generator=torch.Generator().manual_seed(1)).double()
            parts.append(net(space.cut(x)))
            gradients.append(torch.autograd.grad(parts[-1].square().sum(), list(net.parameters())))
        results.append((torch.cat(parts, 2), [torch.stack(each).sum(0) for each in zip(*gradients, strict=True)]))
    assert_close(results[0], results[1])


@pytest.mark.parametrize("grid", [POINTS, Grid.box(6, 7, (40, 66, -10, 26))], ids=lambda g: g.describe())
def test_points_and_regions_are_cells_like_others(grid):
    torch.manual_seed(0)
    assert_learns(build(dict(kind="column", width=16), 3, 2, grid), grid)
    net = made(DESIGNS["recurrence"], grid.shape)
    assert net(fields(net)).shape == (2, net.out_channels, *grid.shape)


def test_a_recurrence_without_levels_and_other_shapes_are_refused():
    with pytest.raises(NetworkError, match="inputs with levels for a recurrence, got none"):
        build(dict(kind="column", design="recurrence"), 3, 2, GRID)
    net = made(DESIGNS["perceptron"])
    with pytest.raises(ValueError, match=r"input of shape \('batch', 11, 8, 16\), got \(2, 11, 8, 15\)"):
        net(fields(net)[..., :15])
