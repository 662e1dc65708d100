"""Steps of calendar months: budgets take fluxes over each step's own length."""

import dataclasses

import pytest
import torch
from planets import GRIDS, LEVELS, VARIANCES, make_atmosphere, random_step

from emulator.conservation import SchemeOptions, build, fluxes
from emulator.planet.calendar import MONTH_SECONDS

DAYS = torch.tensor([28.0, 31.0])


def schemes(kind):
    """A scheme whose nominal step is a month, and one for a step of each of the true lengths."""
    air = dataclasses.replace(make_atmosphere(GRIDS["gaussian"](), LEVELS["hybrid"]), step_seconds=MONTH_SECONDS)
    state0, state1 = random_step(air, torch.float64)
    for name in fluxes.NON_NEGATIVE:
        if name in state1:
            state1[name] = state1[name].clamp(min=0)
    airs = [air, *(dataclasses.replace(air, step_seconds=float(days) * 86400) for days in DAYS)]
    variances = {name: torch.tensor([value], dtype=torch.float64) for name, value in VARIANCES.items()}
    given = [variances] if kind == "projection" else []
    options = SchemeOptions(kind=kind, budgets=("dry_air", "water", "energy"))
    return state0, state1, *(build(options, each, state1, *given) for each in airs)


@pytest.mark.parametrize("kind", ["none", "sequential"])
def test_each_row_is_corrected_as_by_a_scheme_of_its_own_length(kind):
    state0, state1, nominal, *own = schemes(kind)
    anchor = nominal.anchor(state0)
    changed, record = nominal(state0, state1, anchor, seconds=DAYS * 86400)
    for row, scheme in enumerate(own):
        part0, part1 = ({n: f[row : row + 1] for n, f in state.items()} for state in (state0, state1))
        expected, recorded = scheme(part0, part1, scheme.anchor(part0))
        assert changed.keys() == expected.keys() and record.keys() == recorded.keys()
        for name, field in expected.items():
            torch.testing.assert_close(changed[name][row : row + 1], field, rtol=1e-10, atol=1e-14, msg=name)
        for name in (n for n in recorded if not n.startswith("residual_after") or kind == "none"):
            torch.testing.assert_close(record[name][row : row + 1], recorded[name], rtol=1e-7, atol=1e-13, msg=name)


@pytest.mark.parametrize("kind", ["sequential", "projection"])
def test_budgets_close_over_the_true_lengths_and_not_over_the_nominal_one(kind):
    state0, state1, nominal, *own = schemes(kind)
    changed, _ = nominal(state0, state1, nominal.anchor(state0), seconds=DAYS * 86400)
    after = state1 | changed
    for row, scheme in enumerate(own):
        part0, part1 = ({n: f[row : row + 1] for n, f in state.items()} for state in (state0, after))
        anchor = scheme.anchor(part0)
        for name, residual in scheme.residuals(part0, part1, anchor).items():
            assert abs(float(residual)) < 1e-9, name
        wrong = nominal.residuals(part0, part1, anchor)
        assert min(abs(float(wrong[name])) for name in ("water", "energy")) > 1e-6
