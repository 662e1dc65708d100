"""The projection against dense linear algebra, a quadratic programme, and the fixes it contains as special cases."""

import dataclasses

import numpy as np
import pytest
import torch
from planets import CONSTANTS, GRIDS, LEVELS, STEP, VARIANCES, Auditor, make_atmosphere, random_step
from scipy.optimize import minimize

from emulator.conservation import Atmosphere, SchemeOptions, Water, build, fluxes
from emulator.conservation.bands import Bands
from emulator.conservation.multipliers import REFERENCE_PRESSURE
from emulator.planet.grid import Grid
from emulator.planet.vertical import Levels

GRAVITY = CONSTANTS.gravity


def closed(budgets, controls, relative=(), levels="sigma", variances=VARIANCES, dtype=torch.float64, bound=True):
    """A projection with the given controls and what it changed."""
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS[levels])
    state0, state1 = random_step(atmosphere, dtype, noise=0.1)
    for name in fluxes.NON_NEGATIVE:
        if name in state1 and bound:
            state1[name] = state1[name].clamp(min=0)
    options = SchemeOptions(kind="projection", budgets=budgets, controls=controls, relative=relative)
    changed, record = build(options, atmosphere, state1, variances)(state0, state1)
    return atmosphere, (state0, state1), changed, record


def fix(budgets, levels="sigma", **options):
    """The sequential fix of the same step."""
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS[levels])
    state0, state1 = random_step(atmosphere, torch.float64, noise=0.1)
    for name in fluxes.NON_NEGATIVE:
        if name in state1:
            state1[name] = state1[name].clamp(min=0)
    return build(SchemeOptions(budgets=budgets, **options), atmosphere, state1)(state0, state1)[0]


def test_uniform_warming_is_a_special_case():
    """One variance of temperature everywhere: one increment everywhere, the sequential fix."""
    _, (_, state1), changed, _ = closed(("energy",), ("temperature",))
    warming = changed["temperature"] - state1["temperature"]
    torch.testing.assert_close(warming, warming[:, :1, :1, :1].expand_as(warming), rtol=1e-8, atol=0)
    torch.testing.assert_close(changed["temperature"], fix(("energy",))["temperature"], rtol=1e-13, atol=0)


