"""The correction of one state does not depend on what else is in the batch, nor on which process has it."""

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from planets import GRIDS, LEVELS, VARIANCES, make_atmosphere, random_step

from emulator.conservation import SchemeOptions, build, make_budgets, truth_residuals

KINDS = ["sequential", "projection"]


def setting(kind, batch, seed=0, dtype=torch.float32):
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    state0, state1 = random_step(atmosphere, dtype, batch=batch, seed=seed)
    return build(SchemeOptions(kind=kind), atmosphere, state1, VARIANCES), state0, state1


def part(state, index):
    return {name: value[index] for name, value in state.items()}


@settings(max_examples=16, deadline=None)
@given(kind=st.sampled_from(KINDS), cut=st.integers(1, 5), seed=st.integers(0, 999))
def test_batch_splits(kind, cut, seed):
    scheme, state0, state1 = setting(kind, 6, seed, torch.float64)
    whole, record = scheme(state0, state1)
    for index in (slice(0, cut), slice(cut, 6), torch.tensor([4, 1])):
        alone, alone_record = scheme(part(state0, index), part(state1, index))
        for name, value in alone.items():
            torch.testing.assert_close(value, whole[name][index], rtol=1e-13, atol=1e-20)
        for name, value in alone_record.items():
            torch.testing.assert_close(value, record[name][index], rtol=1e-6, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_member_leaves_the_others_alone(kind):
    """One member full of NaN, another far out of balance: the rest is as it would be alone."""
    scheme, state0, state1 = setting(kind, 4)
    alone, _ = scheme(part(state0, slice(0, 2)), part(state1, slice(0, 2)))
    state1["temperature"][2] = torch.nan
    state1["surface_pressure"][3] += 9000
    whole, _ = scheme(state0, state1)
    for name, value in alone.items():
        torch.testing.assert_close(whole[name][:2], value, rtol=2e-7, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_strided_views_are_fields_like_others(kind):
    """Fields are views of a channel tensor in practice."""
    scheme, state0, state1 = setting(kind, 3)
    names = [name for name in state1 if state1[name].ndim == 4]
    packed = torch.cat([state1[name] for name in names], dim=1)
    views = dict(zip(names, packed.split(8, dim=1), strict=True))
    expected, found = scheme(state0, state1)[0], scheme(state0, state1 | views)[0]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


def test_unaccounted_rates_add_up_over_chunks():
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    state0, state1 = random_step(atmosphere, torch.float64, batch=6)
    budgets = list(make_budgets(SchemeOptions(), atmosphere, state1).values())
    whole = truth_residuals(budgets, [(state0, state1)], 21600.0).unaccounted()
    chunks = [(part(state0, index), part(state1, index)) for index in (slice(0, 1), slice(1, 6))]
    pieces = truth_residuals(budgets, chunks, 21600.0).unaccounted()
    for name in ("heating", "moistening", "dry_mass"):
        assert abs(getattr(whole, name) / getattr(pieces, name) - 1) < 1e-12


def _rank(rank, path, kind, results):
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    scheme, state0, state1 = setting(kind, 4)
    shift = torch.zeros((), requires_grad=True)
    mine = slice(2 * rank, 2 * rank + 2)
    before, after = part(state0, mine), part(state1, mine)
    changed, _ = scheme(before, after | {"temperature": after["temperature"] + shift})
    changed["temperature"].square().mean().backward()
    gradient = shift.grad.clone()
    dist.all_reduce(gradient)
    gathered = [torch.empty_like(changed["temperature"]) for _ in range(2)]
    dist.all_gather(gathered, changed["temperature"].detach())
    if rank == 0:
        torch.save({"temperature": torch.cat(gathered), "gradient": gradient / 2}, results)
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes(kind, tmp_path):
    """Two ranks with half a batch each: the same fields, and the mean of their gradients is the whole batch's."""
    results = tmp_path / "results.pt"
    torch.multiprocessing.spawn(_rank, (tmp_path / "rendezvous", kind, results), nprocs=2)
    found = torch.load(results)
    scheme, state0, state1 = setting(kind, 4)
    shift = torch.zeros((), requires_grad=True)
    changed, _ = scheme(state0, state1 | {"temperature": state1["temperature"] + shift})
    changed["temperature"].square().mean().backward()
    torch.testing.assert_close(found["temperature"], changed["temperature"].detach(), rtol=2e-7, atol=0)
    torch.testing.assert_close(found["gradient"], shift.grad, rtol=1e-4, atol=1e-4)
