"""The spherical Fourier neural operator: equivariant, and the same in every way of computing."""

import copy
import dataclasses
import math

import pytest
import torch
from torch.testing import assert_close

from emulator.networks.conditions import scalar_count
from emulator.networks.layers import InstanceNorm, Norm, linear
from emulator.networks.sfno import SFNO, SFNOOptions
from emulator.networks.spectral import FILTERS, DegreeGate, Mix, SpectralFilter
from emulator.sphere.tables import Plan, latitudes
from emulator.sphere.transform import SphericalTransform

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


# --- symmetry -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize(
    "grid", [{}, {"grid": "equiangular"}, {"grid": "equiangular", "poles": True, "shape": (13, 24)}]
)
@pytest.mark.parametrize("stencil", [1, 3])
def test_turning_about_the_axis_commutes_with_the_network(kind, grid, stencil):
    options = dataclasses.replace(SMALL, filter=kind, rank=3, spectral_layers=2, stencil=stencil)
    net = awaken(network(options, **grid))
    x = fields(2, 3, *net.outer.shape)
    with torch.no_grad():
        expected = net(x).roll(7, -1)
        found = net(x.roll(7, -1))
    assert expected.std() > 0.01
    largest = expected.abs().max()
    assert_close(found / largest, expected / largest, rtol=0, atol=1e-5)


def test_turning_about_the_axis_commutes_with_a_coarser_inner_grid():
    """By a turn that both grids hold."""
    net = awaken(network(dataclasses.replace(SMALL, scale_factor=2)))
    x = fields(2, 3, 12, 24)
    with torch.no_grad():
        assert_close(net(x.roll(6, -1)), net(x).roll(6, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["learned", "harmonics"])
def test_position_breaks_the_symmetry(kind):
    net = awaken(network(dataclasses.replace(SMALL, position=kind)))
    x = fields(1, 3, 12, 24)
    with torch.no_grad():
        assert (net(x.roll(7, -1)) - net(x).roll(7, -1)).abs().max() > 1e-2


class Rotation:
    """A rotation of band-limited fields by evaluating their harmonics at the turned points; float64."""

    def __init__(self, transform, axis, angle):
        theta = latitudes(transform.nlat)[0]
        phi = torch.arange(transform.nlon, dtype=torch.float64) * (2 * math.pi / transform.nlon)
        theta, phi = torch.meshgrid(theta, phi, indexing="ij")
        points = torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], -1)
        axis = torch.tensor(axis, dtype=torch.float64)
        x, y, z = (axis / axis.norm()).tolist()
        cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
        matrix = torch.linalg.matrix_exp(cross * angle)
        turned = points.flatten(0, 1) @ matrix  # the inverse rotation of every point
        self.transform = transform
        self.basis = self._harmonics(turned.double())

    def _harmonics(self, points):
        """`(point, lmax, lmax, 2)`: what each real coefficient contributes at each point."""
        from torch_harmonics.legendre import legpoly

        lmax = self.transform.lmax
        table = legpoly(lmax, lmax, points[:, 2].clamp(-1, 1)).permute(2, 1, 0)  # (point, l, m)
        orders = torch.arange(lmax)
        angle = torch.atan2(points[:, 1], points[:, 0])[:, None] * orders
        table = table * (2 - (orders == 0).double())
        return torch.stack([table * angle.cos()[:, None], -table * angle.sin()[:, None]], -1)

    def __call__(self, x):
        """`(batch, channel, nlat, nlon)`."""
        c = self.transform.analysis(x.permute(2, 3, 0, 1))
        turned = torch.einsum("plmr,lmrbc->pbc", self.basis, c)
        return turned.unflatten(0, self.transform.shape).permute(2, 3, 0, 1)


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_every_rotation_commutes_with_real_filters_and_not_with_complex_ones(kind):
    """On fields that the truncation holds: pointwise layers make higher degrees, which no grid can turn exactly, so the
    nonlinear parts are tested by themselves below and here the block is linear."""
    options = dataclasses.replace(
        SMALL,
        filter=kind,
        norm="none",
        mlp_ratio=0,
        activation=False,
        encoder_layers=0,
        truncation=0.5,
        pre_norm="none",
    )
    net = awaken(network(options, shape=(16, 32))).double()
    turn = Rotation(net.outer, (1.0, 2.0, -0.5), 0.9)
    smooth = net.outer.synthesis(net.outer.analysis(fields(16, 32, 2, 3).double())).permute(2, 3, 0, 1)
    with torch.no_grad():
        found, expected = net(turn(smooth)), turn(net(smooth))
    difference = ((found - expected).abs().max() / expected.std()).item()
    if kind == "real":
        assert_close(found, expected, rtol=0, atol=1e-11)
    else:
        assert difference > 0.1


