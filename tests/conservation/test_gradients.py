"""The schemes are differentiable: exact gradients in float64, finite ones on bounds."""

import pytest
import torch
from planets import LEVELS, VARIANCES, make_atmosphere, random_step

from emulator.conservation import SchemeOptions, build, fluxes
from emulator.planet.grid import Grid

SIZES = {"surface_pressure": 100.0, "temperature": 1.0, "specific_humidity": 1e-3}
SCHEMES = [
    {"kind": "sequential"},
    {
        "kind": "sequential",
        "dry_air": "offset",
        "water": "evaporation",
        "temperature": "ratio",
        "heat_capacity": "moist",
    },
    {"kind": "sequential", "dry_air": "humidity", "energy": "total"},
    {"kind": "projection"},
    {"kind": "projection", "energy": "total", "relative": (fluxes.PRECIPITATION, "specific_humidity")},
    {"kind": "projection", "heat_capacity": "moist", "relative": ()},
]


def size_of(name):
    return SIZES.get(name, 10.0 if "wind" in name or "radiation" in name or "heat" in name else 1e-5)


@pytest.mark.parametrize("levels", ["lid", "pressure"])
@pytest.mark.parametrize("choice", SCHEMES, ids=lambda c: "-".join(str(v) for v in c.values() if isinstance(v, str)))
@pytest.mark.parametrize("start", [False, True], ids=["prediction", "start"])
def test_gradcheck(choice, levels, start):
    """Against finite differences, in units in which every field varies by about one."""
    atmosphere = make_atmosphere(Grid.gaussian(4, 3), LEVELS[levels])
    states = random_step(atmosphere, torch.float64, batch=1, noise=0.05)
    for state in states:
        state["specific_humidity"] = state["specific_humidity"].abs() + 2e-3  # off its bound
        if fluxes.PRECIPITATION in state:
            state[fluxes.PRECIPITATION] = state[fluxes.PRECIPITATION].abs() + 1e-5
    scheme = build(SchemeOptions(**choice), atmosphere, states[1], VARIANCES)
    moved = states[0 if start else 1]
    names = [name for name in scheme.required if name in moved]

    def corrected(*units):
        field = {name: moved[name] + size_of(name) * unit for name, unit in zip(names, units, strict=True)}
        pair = (states[0] | field, states[1]) if start else (states[0], states[1] | field)
        changed, _ = scheme(*pair)
        return torch.cat([((changed[name] - states[1][name]) / size_of(name)).flatten() for name in scheme.changes])

    units = [torch.zeros_like(moved[name], requires_grad=True) for name in names]
    assert torch.autograd.gradcheck(corrected, units, eps=1e-5, atol=2e-5, rtol=1e-3, fast_mode=True)


@pytest.mark.parametrize("kind", ["sequential", "projection"])
def test_gradients_are_finite_on_the_bounds(kind):
    """Where humidity and rain are clipped, or there is no rain at all, gradients stay finite."""
    atmosphere = make_atmosphere(Grid.gaussian(8), LEVELS["sigma"])
    state0, state1 = random_step(atmosphere)
    state1[fluxes.PRECIPITATION][0] = 0
    state1["specific_humidity"][:, :2] = 0
    state1 = {name: value.requires_grad_() for name, value in state1.items()}
    changed, _ = build(SchemeOptions(kind=kind), atmosphere, state1, VARIANCES)(state0, state1)
    sum((value / size_of(name)).square().mean() for name, value in changed.items()).backward()
    for name in ("temperature", "specific_humidity", "surface_pressure", *fluxes.TOP_FLUXES):
        assert bool(torch.isfinite(state1[name].grad).all()), name
        assert float(state1[name].grad.abs().max()) > 0, name


@pytest.mark.parametrize("kind", ["sequential", "projection"])
def test_values_are_the_same_with_and_without_gradients(kind):
    atmosphere = make_atmosphere(Grid.gaussian(8), LEVELS["sigma"])
    state0, state1 = random_step(atmosphere, torch.float64)
    scheme = build(SchemeOptions(kind=kind), atmosphere, state1, VARIANCES)
    with_gradients, record = scheme(state0, {name: value.requires_grad_() for name, value in state1.items()})
    with torch.no_grad():
        without, _ = scheme(state0, state1)
    for name, value in with_gradients.items():
        torch.testing.assert_close(value.detach(), without[name], rtol=1e-12, atol=1e-16)
    assert not any(value.requires_grad for value in record.values())


def test_training_through_a_scheme_learns():
    """Descent on a loss after the correction lowers it: the scheme passes useful gradients."""
    atmosphere = make_atmosphere(Grid.gaussian(8), LEVELS["sigma"])
    state0, truth = random_step(atmosphere, noise=0.2)
    scheme = build(SchemeOptions(kind="projection"), atmosphere, truth, VARIANCES)
    truth = truth | scheme(state0, truth)[0]
    wrong = torch.nn.Parameter(torch.randn(truth["temperature"].shape, generator=torch.Generator().manual_seed(0)))
    optimizer = torch.optim.Adam([wrong], lr=0.1)
    losses = []
    for _ in range(20):
        predicted = truth | {"temperature": truth["temperature"] + wrong}
        corrected, _ = scheme(state0, predicted)
        loss = (corrected["temperature"] - truth["temperature"]).square().mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.05 * losses[0]
