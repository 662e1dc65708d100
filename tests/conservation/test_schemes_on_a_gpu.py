"""Every scheme as if on a GPU, by tensors without values: its constants follow the fields, and no value is asked for.

With gradients and without. What cannot be faked: a given dry mass, which is compared with that of the states as a forecast
begins. On a GPU the host does not ask whether Newton's method is done: the same steps are made whatever comes out, and
those that the CPU would have left out change nothing, which is tested with values here.
"""

import dataclasses
import functools

import pytest
import torch
from fake_gpu import CUDA, fake_gpu
from planets import GRIDS, LEVELS, VARIANCES, make_atmosphere, random_step

from emulator.conservation import SchemeOptions, build, fluxes, newton
from emulator.conservation.penalties import Penalty
from emulator.planet.quantities import registry

TRACER = "methane_mass_mixing_ratio"
METHANE = registry.Quantity(
    name="methane",
    label="Methane",
    units="kg m-2",
    state=(TRACER,),
    content=lambda fields, constants: fields[TRACER] * fields[TRACER],
    fluxes={},
)
SCHEMES = {
    "measured alone": ({"kind": "none"}, "hybrid"),
    "sequential": ({"kind": "sequential"}, "sigma"),
    "sequential, other forms": (
        {"dry_air": "offset", "water": "evaporation", "temperature": "ratio", "energy": "total"},
        "lid",
    ),
    "sequential, between pressures": ({"dry_air": "humidity", "heat_capacity": "moist"}, "pressure"),
    "sequential, by columns": (
        {"budgets": ("dry_air", "water", "energy", "column_water"), "anchor": "previous"},
        "hybrid",
    ),
    "projection": ({"kind": "projection"}, "hybrid"),
    "projection, between pressures": ({"kind": "projection", "relative": ()}, "pressure"),
    "projection, in bands": ({"kind": "projection", "bands": (-30.0, 30.0)}, "sigma"),
    "sequential, of another quantity": ({"budgets": ("dry_air", "water", "energy", "methane")}, "hybrid"),
    "projection, of another quantity": (
        {"kind": "projection", "budgets": ("dry_air", "water", "energy", "methane")},
        "hybrid",
    ),
}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(registry.QUANTITIES, "_entries", registry.quantities())
    return registry.register(METHANE)


def made(name, grid="gaussian", dtype=torch.float32):
    choice, levels = SCHEMES[name]
    place = GRIDS[grid]()
    atmosphere = make_atmosphere(place, LEVELS[levels])
    latitude = torch.as_tensor(place.mesh()[0]).expand(place.shape)
    atmosphere = dataclasses.replace(atmosphere, latitude=latitude.contiguous())
    states = random_step(atmosphere, dtype, noise=0.02)
    for number, state in enumerate(states, 1):
        state[TRACER] = state["specific_humidity"].abs() * number
    states[1][fluxes.DIVERGENCE] = 0.1 * states[1][fluxes.PRECIPITATION]
    return build(SchemeOptions(**choice), atmosphere, states[1], VARIANCES | {TRACER: 1e-14}), states


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_stays_on_its_device(name):
    scheme, states = made(name)
    months = torch.tensor([1.01, 0.98], dtype=torch.float64) * scheme.atmosphere.step_seconds
    with fake_gpu() as copies:
        state0, state1 = ({n: field.to(CUDA) for n, field in state.items()} for state in states)
        seconds = months.to(CUDA)
        anchor = scheme.anchor(state0)
        for traced in (False, True):
            copies.up.clear()
            leaves = {n: field.detach().requires_grad_(traced) for n, field in state1.items()}
            with torch.set_grad_enabled(traced):
                changed, record = scheme(state0, leaves, anchor, seconds)
                penalty = Penalty(scheme.budgets, dict.fromkeys(scheme.budgets, 1.0))(state0, leaves | changed, anchor)
            assert {x.device for x in (*changed.values(), *record.values(), penalty)} == {CUDA}
        assert not copies.up and not copies.down  # the constants went there the first time
        penalty.sum().backward()
        assert leaves["temperature"].grad.device == CUDA


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [name for name, (choice, _) in SCHEMES.items() if choice.get("kind") == "projection"])
def test_unasked_steps_of_newtons_method_change_nothing(monkeypatch, name, dtype):
    scheme, states = made(name, "points", dtype)
    scheme.compiled = None
    expected, record = scheme(*states)
    assert not record["saturation_projection"].any()
    monkeypatch.setattr(newton, "iterate", functools.partial(newton.iterate, asks=False))
    found, _ = scheme(*states)
    for field, value in expected.items():
        torch.testing.assert_close(found[field], value, rtol=0, atol=0)
