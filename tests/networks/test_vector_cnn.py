"""The spherical CNN of vectors: rotations commute with it, not so where winds are scalars; its options and gradients."""

import dataclasses
import math

import pytest
import torch
from rotations import Rotation
from safetensors.torch import load_file, save_file
from small_sfno import awaken, fields
from torch.testing import assert_close

from emulator.networks.conditions import NoiseOptions, scalar_count
from emulator.networks.registry import NetworkError, build
from emulator.networks.signature import Channel, Signature
from emulator.networks.spectral import SpectralFilter
from emulator.networks.vector_cnn import Transforms, VectorCNN, VectorCNNOptions
from emulator.networks.vectors import (
    Sorting,
    SpectralNorm,
    VectorLinear,
    along,
    gated,
    joined,
    lengths,
    parted,
    wind_pairs,
)
from emulator.parallel.space import ALONE
from emulator.planet.grid import Grid
from emulator.sphere.tables import latitudes
from emulator.sphere.transform import SphericalTransform, VectorTransform

SMALL = VectorCNNOptions(width=8, vectors=3, blocks=2)
NOISE = NoiseOptions(length_scales=(1000.0,), channels=2)
NAMES = "temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity"


def channels(*names):
    return tuple(Channel(name, "state") for name in names)


WINDS = Signature(channels(*NAMES), channels(*NAMES))
KINDS = SphericalTransform, VectorTransform
SCALARS = Signature.plain(4, 4)  # the same fields, of which nobody knows that two are a wind


def network(options=SMALL, signature=WINDS, shape=(12, 24), seed=0, **grid):
    torch.manual_seed(seed)
    return VectorCNN(signature, *shape, options=options, **grid)


# --- which channels are a vector ------------------------------------------------------------------------------------


def test_pairs_are_of_one_name_level_time_and_role():
    found = [
        Channel("v_component_of_wind", "state", 0, time=-1),
        Channel("u_component_of_wind", "state", 0),
        Channel("u_component_of_wind", "state", 1),
        Channel("v_component_of_wind", "state", 1),
        Channel("v_component_of_wind", "state", 0),
        Channel("10m_u_component_of_wind", "state"),
        Channel("10m_v_component_of_wind", "state"),
        Channel("mean_northward_turbulent_surface_stress", "forcing"),
        Channel("mean_eastward_turbulent_surface_stress", "forcing"),
        Channel("eastward_sea_water_velocity", "forcing", 0),
        Channel("northward_sea_water_velocity", "state", 0),  # of another role
        Channel("100m_v_component_of_wind", "state"),  # alone
        Channel("vertical_velocity", "state"),
    ]
    assert wind_pairs(found) == [(1, 4), (2, 3), (5, 6), (8, 7)]


@pytest.mark.parametrize("names", [NAMES, NAMES[1:3], NAMES[:1], ("v_component_of_wind", "x", "u_component_of_wind")])
def test_channels_are_parted_and_joined_again(names):
    sorting, x = Sorting(channels(*names)), fields(2, len(names), 3, 4)
    scalars, vectors = sorting.part(x)
    assert scalars.shape[1] == sorting.scalars and vectors.shape[1] == 2 * sorting.vectors
    if sorting.vectors:
        at = [names.index(f"{component}_component_of_wind") for component in "uv"]
        assert torch.equal(vectors, x[:, at])
    assert torch.equal(sorting.join(scalars, vectors), x)


def test_the_order_of_channels_does_not_matter():
    order = [2, 0, 3, 1]
    moved = tuple(WINDS.inputs[n] for n in order)
    there, here = network(signature=Signature(moved, moved)), network()
    x = fields(1, 4, 12, 24)
    # scalars keep their order among themselves here, so that the weights are the same
    with torch.no_grad():
        assert_close(there(x[:, order]), here(x)[:, order])