def test_every_rotation_commutes_with_the_whole_real_network_as_the_grid_is_refined():
    """With GELU and norms the error is aliasing alone: it falls with resolution for fields of fixed degree."""
    options = dataclasses.replace(SMALL, filter="real", spectral_layers=2, norm="area_instance", embed_dim=4, blocks=2)
    errors = []
    for nlat in (12, 24, 40):
        net = network(options, shape=(nlat, 2 * nlat)).double()
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                generator = torch.Generator().manual_seed(len(name))
                shape = (40, *parameter.shape[1:]) if "filters" in name or "gates" in name else parameter.shape
                drawn = torch.randn(shape, generator=generator, dtype=torch.float64) * 0.2
                parameter.copy_(drawn[: len(parameter)])
                if "filters" in name or "gates" in name:
                    parameter[6:] = 0  # a filter that keeps degrees up to 5 at every resolution
        turn = Rotation(net.outer, (1.0, 2.0, -0.5), 0.9)
        c = torch.zeros(nlat, nlat, 2, 1, 3, dtype=torch.float64)
        low = torch.randn(4, 4, 2, 1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        c[:4, :4] = low * torch.ones(4, 4).tril()[:, :, None, None, None]
        c[:, 0, 1] = 0
        x = net.outer.synthesis(c).permute(2, 3, 0, 1)
        with torch.no_grad():
            expected = turn(net(x))
            errors.append(((net(turn(x)) - expected).abs().max() / expected.std()).item())
    assert errors[1] < 0.01 * errors[0] and errors[2] < 0.01 * errors[1], errors


def test_gate_and_real_filter_see_only_what_a_rotation_leaves():
    transform = SphericalTransform(16, 32, lmax=12).double()
    turn = Rotation(transform, (0.3, -1.0, 0.4), 1.7)
    torch.manual_seed(0)
    layers = [awaken(DegreeGate(transform.plan, 3)).double(), SpectralFilter(transform.plan, 3, "real").double()]
    x = transform.synthesis(transform.analysis(fields(16, 32, 2, 3).double()))
    for layer in layers:

        def apply(field, layer=layer):
            c = transform.analyse(transform.arrange(field))
            return transform.restore(transform.synthesise(layer(c)))

        with torch.no_grad():
            turned = turn(x.permute(2, 3, 0, 1)).permute(2, 3, 0, 1)
            expected = turn(apply(x).permute(2, 3, 0, 1)).permute(2, 3, 0, 1)
            assert_close(apply(turned), expected, rtol=0, atol=1e-11)


# --- options --------------------------------------------------------------------------------------------------------

VARIANTS = [
    {"filter": "complex"},
    {"filter": "real"},
    {"filter": "diagonal"},
    {"filter": "low_rank", "rank": 4},
    {"spectral_layers": 3},
    {"stencil": 3},
    {"stencil": 5, "scale_factor": 2, "mlp_ratio": 1},
    {"scale_factor": 2},
    {"scale_factor": 1.5, "filter": "real"},
    {"truncation": 0.6},
    {"mlp_ratio": 0},
    {"mlp_ratio": 3.0, "encoder_layers": 0},
    {"norm": "area_instance"},
    {"norm": "layer", "pre_norm": "branch"},
    {"norm": "none", "pre_norm": "none"},
    {"activation": False, "inner_skip": "identity", "outer_skip": "linear"},
    {"inner_skip": "none", "outer_skip": "none", "big_skip": "none"},
    {"big_skip": "add"},
    {"position": "harmonics"},
    {"position": "learned"},
    {"condition": ("time_of_year", "co2")},
    {"condition": ("time_of_year",), "norm": "none"},
    {"drop_path": 0.3},
    {"mlp_precision": "bfloat16", "filter_precision": "bfloat16"},
]


@pytest.mark.parametrize("chosen", VARIANTS, ids=lambda c: ",".join(f"{k}={v}" for k, v in c.items()))
@pytest.mark.parametrize(("grid", "shape"), [("gaussian", (12, 24)), ("equiangular", (13, 24))])
def test_every_option_builds_and_every_parameter_has_a_gradient(chosen, grid, shape):
    options = dataclasses.replace(SMALL, **chosen)
    net = awaken(network(options, shape=shape, grid=grid, poles=grid == "equiangular"))
    condition = fields(2, scalar_count(options.condition)) if options.condition else None
    y = net(fields(2, 3, *shape), condition)
    assert y.shape == (2, 2, *shape) and y.dtype == torch.float32
    (y * fields(*y.shape, seed=5)).sum().backward()
    without = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_samples_of_a_batch_do_not_know_each_other():
    net = awaken(network(dataclasses.replace(SMALL, condition=("time_of_year",)))).eval()
    x, condition = fields(3, 3, 12, 24), fields(3, 2)
    with torch.no_grad():
        together = net(x, condition)
        for n in range(3):
            assert_close(net(x[n : n + 1], condition[n : n + 1])[0], together[n], rtol=0, atol=2e-5)


def test_gradient_of_the_whole_network_is_that_of_differences():
    options = dataclasses.replace(SMALL, embed_dim=3, blocks=2, spectral_layers=2, condition=("time_of_year",))
    net = awaken(network(options, shape=(4, 8))).double()
    x, condition = fields(2, 3, 4, 8).double(), fields(2, 2).double()
    direction = fields(2, 3, 4, 8, seed=9).double()
    h = torch.nn.Parameter(x.clone())
    net(h, condition).square().sum().backward()
    step = 1e-5
    with torch.no_grad():
        ahead, behind = (net(x + s * step * direction, condition).square().sum() for s in (1, -1))
    assert_close(((ahead - behind) / (2 * step)).item(), (h.grad * direction).sum().item(), rtol=1e-7, atol=0)


def test_condition_scales_and_shifts_what_the_norms_give():
    """Before training a condition has no effect; afterwards it does, by sample."""
    options = dataclasses.replace(SMALL, condition=("time_of_year",))
    net = network(options)
    x = fields(1, 3, 12, 24).expand(2, -1, -1, -1)
    with torch.no_grad():
        plain = net(x, torch.zeros(2, 2))
        assert_close(net(x, fields(2, 2)), plain, rtol=0, atol=1e-6)
        awaken(net)
        different = net(x, torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    assert (different[0] - different[1]).abs().max() > 1e-2


def test_a_scale_and_shift_are_linear_in_the_condition():
    area = torch.full((6,), 1 / 6)
    norm = awaken(Norm("instance", 4, area, condition_dim=2))
    x, condition = fields(6, 3, 4), fields(3, 2)
    plain = Norm("instance", 4, area)
    plain.load_state_dict({"weight": norm.weight, "bias": norm.bias})
    scale, shift = norm.modulation(condition).chunk(2, -1)
    assert_close(norm(x, condition), plain(x) * (1 + scale) + shift)


def test_checkpointing_gives_the_same_output_and_gradients():
    plain = awaken(network(SMALL))
    saving = copy.deepcopy(plain)
    saving.options = dataclasses.replace(SMALL, checkpointing=True)
    x, gradients = fields(2, 3, 12, 24), []
    for net in (plain, saving):
        net(x).square().sum().backward()
        gradients.append([p.grad for p in net.parameters()])
    for found, expected in zip(*gradients, strict=True):
        assert torch.equal(found, expected)


def test_checkpointing_stores_less():
    stored = []
    for flag in (False, True):
        net = network(dataclasses.replace(SMALL, checkpointing=flag, blocks=4))
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.nbytes) or t, lambda t: t):
            net(fields(1, 3, 12, 24))
        stored.append(sum(kept))
    assert stored[1] < 0.5 * stored[0]


