"""The spherical Fourier neural operator: its options, gradients and conditions, the same in every way of computing."""

import copy
import dataclasses

import pytest
import torch
from small_sfno import SMALL, awaken, fields, network
from torch.testing import assert_close

from emulator.networks.conditions import scalar_count
from emulator.networks.norms import Norm
from emulator.networks.sfno import SFNO, SFNOOptions
from emulator.sphere.transform import SphericalTransform

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