# --- symmetry -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "grid", [{}, {"grid": "equiangular"}, {"grid": "equiangular", "poles": True, "shape": (13, 24)}]
)
@pytest.mark.parametrize("chosen", [{}, {"scale_factor": 2}, {"knots": 3}])
def test_turning_about_the_axis_commutes_with_the_network(grid, chosen):
    """By a turn that a coarser inner grid holds too."""
    net = awaken(network(dataclasses.replace(SMALL, components=False, **chosen), **grid))
    x = fields(2, 4, *net.outer.of_scalars.shape)
    with torch.no_grad():
        expected, found = net(x).roll(6, -1), net(x.roll(6, -1))
    largest = expected.abs().max()
    assert expected.std() > 0.01
    assert_close(found / largest, expected / largest, rtol=0, atol=1e-5)


class Fields:
    """Band-limited scalars and a wind of one sample, and a tilted rotation, on `rows` rows in float64.

    What a network makes of them is rotated to degree `kept`, on a few rows and columns. What it makes of the turned ones is
    cut there too: its last perceptron makes higher degrees, which a rotation of coefficients lacks through no fault of it.
    """

    def __init__(self, rows, degrees, kept, every=1):
        self.every, tilt = every, ((1.0, 2.0, -0.5), 0.9)
        self.given = [kind(rows, 2 * rows, lmax=degrees).double() for kind in KINDS]
        self.made = [kind(rows, 2 * rows, lmax=kept).double() for kind in KINDS]
        self.before, self.after = Rotation(self.given[0], *tilt), Rotation(self.made[0], *tilt, every)
        self.same = Rotation(self.made[0], tilt[0], 0.0, every)
        c = fields(degrees, degrees, 2, 1, 4).double() * torch.ones(degrees, degrees).tril()[:, :, None, None, None]
        c[:, 0, 1] = 0
        scalars = self.given[0].synthesis(c[..., :2])
        u, v = self.given[1].synthesis(c[..., 2:3], c[..., 3:])
        x = torch.cat([scalars[..., :1], u, v, scalars[..., 1:]], -1).permute(2, 3, 0, 1)
        self.x = x / x.square().mean((-2, -1), keepdim=True).sqrt()[:, [0, 1, 1, 3]]
        self.turned = _turned(self.before, self.given[1], self.x)

    def both(self, function):
        """What a function makes of the turned fields, and what it makes of the fields, turned."""
        with torch.no_grad():
            found = _turned(self.same, self.made[1], function(self.turned))
            return found, _turned(self.after, self.made[1], function(self.x))

    def error(self, net):
        """Root mean square of the difference over the spread."""
        found, expected = self.both(net)
        return float((found - expected).square().mean().sqrt() / expected.std())


def _turned(rotation, winds, x):
    scalars = rotation(x[:, [0, 3]])
    u, v = rotation.winds(x[:, 1:2], x[:, 2:3], winds)
    return torch.cat([scalars[:, :1], u, v, scalars[:, 1:]], 1)


def gentle(net):
    """With perceptrons of half the weights, which make fewer high degrees of low ones: the error is their aliasing."""
    net = net.double()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "mlp" in name or "coder" in name:
                parameter *= 0.5
    return net


def test_a_tilted_rotation_commutes_with_the_network_but_not_where_winds_are_scalars():
    """As initialised: all degrees are filtered, by random weights."""
    given = Fields(48, 3, 44, every=6)
    vector, scalar = (
        given.error(network(signature=signature, shape=(48, 96)).double()) for signature in (WINDS, SCALARS)
    )
    assert vector < 1e-4
    assert scalar > 10 * vector and scalar > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [{"scale_factor": 1.5}, {"knots": 6}, {"blocks": 4}])