def test_bfloat16_layers_stay_near_float32_and_the_state_is_float32():
    exact = awaken(network(SMALL))
    half = SFNO(3, 2, 12, 24, options=dataclasses.replace(SMALL, mlp_precision="bfloat16", filter_precision="bfloat16"))
    half.load_state_dict(exact.state_dict())
    kinds = set()
    for block in half.blocks:
        block.register_forward_hook(lambda module, given, out: kinds.add(out.dtype))
    x = fields(2, 3, 12, 24)
    with torch.no_grad():
        expected, found = exact(x), half(x)
    assert kinds == {torch.float32} and found.dtype == torch.float32
    error = (found - expected).square().mean().sqrt() / expected.std()
    assert 1e-5 < error < 3e-2


def test_output_starts_at_zero_where_asked():
    x = fields(1, 3, 12, 24)
    net = network(dataclasses.replace(SMALL, zero_output=True, encoder_layers=0))
    assert not net(x).any()
    net = network(dataclasses.replace(SMALL, zero_output=True, encoder_layers=0, big_skip="add"), channels=(3, 3))
    assert torch.equal(net(x), x)


def test_smooth_fields_pass_a_coarser_inner_grid_unchanged():
    """Blocks that do nothing, and degrees that the inner grid holds."""
    options = SFNOOptions(
        embed_dim=3, blocks=3, scale_factor=2, encoder_layers=0, mlp_ratio=0, norm="none", pre_norm="none"
    )
    options = dataclasses.replace(options, activation=False, inner_skip="identity", outer_skip="none", big_skip="none")
    net = network(options, channels=(3, 3), shape=(16, 32))
    with torch.no_grad():
        for layer in (net.encoder, net.decoder):
            layer.layers[0].weight.copy_(torch.eye(3))
        for block in net.blocks:
            block.filters[0].weight.zero_()
    low = SphericalTransform(16, 32, lmax=net.inner.lmax)
    x = low.synthesis(low.analysis(fields(16, 32, 1, 3))).permute(2, 3, 0, 1)
    assert_close(net(x), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"filter": "quaternion"}, "Expected filter among"),
        ({"blocks": 0}, "Expected blocks of at least 1, got 0"),
        ({"mlp_ratio": -1}, "Expected mlp_ratio of at least 0"),
        ({"mlp_ratio": 0.01}, "Expected an mlp_ratio of 0 or one that leaves a channel of 64, got 0.01"),
        ({"truncation": 1.5}, "Expected truncation above 0 and at most 1, got 1.5"),
        ({"drop_path": 1.0}, "Expected drop_path of at least 0 and below 1"),
    ],
)
def test_impossible_options_are_refused(chosen, message):
    with pytest.raises(ValueError, match=message):
        SFNOOptions(**chosen)


