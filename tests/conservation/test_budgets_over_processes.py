"""Corrections of states that several processes hold together are those of one process: fields, records and gradients."""

import dataclasses

import pytest
import torch
from planets import GRIDS, LEVELS, VARIANCES, make_atmosphere, random_step
from together import together

from emulator.conservation import SchemeOptions, build, fluxes
from emulator.parallel.space import ALONE

# 7 rows over 2 and 4 processes: 4 and 3; 2, 2, 2 and 1
SCHEMES = {
    "sequential": SchemeOptions(kind="sequential"),
    "projection": SchemeOptions(kind="projection"),
    "bands": SchemeOptions(kind="projection", bands=(-20.0, 30.0)),
}
KINDS = [("sequential", "sigma"), ("sequential", "pressure"), ("projection", "hybrid"), ("bands", "sigma")]


def corrected(space, dtype=torch.float64) -> list[dict]:
    """Of every scheme the corrected fields of this process's rows, the record, and gradients of a loss of its part."""
    return [_corrected(space, *kind, dtype) for kind in KINDS]


def _corrected(space, name, levels, dtype):
    grid = GRIDS["poles"]()
    latitude = torch.as_tensor(grid.mesh()[0].copy())
    whole = dataclasses.replace(make_atmosphere(grid, LEVELS[levels]), latitude=latitude)
    state0, state1 = random_step(whole, dtype)
    variances = VARIANCES
    if name == "bands":
        state1[fluxes.DIVERGENCE] = 1e-6 * torch.sin(latitude / 30).to(dtype).expand_as(state1[fluxes.PRECIPITATION])
    state0, state1 = ({n: space.cut(x) for n, x in state.items()} for state in (state0, state1))
    inputs = {n: state1[n].clone().requires_grad_() for n in ("temperature", "specific_humidity", fluxes.PRECIPITATION)}
    scheme = build(SCHEMES[name], whole.cut(space), state1, variances)
    changed, record = scheme(state0, state1 | inputs, scheme.anchor(state0))
    weights = space.cut(torch.linspace(-1, 2, grid.shape[0], dtype=dtype)[:, None].expand(grid.shape))
    scales = {n: float(x.detach().abs().mean()) + 1e-30 for n, x in random_step(whole, dtype)[1].items()}
    loss = sum(((x / scales[n]) * weights).sum() for n, x in changed.items() if n in scales)
    gradients = torch.autograd.grad(loss, list(inputs.values()))
    return {
        "fields": {n: x.detach() for n, x in changed.items()},
        "gradients": dict(zip(inputs, gradients, strict=True)),
        "record": record,
    }


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_corrections_over_processes_are_those_of_one(size, dtype):
    expected, parts = corrected(ALONE, dtype), together(size, corrected, dtype)
    near = 1e-12 if dtype is torch.float64 else 2e-6
    for number, theirs in enumerate(expected):
        ours = [part[number] for part in parts]
        for what in ("fields", "gradients"):
            for name, field in theirs[what].items():
                found = torch.cat([one[what][name] for one in ours], -2)
                scale = float(field.abs().max())
                torch.testing.assert_close(
                    found, field, rtol=0, atol=near * scale, msg=f"{KINDS[number]} {what} {name}"
                )
        for one in ours:
            for name, value in theirs["record"].items():
                torch.testing.assert_close(one["record"][name], ours[0]["record"][name], rtol=0, atol=0, msg=name)
                if name.startswith("residual_after"):
                    closed = max(1e-12 if dtype is torch.float64 else 2e-7, 2 * float(value.abs().max()))
                    assert float(one["record"][name].abs().max()) <= closed, (KINDS[number], name)
