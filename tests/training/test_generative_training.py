"""Networks that sample a step: exact targets, the same bits after a stop and in any batch, closed budgets."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from small_planet import small_planet
from small_store import FREE, store_of
from small_training import NOISY, RECIPE, VALUES, same_state, trainer
from torch.testing import assert_close

from emulator.files.interruption import Interrupted
from emulator.model.assemble import conditions, network_of, signature_of
from emulator.model.generative import measure_noise, target
from emulator.model.noise import forecast_key, update_key
from emulator.model.rollout import rollout
from emulator.networks import cost
from emulator.networks.generative import with_time
from emulator.networks.registry import NetworkError
from emulator.networks.vectors import wind_pairs
from emulator.planet.constants import ERA5
from emulator.sphere.transform import vector_transform
from emulator.training.options import TrainOptions
from emulator.training.options.phases import Phase
from emulator.training.run import Training
from emulator.training.window import Window, WindowOptions

SHORT = {"phases": [{"updates": 4, "batch_size": 2}], "ema": 0.0}
OBJECTIVES = {
    "flow_matching": {"kind": "flow_matching", "steps": 2},
    "interpolant": {"kind": "interpolant", "steps": 2},
    "edm": {"kind": "edm", "steps": 2},
    "winds": {"kind": "interpolant", "steps": 2, "length_scale": 2000.0, "winds": "vectors"},
    "interpolant of the target's spectra": {"kind": "interpolant", "steps": 2, "spectrum": "target"},
}
PHASES = (Phase(4, batch_size=2),)


def generative(planet, directory, kind="flow_matching", **more):
    config = TrainOptions.of(VALUES | SHORT | {"objective": OBJECTIVES[kind]})
    config = dataclasses.replace(config, network=network_of(vars(config)))
    made = trainer(planet, directory, dataclasses.replace(RECIPE, phases=PHASES), config=config, **more)
    measure_noise(made.step, made.samples)
    return made


@pytest.fixture(scope="module", params=OBJECTIVES)
def trained(planet, tmp_path_factory, request):
    directory = tmp_path_factory.mktemp(request.param)
    made = generative(planet, directory, request.param)
    made.run()
    return request.param, directory, made


def test_the_target_is_what_leads_to_the_truth(planet, tmp_path):
    made = generative(planet, tmp_path)
    batch, step = made._order.batch(0), made.step
    told = target(step, batch.start(), batch.truth(0))
    state, diagnostic = step._finished(told, batch.start(), None, None)
    scale = step.change_std
    assert_close(state / scale.clamp(min=1e-12), batch.truth(0)[0] / scale.clamp(min=1e-12), rtol=0, atol=2e-3)
    assert_close(diagnostic, batch.truth(0)[1], rtol=1e-4, atol=1e-6)


def test_noise_of_a_length_is_correlated_as_a_heat_kernel(planet, tmp_path):
    made, length = generative(planet, tmp_path), 3000.0
    chosen = {"kind": "edm", "length_scale": length}
    network = {"kind": "sfno", "embed_dim": 8, "blocks": 1, "objective": chosen}
    noise, _ = conditions(network, made.samples.layout, made.samples.grid)
    fields = torch.cat([noise.draw((0, n + 1, 5)) for n in range(60)]).double()
    assert_close(fields.square().mean(), fields.new_tensor(1.0), rtol=0, atol=0.05)
    row = made.samples.grid.shape[0] // 2
    latitude, longitude = (angle[row, :2] for angle in np.radians(made.samples.grid.mesh()))
    distance = ERA5.earth_radius / 1e3 * np.cos(latitude[0]) * (longitude[1] - longitude[0])
    found = (fields[:, row] * fields[:, row].roll(1, -1)).mean()
    assert_close(found, fields.new_tensor(np.exp(-0.5 * (distance / length) ** 2)), rtol=0, atol=0.07)


def test_winds_of_samples_begin_as_vectors_where_that_is_asked_for(planet, tmp_path):
    """Components that are drawn apart are torn at the poles: of a smooth field's power some is then in all degrees."""
    made = generative(planet, tmp_path)
    layout, grid = made.samples.layout, made.samples.grid
    pairs, outputs = wind_pairs(signature_of(layout).outputs), len(signature_of(layout).outputs)

    def noise_of(**more):
        chosen = {"kind": "interpolant", "steps": 2, "length_scale": 6000.0} | more
        return conditions({"kind": "sfno", "embed_dim": 8, "blocks": 1, "objective": chosen}, layout, grid)[0]

    def fine(noise):
        found, winds = noise.rows((n, 5) for n in range(20)), vector_transform(grid)
        at = [(n * outputs + east, n * outputs + north) for n in (0, 1) for east, north in pairs]
        wind = [found[:, side].flatten(0, 1).permute(1, 2, 0) for side in np.transpose(at).tolist()]
        degrees = torch.arange(winds.lmax)
        power = sum(part.square().sum((1, 2, 3)) for part in winds.analysis(*wind)) * degrees * (degrees + 1)
        return float(power[2 * winds.lmax // 3 :].sum() / power.sum())

    assert pairs and torch.equal(noise_of().draw((1, 5)), noise_of(winds="components").draw((1, 5)))
    assert fine(noise_of(winds="vectors")) < 1e-6 < 1e-4 < fine(noise_of())
    with pytest.raises(ValueError, match="length_scale above 0 with winds: vectors"):
        noise_of(winds="vectors", length_scale=0.0)


def test_a_stopped_training_ends_with_the_same_bits(planet, trained, tmp_path):
    kind, whole, _ = trained
    first = generative(planet, tmp_path, kind)
    with pytest.raises(Interrupted):
        first.run(should_stop=lambda: first.update == 2)
    torch.rand(7)
    generative(planet, tmp_path, kind).run()
    same_state(tmp_path, whole)


def test_a_training_draws_the_noise_of_one_call_and_calls_the_network_once(trained):
    """Of the bits that a sampler's first fields have, whatever the number of its steps."""
    _, _, made = trained
    network, outputs, calls = made.step.network, made.step.network.outputs, []
    noise = made._order.batch(1).noise
    assert noise.shape[:3] == (2, 1, outputs + 1)
    whole = made.step.noise.rows([update_key(RECIPE.seed, 1, 1, 0, 1)])
    assert torch.equal(noise[1, :, :outputs], whole[:, :outputs])
    with torch.no_grad():
        hook = network.network.register_forward_hook(lambda *given: calls.append(1))
        Window(made.step, made._loss)(made._order.batch(1), WindowOptions())
        hook.remove()
    assert len(calls) == 1


def test_the_cost_that_is_told_is_of_one_call_however_long_the_sampler(tmp_path, monkeypatch):
    store, statistics = store_of(tmp_path, small_planet(times=24))
    more = {"output": tmp_path / "out", "conservation": FREE, "network": VALUES["network"]}
    measured, measure = [], cost.measure
    monkeypatch.setattr(cost, "measure", lambda *given: measured.append(measure(*given)) or measured[-1])
    for steps in (1, 6):
        objective = {"objective": {"kind": "interpolant", "steps": steps}}
        Training(TrainOptions.of(SHORT | more | objective | {"store": store, "statistics": statistics})).describe()
    assert measured[0].activations == measured[1].activations > 0


def _first(batch):
    """State, forcing and clock of a batch's first step."""
    return batch.start(), batch.forcing[:, 0], batch.clock[:, 0]


def test_members_are_the_same_in_any_batch_part_and_close_their_budgets(trained):
    kind, _, made = trained
    step, batch = made.step, made._order.batch(0)

    def forecast(members, drawn):
        start = batch.start()[:1].expand(len(members), *batch.start().shape[1:])
        forcing, clock = (part[:1, 0].expand(len(members), *part.shape[2:]) for part in (batch.forcing, batch.clock))
        given = next(iter(batch.inputs()))._replace(forcing=forcing, clock=clock)
        return list(rollout(step, start, [given._replace(noise=noise) for noise in drawn]))

    def noise_of(members):
        keys = [[forecast_key(1, made.samples.times[0], member, k) for member in members] for k in (1, 2)]
        return [step.noise.rows(row) for row in keys]

    three, last = noise_of([0, 1, 2]), noise_of([2])
    for whole, one in zip(three, last, strict=True):
        assert_close(whole[2:], one, rtol=0, atol=1e-5)
    with torch.no_grad():  # what samples, in float64, where no rounding hides a member that depends on others
        given = step.inputs(*(part[:1].expand(3, *part.shape[1:]) for part in _first(batch))).double()
        network = copy.deepcopy(step.network).double()
        drawn = three[0].double()
        assert_close(network(given, noise=drawn)[2:], network(given[2:], noise=drawn[2:]), rtol=0, atol=1e-9)
    scale = step.change_std.clamp(min=1e-12)
    together, alone = forecast([0, 1, 2], three)[-1], forecast([2], [noise[2:] for noise in three])[-1]
    if kind != "edm":  # of so few updates two of its steps turn float32's rounding into 1e-2 of a change
        assert_close(together.state[2:] / scale, alone.state / scale, rtol=1e-6, atol=1e-5)
    assert not torch.allclose(together.state[0] / scale, together.state[1] / scale, atol=0.1)
    for result in forecast([0, 1], noise_of([0, 1])):
        closed = {name: value for name, value in result.record.items() if name.startswith("residual_after")}
        assert closed and all((value.abs() < 1e-6).all() for value in closed.values())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"loss": {"kind": "l1"}}, "loss.kind mse"),
        ({"phases": [{"updates": 1, "rollout_steps": 2}]}, "phases of one step"),
        ({"start": {"checkpoint": "a", "statistics": "old"}}, "fresh weights"),
    ],
)
def test_what_an_objective_cannot_be_trained_with_is_refused(more, message):
    with pytest.raises(ValueError, match=message):
        TrainOptions.of(VALUES | SHORT | {"objective": {"kind": "edm"}} | more)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"kind": "gan"}, "gan"),
        ({"kind": "edm", "step": 3}, "Expected options among .* got step"),
        ({"kind": "flow_matching", "steps": 0}, "steps"),
        (
            {"kind": "edm", "spectrum": "target", "length_scale": 400},
            "no length_scale beside spectrum target, .* 400 km",
        ),
    ],
)
def test_objectives_that_there_are_not_are_refused_with_the_configuration(objective, message):
    with pytest.raises(ValueError, match=message):
        TrainOptions.of(VALUES | SHORT | {"objective": objective})


@pytest.mark.parametrize(
    ("network", "message"),
    [({"kind": "column"}, "can be told the time .*fuxi, .*sfno, .*unet, .*got 'column'"), (NOISY, "no network.noise")],
)
def test_networks_that_cannot_sample_are_refused(network, message):
    with pytest.raises(NetworkError, match=message):
        with_time(network)