@pytest.mark.parametrize("chosen", [{"scale_factor": 100}, {"truncation": 1e-3}])
def test_grids_without_a_degree_are_refused(chosen):
    with pytest.raises(
        ValueError, match="Expected a scale_factor and a truncation that leave a degree.* 12 x 24 cells"
    ):
        network(SFNOOptions(**chosen))


def test_inputs_of_another_shape_are_refused():
    net = network()
    with pytest.raises(ValueError, match=r"Expected an input of shape \('batch', 3, 12, 24\), got \(1, 3, 24, 12\)"):
        net(torch.zeros(1, 3, 24, 12))
    with pytest.raises(ValueError, match="Expected a condition of shape None"):
        net(torch.zeros(1, 3, 12, 24), torch.zeros(1, 2))


# --- layers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "half"), [("complex", False), ("real", False), ("complex", True), ("real", True)])
def test_channel_mixing_is_a_product_by_degree_with_the_right_gradients(kind, half):
    plan = SphericalTransform(10, 20, lmax=9).plan
    assert isinstance(plan, Plan)
    transform = SphericalTransform(10, 20, lmax=9)
    torch.manual_seed(0)
    layer = SpectralFilter(plan, 4, kind, precision="bfloat16" if half else "float32")
    c = transform.pack(transform.analysis(fields(10, 20, 2, 4))).requires_grad_()
    weight = (
        torch.view_as_complex(layer.weight.detach().movedim(2, -1).contiguous()) if kind == "complex" else layer.weight
    )

    def reference(c, weight):
        dense = torch.view_as_complex(transform.unpack(c).movedim(2, -1).contiguous())
        product = torch.einsum("lmbi,lio->lmbo", dense, weight.to(dense.dtype))
        return transform.pack(torch.view_as_real(product).movedim(-1, 2))

    weight = weight.detach().requires_grad_()
    there = torch.ones(9, 9).tril()[:, :, None, None, None]  # coefficients of degrees below the order are none
    upstream = transform.pack(fields(9, 9, 2, *c.shape[1:], seed=4) * there)
    expected = torch.autograd.grad((reference(c, weight) * upstream).sum(), (c, weight))
    y = Mix.apply(c, layer.weight, list(plan), half)
    found = torch.autograd.grad((y * upstream).sum(), (c, layer.weight))
    tolerance = {"rtol": 3e-2, "atol": 6e-2} if half else {"rtol": 1e-4, "atol": 1e-4}
    assert_close(y, reference(c, weight), **tolerance)
    assert_close(found[0], expected[0], **tolerance)
    g = torch.view_as_real(expected[1]).movedim(-1, 2) if kind == "complex" else expected[1]
    assert_close(found[1], g, **tolerance)