def test_additive_flux_is_a_special_case():
    _, (_, state1), changed, record = closed(("water",), (fluxes.EVAPORATION,))
    added = changed[fluxes.EVAPORATION] - state1[fluxes.EVAPORATION]
    torch.testing.assert_close(added, added[:, :1, :1].expand_as(added), rtol=1e-9, atol=0)
    expected = -record["residual_before_water"] * Auditor(closed(("water",), (fluxes.EVAPORATION,))[0]).water(
        random_step(make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"]), torch.float64, noise=0.1)[0]
    )
    torch.testing.assert_close(added[:, 0, 0], expected / STEP, rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", [fluxes.PRECIPITATION, fluxes.EVAPORATION])
def test_multiplicative_flux_is_a_special_case(name):
    """A variance in proportion to the value: one ratio everywhere, the sequential fix."""
    form = "precipitation" if name == fluxes.PRECIPITATION else "evaporation"
    _, (_, state1), changed, _ = closed(("water",), (name,), relative=(name,))
    ratio = changed[name][state1[name] != 0] / state1[name][state1[name] != 0]
    assert float((ratio - ratio.mean()).abs().max()) > 1e-3  # two elements of the batch have two ratios
    torch.testing.assert_close(changed[name], fix(("water",), water=form)[name], rtol=1e-9, atol=0)


def test_dry_air_ratio_is_a_special_case():
    """With surface pressure alone, a variance in proportion to it, and a dry atmosphere: `ps* = r ps`."""
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["hybrid"])
    state0, state1 = random_step(atmosphere, torch.float64)
    for state in (state0, state1):
        state["specific_humidity"] = torch.zeros_like(state["specific_humidity"])
    shared = {"budgets": ("dry_air",)}
    name = "surface_pressure"
    joint = build(
        SchemeOptions(kind="projection", controls=(name,), relative=(name,), **shared), atmosphere, state1, VARIANCES
    )
    alone = build(SchemeOptions(**shared), atmosphere, state1)
    torch.testing.assert_close(joint(state0, state1)[0][name], alone(state0, state1)[0][name], rtol=1e-13, atol=0)


def _dense(atmosphere, state0, state1, scheme):
    """Water budget between fixed pressures as `G x = b` in flattened controls, with the norm's diagonal covariance."""
    area, batch = atmosphere.area.reshape(-1).numpy(), len(state1["specific_humidity"])
    cells, levels = len(area), len(atmosphere.levels)
    layers = np.diff(atmosphere.levels.half_a)
    x = np.concatenate(
        [state1[n].reshape(batch, -1).numpy() for n in ("specific_humidity", fluxes.PRECIPITATION, fluxes.EVAPORATION)],
        1,
    )
    row = np.concatenate([np.outer(layers / GRAVITY, area).reshape(-1), STEP * area, STEP * area])
    start = state0["specific_humidity"].reshape(batch, -1).numpy()
    target = start @ row[: start.shape[1]]
    weights = np.outer(layers / REFERENCE_PRESSURE, area * cells).reshape(-1)
    spread = [np.full(levels * cells, VARIANCES["specific_humidity"]) / weights]
    spread += [np.full(cells, VARIANCES[n]) / (area * cells) for n in (fluxes.PRECIPITATION, fluxes.EVAPORATION)]
    return x, row[None], target, np.concatenate(spread)


def _water_between_pressures(batch=2, bound=False):
    places = np.linspace(60, -60, 8), 45.0 * np.arange(8), 1 + 0.1 * np.arange(8)
    atmosphere = make_atmosphere(Grid.points(*places), LEVELS["pressure"], surface_pressure=False)
    state0, state1 = random_step(atmosphere, torch.float64, batch=batch)
    if not bound:
        state0["specific_humidity"] = state0["specific_humidity"] + 2e-3
        state1["specific_humidity"] = state1["specific_humidity"] + 2e-3
        state1[fluxes.PRECIPITATION] = state1[fluxes.PRECIPITATION].abs() + 2e-4
    options = SchemeOptions(kind="projection", budgets=("water",), relative=())
    return atmosphere, state0, state1, build(options, atmosphere, state1, VARIANCES)


def _flat(changed):
    names = ("specific_humidity", fluxes.PRECIPITATION, fluxes.EVAPORATION)
    return np.concatenate([changed[n].reshape(len(changed[n]), -1).numpy() for n in names], 1)


def test_linear_budget_is_probconserv():
    """`x - S G^T (G S G^T)^-1 (G x - b)` in dense matrices."""
    atmosphere, state0, state1, scheme = _water_between_pressures()
    x, matrix, target, spread = _dense(atmosphere, state0, state1, scheme)
    gain = spread[:, None] * matrix.T @ np.linalg.inv(matrix * spread @ matrix.T)
    expected = x - (gain @ (x @ matrix.T - target[:, None]).T).T
    changed, record = scheme(state0, state1)
    assert float(record["saturation_specific_humidity"].max()) == 0
    np.testing.assert_allclose(_flat(changed) - x, expected - x, rtol=1e-8, atol=1e-18)


def test_bounds_solve_the_quadratic_programme():
    """Against a general solver: least change in the norm, budget closed, nothing negative."""
    atmosphere, state0, state1, scheme = _water_between_pressures(batch=1, bound=True)
    state1["specific_humidity"] = state1["specific_humidity"] - 1e-3 * torch.rand(
        state1["specific_humidity"].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    x, matrix, target, spread = _dense(atmosphere, state0, state1, scheme)
    x, size = x[0], np.sqrt(spread)
    bounded = np.arange(len(x)) < len(x) - atmosphere.area.numel()
    row = matrix[0] * size / STEP  # controls in units of their error, the budget as a rate in mm a day
    found = minimize(
        lambda y: 0.5 * y @ y,
        np.zeros_like(x),
        jac=lambda y: y,
        bounds=[(-value / s, None) if flag else (None, None) for value, s, flag in zip(x, size, bounded, strict=True)],
        constraints={
            "type": "eq",
            "fun": lambda y: 86400 * (y @ row + (matrix[0] @ x - target[0]) / STEP),
            "jac": lambda y: 86400 * row,
        },
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-14},
    )
    assert found.success, found.message
    changed, record = scheme(state0, state1)
    ours = (_flat(changed)[0] - x) / size
    assert float(record["saturation_specific_humidity"]) > 0.05
    assert _flat(changed)[0][bounded].min() == 0
    np.testing.assert_allclose(ours, found.x, rtol=0, atol=1e-5 * np.abs(ours).max())
    assert 0.5 * ours @ ours <= found.fun * (1 + 1e-9)


def test_correction_does_not_depend_on_how_the_grid_divides_the_atmosphere():
    """Every layer and every cell cut in two, with the same values: the same increments."""
    coarse = Levels.sigma([0, 0.2, 0.5, 0.8, 1])
    fine = Levels.sigma([0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1])
    grid = GRIDS["gaussian"]()
    area = torch.as_tensor(grid.area)
    results = []
    state0, state1 = random_step(Atmosphere(area, coarse, CONSTANTS, None, STEP), torch.float64, noise=0.1)
    for levels, refine in ((coarse, False), (fine, True)):

        def cut(field, refine=refine):
            if not refine:
                return field
            field = field.repeat_interleave(2, dim=1) if field.ndim == 4 else field
            return field.repeat_interleave(2, dim=-1)

        shares = area.repeat_interleave(2, dim=-1) / 2 if refine else area
        atmosphere = Atmosphere(shares, levels, CONSTANTS, None, STEP)
        before, after = ({name: cut(value) for name, value in state.items()} for state in (state0, state1))
        scheme = build(SchemeOptions(kind="projection"), atmosphere, after, VARIANCES)
        results.append({name: value[..., ::2] if refine else value for name, value in scheme(before, after)[0].items()})
    for name, value in results[0].items():
        refined = results[1][name][:, ::2] if value.ndim == 4 else results[1][name]
        torch.testing.assert_close(refined, value, rtol=1e-12, atol=1e-17)


def test_uncertain_fields_take_the_correction():
    """The share of a control grows with its variance; levels with a small variance move little."""
    levels = torch.linspace(0.1, 2, 8, dtype=torch.float64) ** 2
    _, (_, state1), changed, _ = closed(("energy",), ("temperature",), variances=VARIANCES | {"temperature": levels})
    warming = (changed["temperature"] - state1["temperature"])[0, :, 0, 0]
    torch.testing.assert_close(warming / warming[-1], levels / levels[-1], rtol=1e-8, atol=0)


def _banded(dtype=torch.float64):
    grid = Grid.gaussian(12, 8)
    atmosphere = make_atmosphere(grid, LEVELS["sigma"])
    state0, state1 = random_step(atmosphere, dtype, noise=0.2)
    latitude = torch.as_tensor(grid.mesh()[0].copy())
    atmosphere = dataclasses.replace(atmosphere, latitude=latitude)
    bands = torch.bucketize(latitude, torch.tensor([-30.0, 30.0], dtype=torch.float64))
    state1[fluxes.DIVERGENCE] = (1e-5 * torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(1))).to(dtype)
    return atmosphere, state0, state1, bands