def test_the_error_of_a_tilted_rotation_is_aliasing_and_falls_with_resolution(chosen):
    options = dataclasses.replace(SMALL, **chosen)
    errors = []
    for rows in (16, 32, 48):
        given, net = Fields(rows, 3, 12, every=4), gentle(network(options, shape=(rows, 2 * rows)))
        with torch.no_grad():
            for block in net.blocks:  # filters of as many degrees at every resolution
                shape = block.filter.weight.shape
                weight = fields(48, *shape[1:], seed=3).double() * shape[1] ** -0.5
                block.filter.weight.copy_(weight[: shape[0]])
                if not options.knots:
                    block.filter.weight[8:] = 0
        errors.append(given.error(net))
    assert errors[1] < 0.2 * errors[0] and errors[2] < 0.2 * errors[1], errors


def test_every_layer_commutes_with_a_tilted_rotation():
    """Norm and filter together on the coefficients, and on the cells mixing, inner products and gates, exactly."""
    given = Fields(16, 10, 12)
    torch.manual_seed(0)
    both = Transforms((16, 32, "gaussian", False, 12), space=ALONE).double()
    norm, mix = SpectralNorm(both.of_scalars.plan, 2, 1), SpectralFilter(both.of_scalars.plan, 4, "real")
    norm, mix = (awaken(layer).double() for layer in (norm, mix))
    sorting, mixing = Sorting(WINDS.inputs), awaken(VectorLinear(1, 1)).double()

    def apply(x):
        s, w = (both.of_scalars.from_maps(part) for part in sorting.part(x))
        coefficients, _ = both.analyse(s, w)
        s, w = both.synthesise(*parted(mix(norm(*coefficients)), 2))
        return sorting.join(both.of_scalars.to_maps(s), both.of_scalars.to_maps(mixing(w)))

    found, expected = given.both(apply)
    assert expected.std() > 0.1
    assert_close(found, expected, rtol=0, atol=1e-11)
    # in the angle between the directions of two places, which all vectors of a cell share
    x, other, made = fields(5, 1, 6).double(), fields(5, 1, 6, seed=2).double(), fields(5, 1, 7, seed=3).double()
    angle = fields(5, 1, 1, seed=4).double()

    def turned(vectors):
        u, v = vectors.chunk(2, -1)
        return torch.cat([u * angle.cos() - v * angle.sin(), u * angle.sin() + v * angle.cos()], -1)

    assert_close(along(turned(x), turned(other)), along(x, other))
    assert_close(lengths(x), along(x, x))
    scalars = fields(5, 1, 4, seed=5).double()
    (s, w), (t, v) = gated(scalars, turned(x), made, turned(other)), gated(scalars, x, made, other)
    assert_close((s, w), (t, turned(v)))
    assert_close(s, scalars + made[..., :4])


@pytest.mark.parametrize("grid", ["gaussian", "equiangular"])
def test_normalised_fields_have_a_mean_square_of_one_by_area(grid):
    """Scalars, and both components of a wind together."""
    both = Transforms((24, 48, grid, False, 10), ALONE).double()
    norm = SpectralNorm(both.of_scalars.plan, 3, 2).double()
    given, _ = both.analyse(100 * fields(24 * 48, 2, 3).double(), 0.1 * fields(24 * 48, 2, 4, seed=2).double())
    with torch.no_grad():
        s, w = (both.of_scalars.to_maps(part) for part in both.synthesise(*parted(norm(*given), 3)))
    area = latitudes(24, grid)[1][:, None] / (2 * 48)
    assert_close((s.square() * area).sum((-2, -1)), torch.ones(2, 3).double(), rtol=1e-5, atol=0)
    speeds = (w.unflatten(1, (2, 2)).square().sum(1) * area).sum((-2, -1))
    assert_close(speeds, torch.full((2, 2), 2.0).double(), rtol=1e-3, atol=0)  # the norm's own smallest number