def test_instance_norm_is_torchs_own_with_its_gradients():
    x = fields(50, 2, 3).double().requires_grad_()
    scale, shift = fields(2, 3, seed=2).double().requires_grad_(), fields(2, 3, seed=3).double().requires_grad_()
    y = InstanceNorm.apply(x.flatten(1), scale.flatten(), shift.flatten(), 1e-6).view(x.shape)
    variance, mean = torch.var_mean(x, 0, correction=0)
    assert_close(y, (x - mean) / torch.sqrt(variance + 1e-6) * scale + shift)
    assert torch.autograd.gradcheck(
        lambda a, b, c: InstanceNorm.apply(a.flatten(1), b.flatten(), c.flatten(), 1e-6), (x, scale, shift)
    )


def test_area_norm_does_not_depend_on_where_the_rows_crowd():
    """Of a zonal field given on two grids, the normalised values agree with the integral's, not with the rows' mean."""
    transform = SphericalTransform(40, 80, "equiangular")
    shares = (latitudes(40, "equiangular")[1] / 160).float()[:, None].expand(40, 80)
    area = transform.arrange(shares[..., None])[:, 0]
    sine = torch.cos(latitudes(40, "equiangular")[0]).float()[:, None].expand(40, 80)
    norm = Norm("area_instance", 1, area)
    y = transform.restore(norm(transform.arrange((sine**2)[..., None, None])))[..., 0, 0]
    # over the sphere sin^2 has mean 1/3 and variance 1/5 - 1/9
    assert_close(y.detach(), (sine**2 - 1 / 3) / math.sqrt(4 / 45), rtol=0, atol=2e-4)


@pytest.mark.parametrize("points", [5, 1024, 1041, 4096])
def test_linear_layer_is_torchs_whichever_library_it_takes(points):
    x, weight, bias = fields(points, 3, 7), fields(5, 7, seed=2), fields(5, seed=3)
    expected = (x.double() @ weight.double().T + bias.double()).float()
    assert_close(linear(x, weight, bias), expected, rtol=1e-5, atol=1e-5)
    upstream = fields(points, 3, 5, seed=4)
    given = [t.requires_grad_() for t in (x, weight, bias)]
    found = torch.autograd.grad((linear(*given) * upstream).sum(), given)
    exact = [t.detach().double().requires_grad_() for t in given]
    slopes = torch.autograd.grad((torch.nn.functional.linear(*exact) * upstream.double()).sum(), exact)
    for a, b in zip(found, slopes, strict=True):
        assert_close(a, b.float(), rtol=1e-4, atol=1e-4)


def test_a_recorded_network_gives_the_same_output():
    """`torch.jit.trace` hands out numbers that compiled kernels cannot read: they had crashed."""
    net, x = awaken(network(dataclasses.replace(SMALL, blocks=1, stencil=3))), fields(2, 3, 12, 24)
    recorded = torch.jit.trace(net, x, check_trace=False)
    for seed in (1, 5):
        x = fields(2, 3, 12, 24, seed=seed)
        assert_close(recorded(x), net(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("stencil", [1, 3])
def test_compiled_network_gives_the_same_output_and_gradient(stencil):
    net = awaken(network(dataclasses.replace(SMALL, blocks=1, stencil=stencil)))
    x, results = fields(1, 3, 12, 24), []
    for function in (net, torch.compile(net, fullgraph=True)):
        net.zero_grad()
        y = function(x)
        y.square().sum().backward()
        results.append([y.detach(), *(p.grad for p in net.parameters())])
    for found, expected in zip(*results, strict=True):
        assert_close(found, expected, rtol=1e-3, atol=1e-5 * max(g.abs().max().item() for g in results[0]))
