"""Every scheme closes every budget, on every grid, vertical coordinate and type, as an independent auditor finds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planets import GRIDS, LEVELS, STEP, VARIANCES, Auditor, make_atmosphere, random_step

from emulator.conservation import SchemeOptions, build, fluxes

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
AIM = {torch.float32: 1e-7, torch.float64: 1e-12}  # of the grids below, 84 to 112 cells; rounding falls with their root

choices = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["sequential", "projection"]),
        "dry_air": st.sampled_from(["ratio", "offset", "humidity"]),
        "water": st.sampled_from(["precipitation", "evaporation"]),
        "temperature": st.sampled_from(["uniform", "ratio"]),
        "energy": st.sampled_from([("hydrostatic", "constant"), ("hydrostatic", "moist"), ("total", "constant")]),
        "relative": st.sampled_from([(), (fluxes.PRECIPITATION,), (fluxes.PRECIPITATION, "specific_humidity")]),
    }
)


def make(choice, atmosphere, state1, **more):
    form, capacity = choice["energy"]
    options = SchemeOptions(**(choice | {"energy": form, "heat_capacity": capacity} | more))
    return build(options, atmosphere, state1, VARIANCES), Auditor(atmosphere, form, capacity == "moist")


@settings(max_examples=60, deadline=None)
@given(
    choice=choices,
    grid=st.sampled_from(sorted(GRIDS)),
    levels=st.sampled_from(sorted(LEVELS)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    snow=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_budgets_close(choice, grid, levels, dtype, snow, seed):
    # On columns cut at a surface that "humidity" does not move, drying cannot make up for a change of pressure.
    noise = 0.02 if choice["dry_air"] == "humidity" else 1.0
    atmosphere = make_atmosphere(GRIDS[grid](), LEVELS[levels], seed=seed)
    state0, state1 = random_step(atmosphere, dtype, seed=seed, snow=snow, noise=noise)
    scheme, auditor = make(choice, atmosphere, state1)
    given = {name: value.clone() for name, value in state1.items()}
    anchor = scheme.anchor(state0)
    changed, record = scheme(state0, state1, anchor)
    _check(scheme, auditor, (state0, state1, given), changed, record, dtype)


@settings(max_examples=20, deadline=None)
@given(choice=choices, grid=st.sampled_from(sorted(GRIDS)), seed=st.integers(0, 10_000), float64=st.booleans())
def test_budgets_close_between_fixed_pressures(choice, grid, seed, float64):
    dtype = torch.float64 if float64 else torch.float32
    choice = choice | {"dry_air": None, "energy": ("hydrostatic", choice["energy"][1])}
    atmosphere = make_atmosphere(GRIDS[grid](), LEVELS["pressure"], surface_pressure=False, seed=seed)
    state0, state1 = random_step(atmosphere, dtype, seed=seed)
    scheme, auditor = make(choice, atmosphere, state1)
    given = {name: value.clone() for name, value in state1.items()}
    changed, record = scheme(state0, state1, scheme.anchor(state0))
    _check(scheme, auditor, (state0, state1, given), changed, record, dtype)


def _check(scheme, auditor, states, changed, record, dtype):
    state0, state1, given = states
    assert set(changed) == set(scheme.changes)
    for name, value in state1.items():
        torch.testing.assert_close(value, given[name], rtol=0, atol=0)
    final = state1 | changed
    assert all(final[name].dtype == dtype for name in final)
    before, after = auditor.residuals(state0, state1), auditor.residuals(state0, final)
    for name in ("dry_air", "water", "energy"):
        assert np.all(np.abs(before[name]) > 100 * TOLERANCE[torch.float64])
        bound = AIM[dtype] if record.get("saturation_dry_air", torch.zeros(1)).max() < 0.5 else TOLERANCE[dtype]
        np.testing.assert_array_less(np.abs(after[name]), bound, err_msg=name)
        # What the record says is what the auditor finds.
        np.testing.assert_allclose(record[f"residual_before_{name}"], before[name], rtol=1e-3, atol=AIM[dtype])
        np.testing.assert_allclose(record[f"residual_after_{name}"], after[name], rtol=0, atol=AIM[dtype])
    for name in fluxes.NON_NEGATIVE:
        if name in final:
            assert float(final[name].min()) >= 0, name
    for name in scheme.changes:
        difference = (changed[name].double() - state1[name].double()).reshape(
            len(changed[name]), -1, *scheme.atmosphere.area.shape
        )
        expected = auditor.mean(difference.numpy() ** 2).mean(1) ** 0.5
        np.testing.assert_allclose(record[f"correction_rms_{name}"], expected, rtol=1e-4, atol=1e-30)
        if name in VARIANCES:
            share = expected / VARIANCES[name] ** 0.5
            np.testing.assert_allclose(record[f"correction_share_{name}"], share, rtol=1e-4, atol=1e-30)
    torch.testing.assert_close(
        final[fluxes.LATENT_HEAT] - state1[fluxes.LATENT_HEAT],
        (2.501e6 * (final[fluxes.EVAPORATION] - state1[fluxes.EVAPORATION])),
        rtol=1e-3,
        atol=1e-3 if dtype == torch.float32 else 1e-9,
    )


@pytest.mark.parametrize("kind", ["sequential", "projection"])
def test_closure_to_a_hundred_millionth_in_float32(kind):
    """On a T31-sized grid the rounding of float32 fields averages out: the aim is 1e-8."""
    from emulator.planet.grid import Grid

    atmosphere = make_atmosphere(Grid.gaussian(48, 96), LEVELS["sigma"])
    state0, state1 = random_step(atmosphere, batch=1)
    scheme = build(SchemeOptions(kind=kind), atmosphere, state1, VARIANCES)
    changed, _ = scheme(state0, state1, scheme.anchor(state0))
    after = Auditor(atmosphere).residuals(state0, state1 | changed)
    for name, value in after.items():
        np.testing.assert_array_less(np.abs(value), 1e-8, err_msg=name)


@pytest.mark.parametrize("kind", ["sequential", "projection"])
def test_closed_step_stays_as_it_is(kind):
    """A step that already closes is left alone, up to rounding."""
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    state0, state1 = random_step(atmosphere, torch.float64)
    scheme = build(SchemeOptions(kind=kind), atmosphere, state1, VARIANCES)
    anchor = scheme.anchor(state0)
    once = state1 | scheme(state0, state1, anchor)[0]
    twice, record = scheme(state0, once, anchor)
    for name, value in twice.items():
        torch.testing.assert_close(value, once[name], rtol=1e-10, atol=1e-18)
    for name in ("dry_air", "water", "energy"):
        assert float(record[f"residual_before_{name}"].abs().max()) < 1e-12


@pytest.mark.parametrize("kind", ["none", "sequential", "projection"])
def test_only_the_chosen_budgets(kind):
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["hybrid"])
    state0, state1 = random_step(atmosphere, torch.float64)
    scheme = build(SchemeOptions(kind=kind, budgets=("water",)), atmosphere, state1, VARIANCES)
    changed, record = scheme(state0, state1)
    assert {name for name in record if name.startswith("residual")} == {"residual_before_water", "residual_after_water"}
    assert "temperature" not in changed
    after = Auditor(atmosphere).residuals(state0, state1 | changed)
    if kind == "none":
        assert changed == {}
        np.testing.assert_allclose(record["residual_after_water"], after["water"], rtol=1e-9)
    else:
        np.testing.assert_array_less(np.abs(after["water"]), 1e-12)
    assert np.all(np.abs(after["energy"]) > 1e-8)


def test_column_water_closes_every_column():
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    state0, state1 = random_step(atmosphere, torch.float64)
    state1[fluxes.DIVERGENCE] = 1e-5 * torch.randn(state1[fluxes.PRECIPITATION].shape, dtype=torch.float64)
    for kind in ("sequential", "projection"):
        options = SchemeOptions(kind=kind, budgets=("dry_air", "water", "energy", "column_water"))
        scheme = build(options, atmosphere, state1, VARIANCES)
        changed, record = scheme(state0, state1)
        final = state1 | changed
        auditor = Auditor(atmosphere)
        columns = [
            auditor.column(s["specific_humidity"].numpy(), auditor.layers({n: v.numpy() for n, v in s.items()})[1])
            for s in (state0, final)
        ]
        gained = -(final[fluxes.DIVERGENCE] + final[fluxes.EVAPORATION] + final[fluxes.PRECIPITATION]).numpy()
        np.testing.assert_allclose(columns[1] - columns[0], STEP * gained, rtol=0, atol=1e-12)
        # Transport moves water about and makes none: its mean vanishes because the global budget closed first.
        np.testing.assert_allclose(auditor.mean(final[fluxes.DIVERGENCE].numpy()), 0, atol=1e-17)
        assert float(record["residual_before_column_water"].min()) > 1e-3