def test_a_filter_can_be_the_divergence_and_the_vorticity():
    """Of chi = sin^2(theta) cos(2 phi) the wind's divergence is -6 chi; of u = sin(theta) the vorticity is 2 cos(theta)."""
    nlat, nlon = 16, 32
    theta, phi = latitudes(nlat)[0][:, None], torch.arange(nlon).double() * (2 * math.pi / nlon)
    chi = torch.sin(theta) ** 2 * torch.cos(2 * phi)
    u = -2 * torch.sin(theta) * torch.sin(2 * phi) + torch.sin(theta)
    v = -2 * torch.sin(theta) * torch.cos(theta) * torch.cos(2 * phi)
    both = Transforms((nlat, nlon, "gaussian", False, 12), ALONE).double()
    filtering = SpectralFilter(both.of_scalars.plan, 4, "real").double()
    l = torch.arange(12, dtype=torch.float64)
    loudness = (l * (l + 1)).sqrt()
    with torch.no_grad():  # inputs: two scalars, spheroidal, toroidal; outputs likewise
        filtering.weight.zero_()
        filtering.weight[:, 2, 0], filtering.weight[:, 3, 1] = -loudness, loudness
        filtering.weight[:, 0, 2] = loudness  # and the gradient of a scalar
    maps = torch.stack([chi, 0 * chi, u, v])[None]
    s, w = (both.of_scalars.from_maps(part) for part in (maps[:, :2], maps[:, 2:]))
    coefficients, _ = both.analyse(s, w)
    made = parted(filtering(joined(coefficients, 2)), 2)
    s, w = (both.of_scalars.to_maps(part)[0] for part in both.synthesise(*made))
    assert_close(s[0], -6 * chi, rtol=0, atol=1e-12)
    assert_close(s[1], (2 * torch.cos(theta)).expand(nlat, nlon), rtol=0, atol=1e-12)
    expected = torch.stack([u - torch.sin(theta), v.expand(nlat, nlon)])
    assert_close(w, expected, rtol=0, atol=1e-12)


# --- options and gradients ------------------------------------------------------------------------------------------

VARIANTS = [
    {"scale_factor": 1.5, "noise": NOISE},
    {"knots": 3, "truncation": 0.6},
    {"encoder_layers": 0, "components": False},
    {"position": "harmonics", "condition": ("time_of_year", "co2")},
    {"position": "learned", "drop_path": 0.3},
    {"mlp_precision": "bfloat16", "filter_precision": "bfloat16"},
]


@pytest.mark.parametrize("chosen", VARIANTS, ids=lambda c: ",".join(c))
def test_every_option_builds_and_every_parameter_has_a_gradient(chosen):
    options = dataclasses.replace(SMALL, **chosen)
    net = awaken(network(options, shape=(13, 24), grid="equiangular", poles=True))
    condition = fields(4, scalar_count(options.condition)) if options.condition else None
    noise = fields(4, NOISE.count, 13, 24) if options.noise else None
    y = net(fields(4, 4, 13, 24), condition, noise)
    assert y.shape == (4, 4, 13, 24) and y.dtype == torch.float32
    (y * fields(*y.shape, seed=5)).sum().backward()
    without = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


@pytest.mark.parametrize(
    "signature",
    [
        Signature(channels(*NAMES[1:3]), channels(*NAMES[1:3])),
        Signature(channels(*NAMES[:1]), channels(*NAMES)),
        SCALARS,
    ],
    ids=["winds alone", "winds come out alone", "no winds"],
)
def test_inputs_or_outputs_without_scalars_or_vectors(signature):
    net = network(signature=signature)
    y = net(fields(2, len(signature.inputs), 12, 24))
    assert y.shape == (2, len(signature.outputs), 12, 24)
    y.square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_gradients_are_those_of_differences():
    options = dataclasses.replace(SMALL, width=2, vectors=1, blocks=1, condition=("co2",))
    net = awaken(network(options, shape=(4, 8))).double()
    x, condition = fields(1, 4, 4, 8).double().requires_grad_(), fields(1, 1).double().requires_grad_()
    assert torch.autograd.gradcheck(net, (x, condition), fast_mode=True)
    of = dict(net.named_parameters())
    names = [name for name in of if name.startswith("blocks")]

    def by_weights(*weights):
        return torch.func.functional_call(net, dict(zip(names, weights, strict=True)), (x.detach(), condition.detach()))

    assert torch.autograd.gradcheck(by_weights, tuple(of[name] for name in names), atol=1e-4, fast_mode=True)