def test_water_closes_band_by_band():
    atmosphere, state0, state1, bands = _banded()
    scheme = build(SchemeOptions(kind="projection", bands=(-30.0, 30.0)), atmosphere, state1, VARIANCES)
    changed, record = scheme(state0, state1)
    final = state1 | changed
    columns = Water(atmosphere).columns(state0, final)
    divergence = state1[fluxes.DIVERGENCE] - atmosphere.mean(state1[fluxes.DIVERGENCE]).reshape(-1, 1, 1)
    for band in range(3):
        mask = bands == band
        torch.testing.assert_close(
            atmosphere.mean((columns + STEP * divergence) * mask),
            torch.zeros(2, dtype=torch.float64),
            rtol=0,
            atol=1e-12,
        )
    for name, value in Auditor(atmosphere).residuals(state0, final).items():
        np.testing.assert_array_less(np.abs(value), 1e-12, err_msg=name)
    plain = build(SchemeOptions(kind="projection"), atmosphere, state1, VARIANCES)(state0, state1)[0]
    open_columns = Water(atmosphere).columns(state0, state1 | plain) + STEP * divergence
    assert float(atmosphere.mean(open_columns * (bands == 0)).abs().min()) > 1e-4
    assert float(record["saturation_projection"].max()) == 0


def test_one_band_is_the_globe():
    atmosphere, state0, state1, _ = _banded()
    whole, plain = (build(SchemeOptions(kind="projection"), atmosphere, state1, VARIANCES) for _ in range(2))
    bands = Bands((), atmosphere, whole.setup.budgets, set(state1))
    whole.setup, whole.compiled = dataclasses.replace(whole.setup, bands=bands), None
    found, expected = (scheme(state0, state1)[0] for scheme in (whole, plain))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-18)


def test_a_budget_without_a_free_control_is_reported():
    """Nothing that could change dry mass: it stays open, the water closes, and the record tells."""
    _, _, _, record = closed(("dry_air", "water"), (fluxes.EVAPORATION,))
    torch.testing.assert_close(record["residual_after_dry_air"], record["residual_before_dry_air"])
    assert float(record["residual_after_dry_air"].abs().min()) > 1e-8
    assert float(record["residual_after_water"].abs().max()) < 1e-12
    assert float(record["saturation_projection"].min()) == 1


@pytest.mark.parametrize(
    ("options", "variances", "message"),
    [
        ({}, {}, "error variance of the control surface_pressure"),
        ({}, VARIANCES | {"temperature": [1.0, 2.0]}, "8 error variances of temperature"),
        ({}, VARIANCES | {"temperature": -1.0}, "finite error variances of temperature"),
        ({}, VARIANCES | {"temperature": 0.0}, "not all zero"),
        ({"controls": ("ozone_mass_mixing_ratio",)}, VARIANCES, "controls among the variables"),
        ({"bands": (0.0,)}, VARIANCES, "divergence of a budget's transport"),
        ({"bands": (89.9,)}, VARIANCES, "cells of the grid in every latitude band"),
        ({"bands": (30.0, 0.0)}, VARIANCES, "increasing latitudes"),
    ],
)
def test_wrong_projections_are_refused(options, variances, message):
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    _, state1 = random_step(atmosphere)
    atmosphere = dataclasses.replace(atmosphere, latitude=torch.as_tensor(GRIDS["gaussian"]().mesh()[0].copy()))
    with pytest.raises(ValueError, match=message):
        build(SchemeOptions(kind="projection", **options), atmosphere, state1, variances)