def test_checkpointing_gives_the_same_gradients():
    nets = [network(dataclasses.replace(SMALL, checkpointing=saving)) for saving in (False, True)]
    x = fields(2, 4, 12, 24)
    gradients = [torch.autograd.grad(net(x).square().sum(), list(net.parameters())) for net in nets]
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.equal(ours, theirs)


def test_a_condition_changes_no_bit_at_the_start():
    plain, conditioned = network(), network(dataclasses.replace(SMALL, condition=("co2",)))
    missing, unexpected = conditioned.load_state_dict(plain.state_dict(), strict=False)
    assert missing and not unexpected
    x = fields(2, 4, 12, 24)
    with torch.no_grad():
        assert torch.equal(conditioned(x, fields(2, 1)), plain(x))
        awaken(conditioned)
        assert not torch.equal(conditioned(x, fields(2, 1)), conditioned(x, fields(2, 1, seed=3)))


def test_half_precision_is_close():
    net, x = network(), fields(2, 4, 12, 24)
    half = network(dataclasses.replace(SMALL, mlp_precision="bfloat16", filter_precision="bfloat16"))
    with torch.no_grad():
        expected = net(x)
        with torch.autocast("cpu", torch.bfloat16):
            found = [net(x)]
        found.append(half(x))
    for y in found:
        assert y.dtype == torch.float32
        assert 0 < (y - expected).norm() < 0.03 * expected.norm()


def test_float64_stays_float64_and_float32_is_near():
    net, x = network(), fields(2, 4, 12, 24)
    with torch.no_grad():
        single, double = net(x), net.double()(x.double())
    assert double.dtype == torch.float64
    assert_close(single.double(), double, rtol=0, atol=2e-5 * float(double.abs().max()))


def test_the_number_of_parameters_is_that_of_its_layers():
    """As shipped on 48 x 96 cells: filters of 48 degrees, matrices of complex numbers for vectors."""
    with torch.device("meta"):
        net = VectorCNN(WINDS, 48, 96)
    width, vectors, blocks, degrees, hidden = 64, 24, 4, 48, 128
    block = (width + vectors) + degrees * (width + 2 * vectors) ** 2 + 2 * vectors**2
    block += (width + vectors) * hidden + hidden + hidden * (width + vectors)
    coders = (3 + 1) * width + width**2 + (width + 3) * width + width * 2 + 2 * (width + 1)  # hidden layers and biases
    of_winds = 2 * vectors + 2 * (vectors + 1) + 2 * 4
    assert sum(p.numel() for p in net.parameters()) == blocks * block + coders + of_winds


def test_weights_survive_a_file(tmp_path):
    net, other = network(seed=0), network(seed=1)
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    x = fields(1, 4, 12, 24)
    with torch.no_grad():
        assert torch.equal(other(x), net(x))


def test_the_output_starts_at_zero_where_asked():
    with torch.no_grad():
        assert not network(dataclasses.replace(SMALL, encoder_layers=0, zero_output=True))(fields(1, 4, 12, 24)).any()


def test_what_does_not_fit_is_refused_in_a_sentence():
    with pytest.raises(NetworkError, match="at most as many knots as 12 degrees, got 13"):
        build({"kind": "vector_cnn", "knots": 13}, 3, 2, Grid.gaussian(12))
    with pytest.raises(NetworkError, match="leaves a channel of 4, got 0.1"):
        build({"kind": "vector_cnn", "width": 4, "mlp_ratio": 0.1}, 3, 2, Grid.gaussian(12))
    with pytest.raises(ValueError, match=r"an input of shape \('batch', 4, 12, 24\), got \(1, 3, 12, 24\)"):
        network()(torch.zeros(1, 3, 12, 24))
    with pytest.raises(ValueError, match="a condition of shape None"):
        network()(torch.zeros(1, 4, 12, 24), torch.zeros(1, 1))
