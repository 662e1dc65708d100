"""A training that starts from weights: step 0 is the old step, what is frozen stays, adapters are small and merged."""

import contextlib
import itertools
import shutil

import pytest
import torch
from small_planet import small_planet
from small_store import FREE, NETWORK, store_of

import emulator as em
from emulator.data.samples import Samples
from emulator.files.interruption import Interrupted
from emulator.model import checkpoint
from emulator.model.assemble import make_network
from emulator.networks.adapters import matching
from emulator.store.schema import grid_of
from emulator.training.identity import identity_of
from emulator.training.layout import layout_of
from emulator.training.options import TrainOptions
from emulator.training.run import StageHooks, Training
from emulator.training.start import Start

SFNO = {"kind": "sfno", "embed_dim": 8, "blocks": 1, "stencil": 3}
FIVE = ["temperature", "surface_pressure", "specific_humidity", "u_component_of_wind", "v_component_of_wind"]
SIZE = {"times": 12, "nlat": 8, "levels": 2}
LORA = {"rank": 2, "alpha": 4.0, "layers": ["blocks.*", "encoder.*"], "besides": ["decoder.layers.1.*"]}


def options(network=SFNO, **more):
    return {
        "network": network,
        "conservation": FREE,
        "prognostic": FIVE[:4],
        "phases": [{"updates": 4, "batch_size": 2}],
        "optimizer": {"warmup_steps": 1},
        "save_every": 2,
        "log_every": 1,
    } | more


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Paths of a store and its statistics, and a folder with the checkpoints of a training of each network."""
    folder = tmp_path_factory.mktemp("from")
    paths = store_of(folder, small_planet(**SIZE))
    for name, network in (("sfno", SFNO), ("unet", NETWORK)):
        em.train(*paths, folder / name, **options(network))
    return *paths, folder


def start(stored, name="sfno", **more):
    return {"checkpoint": stored[2] / name / "checkpoint", "statistics": "old"} | more


def training(stored, output, begin, **more):
    paths = {"store": stored[0], "statistics": stored[1], "output": output}
    return Training(TrainOptions.of(options(start=begin, **more) | paths))


@contextlib.contextmanager
def asked_at(update):
    """What asks to stop after so many updates."""
    counted = itertools.count(1)
    yield lambda: next(counted) == update


def next_states(step, store):
    samples = Samples(em.open_analysis(store), step.layout)
    batch = samples.batch([3, 7], 1)
    step.eval()
    with torch.no_grad():
        return step(batch.start(), batch.forcing[:, 0], batch.clock[:, 0])


def begun(made):
    """The trainer of a training as it is before its first update, whole run and all."""
    found = []

    def keep(*arguments):
        found.append(original(*arguments))
        found[0].run = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        return found[0]

    original, made._trainer = made._trainer, keep
    with pytest.raises(KeyboardInterrupt):
        made.run()
    return found[0]


@pytest.mark.parametrize(
    "name, network, more",
    [
        ("sfno", SFNO, {"lora": {"rank": 2}, "statistics": "old"}),
        ("unet", NETWORK, {"lora": {"rank": 2}, "statistics": "new"}),
        ("unet", NETWORK, {"freeze": ["*bias"], "l2_start": 1.0}),
    ],
)
def test_step_0_is_the_step_that_it_starts_from_bit_by_bit(stored, tmp_path, name, network, more):
    trainer = begun(training(stored, tmp_path, start(stored, name, **more), network=network))
    old = em.load_model(stored[2] / name / "checkpoint", "cpu")
    found, expected = (next_states(step, stored[0]) for step in (trainer.step, old))
    assert torch.equal(found.state, expected.state) and torch.equal(found.diagnostic, expected.diagnostic)


TRANSFORMERS = {
    "fuxi": {"kind": "fuxi", "width": 8, "blocks": 2, "heads": 2, "window": 2, "groups": 2},
    "wxformer": {
        "kind": "wxformer",
        "widths": [8, 16],
        "depths": [1, 1],
        "strides": [2, 2],
        "stencils": [2, 4],
        "further_stencils": [2],
        "far": [2, 2],
        "near": 2,
        "head_width": 4,
    },
    "wxformer with limited weights": {"spectral_norm": True},
    "aurora": {
        "kind": "aurora",
        "embed_dim": 8,
        "depths": [1, 1],
        "up_depths": [1, 1],
        "heads": [2, 2],
        "window": [2, 2, 4],
        "latent_levels": 2,
        "perceiver_heads": 2,
    },
    "samudra": {"kind": "samudra", "widths": [4], "dilations": [1]},
}
TRANSFORMERS["wxformer with limited weights"] |= TRANSFORMERS["wxformer"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, layers",
    [
        ("fuxi", ["blocks.*.attention.mixing.weight", "blocks.*.attention.out.weight"]),
        ("wxformer", ["*.attentions.*.mixing.weight", "*.attentions.*.out.weight"]),
        ("wxformer with limited weights", ["*.attentions.*.mixing.*", "*.attentions.*.out.*"]),
        ("aurora", ["*.query_key_value.weight", "*.key_value.weight", "*.out.weight"]),
        ("samudra", ["down.*"]),
    ],
)
def test_adapters_of_attention_start_at_the_old_step_and_what_modules_remember_goes_with_them(
    stored, tmp_path, name, layers
):
    """Running moments and singular vectors are taken too; adapters change what they are asked to alone."""
    network, base = TRANSFORMERS[name], tmp_path / "base"
    em.train(*stored[:2], base, **options(network))
    begin = {"checkpoint": base / "checkpoint", "statistics": "old", "lora": {"rank": 2, "layers": layers}}
    old = em.load_model(base / "checkpoint", "cpu")
    step = begun(training(stored, tmp_path / "begun", begin, network=network)).step
    found, expected = (next_states(each, stored[0]) for each in (step, old))
    assert torch.equal(found.state, expected.state) and torch.equal(found.diagnostic, expected.diagnostic)
    tuned = em.train(*stored[:2], tmp_path / "lora", **options(network, start=begin))
    before = dict(old.network.named_parameters())
    moved = {n for n, p in tuned.network.named_parameters() if not torch.equal(p, before[n])}
    assert moved and moved == set(matching(layers, moved, "weights"))


@pytest.mark.slow
def test_a_variable_more_for_a_network_of_variables_starts_where_the_old_step_was(stored, tmp_path):
    """Aurora reads the new variable by weights of zero, on levels that there were."""
    network, base = TRANSFORMERS["aurora"], tmp_path / "base"
    em.train(*stored[:2], base, **options(network))
    begin = {"checkpoint": base / "checkpoint", "statistics": "old"}
    more = [FIVE[4], *FIVE[:4]]
    step = begun(training(stored, tmp_path / "more", begin, network=network, prognostic=more)).step
    old = em.load_model(base / "checkpoint", "cpu")
    found, expected = (each.fields(next_states(each, stored[0]).state) for each in (step, old))
    for name in FIVE[:4]:
        torch.testing.assert_close(found[name], expected[name], rtol=2e-5, atol=0.0, msg=name)


def test_frozen_parameters_keep_every_bit_and_the_others_move(stored, tmp_path):
    begin = start(stored, freeze=["*", "!decoder*", "!*filters*", "!*mlp*", "!*skip*"])
    step = em.train(*stored[:2], tmp_path, **options(start=begin, ema=0.5))
    before = dict(em.load_model(stored[2] / "sfno" / "checkpoint", "cpu").network.named_parameters())
    for name, parameter in step.network.named_parameters():
        frozen = name.startswith("encoder.") or "norm" in name
        assert torch.equal(parameter, before[name]) == frozen, name
    state = checkpoint.load(checkpoint.numbered(tmp_path, "state")[-1])[0]
    moments = {name.split("/")[1] for name in state if name.startswith("optimizer/")}
    assert len(moments) == sum(not (n.startswith("encoder.") or "norm" in n) for n in before)


def test_adapters_change_what_they_are_asked_to_by_a_low_rank_and_are_a_small_file(stored, tmp_path):
    wide = SFNO | {"embed_dim": 24}
    em.train(*stored[:2], tmp_path / "base", **options(wide))
    begin = {"checkpoint": tmp_path / "base" / "checkpoint", "statistics": "old", "lora": LORA}
    step = em.train(*stored[:2], tmp_path / "lora", **options(wide, start=begin))
    base = em.load_model(tmp_path / "base" / "checkpoint", "cpu")
    before, ranks = dict(base.network.named_parameters()), {}
    for name, parameter in step.network.named_parameters():
        change = (parameter - before[name]).detach()
        if change.any() and not name.startswith("decoder.layers.1."):
            matrices = change.flatten(2) if name.endswith("filters.0.weight") else change.flatten(1)
            ranks[name] = int(torch.linalg.matrix_rank(matrices, rtol=1e-3).max())
    assert set(ranks.values()) == {2}
    assert {n for n in before if n.endswith("weight") and before[n].ndim > 1} - {"decoder.layers.0.weight"} >= set(
        ranks
    )
    assert "blocks.0.filters.0.weight" in ranks and "blocks.0.mlp.convolution.weight" in ranks
    alone = em.load_model(tmp_path / "lora" / "adapters", "cpu")
    merged = em.load_model(tmp_path / "lora" / "checkpoint", "cpu")
    for name, tensor in merged.state_dict().items():
        assert torch.equal(alone.state_dict()[name], tensor), name
    sizes = [(tmp_path / "lora" / part / checkpoint.TENSORS).stat().st_size for part in ("adapters", "checkpoint")]
    assert sizes[0] < 0.25 * sizes[1]
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(checkpoint.CheckpointError, match="are for at .*base/checkpoint"):
        em.load_model(tmp_path / "lora" / "adapters")
    em.load_model(tmp_path / "lora" / "adapters", base=tmp_path / "moved" / "checkpoint")
    with pytest.raises(checkpoint.CheckpointError, match="the adapters in .* were trained on"):
        em.load_model(tmp_path / "lora" / "adapters", base=stored[2] / "sfno" / "checkpoint")


def test_adapters_of_a_training_that_is_replaced_by_one_without_go(stored, tmp_path):
    """They would add to another checkpoint than the one that lies beside them."""
    few = options() | {"phases": [{"updates": 1, "batch_size": 2}]}
    em.train(*stored[:2], tmp_path, **few | {"start": start(stored, lora={"rank": 2, "layers": ["blocks.*"]})})
    assert (tmp_path / "adapters" / checkpoint.TENSORS).exists()
    em.train(*stored[:2], tmp_path, **few | {"start": start(stored, freeze=["encoder.*"]), "overwrite": True})
    assert not (tmp_path / "adapters").exists() and (tmp_path / "checkpoint").exists()


@pytest.mark.slow
def test_averaged_adapters_are_the_checkpoints_weights(stored, tmp_path):
    validation = {"period": {"start": "2001-01-02T12"}, "every": 2, "windows": 2, "steps": 1}
    begin = start(stored, lora={"rank": 2, "layers": ["blocks.*"]})
    em.train(*stored[:2], tmp_path, **options(start=begin, ema=0.7, validation=validation))
    alone, merged = (em.load_model(tmp_path / name, "cpu").state_dict() for name in ("adapters", "checkpoint"))
    assert all(torch.equal(alone[name], tensor) for name, tensor in merged.items())


FROZEN = {"freeze": ["encoder.*"], "lr_by": {"decoder.*": 0.1}, "l2_start": 10.0}
ADAPTED = {"lora": LORA, "lr_by": {"blocks.*": 2.0}, "l2_start": 10.0}


@pytest.mark.parametrize(
    "more, stop_at",
    [(ADAPTED, 3), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((ADAPTED, 1), (FROZEN, 1), (FROZEN, 3)))],
)
def test_killed_and_started_again_it_ends_with_the_same_bits(stored, tmp_path, more, stop_at):
    begin = start(stored, **more)
    for name in ("whole", "stopped"):
        made = training(stored, tmp_path / name, begin, ema=0.9)
        if name == "stopped":
            first = training(stored, tmp_path / name, begin, ema=0.9)
            first.hooks = StageHooks(stopping=lambda: asked_at(stop_at))
            with pytest.raises(Interrupted):
                first.run()
        made.run()
    one, other = (checkpoint.load(tmp_path / name / "checkpoint") for name in ("whole", "stopped"))
    assert one[1]["sha256"] == other[1]["sha256"] and one[1]["identity"] == other[1]["identity"]
    states = [checkpoint.load(checkpoint.numbered(tmp_path / n, "state")[-1])[0] for n in ("whole", "stopped")]
    assert states[0].keys() == states[1].keys() and all(torch.equal(t, states[1][n]) for n, t in states[0].items())


def test_the_gradient_of_a_factor_is_that_of_the_loss_and_its_norm_is_clipped(stored, tmp_path):
    """Against differences of the loss, where each factor is changed and put into its weight."""
    trainer = begun(training(stored, tmp_path, start(stored, lora={"rank": 2, "layers": ["encoder.*", "*filters*"]})))
    tuned, recipe = trainer.tuned, trainer.recipe
    step = trainer.step.double()
    for adapter in tuned._adapters.values():
        adapter.double()
        torch.nn.init.normal_(adapter.outward, std=0.1)
    tuned._base = {name: base.double() for name, base in tuned._base.items()}
    x = torch.randn(1, step.network.in_channels, 8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss():
        own = dict(step.network.named_parameters())
        with torch.no_grad():
            for name, adapter in tuned._adapters.items():
                tuned._put(adapter, name, own[name])
        return step.network(x).square().mean()

    loss().backward()
    norm = tuned.clipped()
    grads = [p.grad for adapter in tuned._adapters.values() for p in adapter.parameters()]
    assert {len(list(adapter.parameters())) for adapter in tuned._adapters.values()} == {2, 3}
    total = torch.stack([g.square().sum() for g in grads]).sum().sqrt()
    torch.testing.assert_close(total, min(norm, torch.tensor(recipe.clip).double()), rtol=1e-4, atol=1e-9)
    scale = norm / total
    for adapter in tuned._adapters.values():
        for parameter in adapter.parameters():
            at = (0,) * parameter.ndim
            with torch.no_grad():
                parameter[at] += 1e-5
                up = loss()
                parameter[at] -= 2e-5
                down = loss()
                parameter[at] += 1e-5
            torch.testing.assert_close(parameter.grad[at] * scale, (up - down).detach() / 2e-5, rtol=1e-5, atol=1e-9)


def test_rates_by_pattern_and_the_pull_to_the_start_are_what_they_say(stored, tmp_path):
    """Adam's first update is the rate times the gradient's sign; a strong pull draws all the way back."""
    begin = start(stored, lr_by={"encoder.*": 0.25, "decoder.*": 2.0})
    trainer = begun(training(stored, tmp_path / "a", begin))
    before = {name: p.detach().clone() for name, p in trainer.step.network.named_parameters()}
    trainer.tuned.clear()
    for parameter in trainer.step.parameters():
        parameter.grad = torch.ones_like(parameter)
    trainer.tuned.update(1e-2)
    for name, parameter in trainer.step.network.named_parameters():
        factor = {"encoder": 0.25, "decoder": 2.0}.get(name.partition(".")[0], 1.0)
        torch.testing.assert_close(
            before[name] - parameter, torch.full_like(parameter, 1e-2 * factor), rtol=1e-3, atol=1e-6
        )
    pulled = begun(training(stored, tmp_path / "b", start(stored, l2_start=50.0)))
    with torch.no_grad():
        for parameter in pulled.step.parameters():
            parameter += 1.0
            parameter.grad = None
    pulled.tuned.update(1e-2)  # half of the way
    for name, parameter in pulled.step.network.named_parameters():
        torch.testing.assert_close(parameter - before[name], torch.full_like(parameter, 0.5), rtol=1e-5, atol=1e-5)


def test_a_variable_more_starts_where_the_old_step_was(stored, tmp_path):
    """The old variables' states are the old step's at the start, though they stand elsewhere."""
    begin = start(stored, statistics="new")
    step = begun(training(stored, tmp_path, begin, prognostic=[FIVE[4], *FIVE[:4]])).step
    old = em.load_model(stored[2] / "sfno" / "checkpoint", "cpu")
    found, expected = (each.fields(next_states(each, stored[0]).state) for each in (step, old))
    for name in FIVE[:4]:
        torch.testing.assert_close(found[name], expected[name], rtol=2e-5, atol=0.0, msg=name)
    assert step.layout.prognostic.names[0] == FIVE[4]


def test_other_statistics_rescale_the_layers_so_that_the_step_stays(stored, tmp_path):
    """Data of which every value is 3 % larger and its anomalies half as large, in statistics of their own."""
    folder = tmp_path / "warm"
    folder.mkdir()
    planet = small_planet(**SIZE)
    warmer = planet.copy()
    for name in (name for name in planet if "time" in planet[name].dims):
        mean = planet[name].mean("time")
        changed = (1.03 * mean + 0.5 * (planet[name] - mean)).transpose(*planet[name].dims)
        warmer[name] = changed.assign_attrs(planet[name].attrs)
    warm = *store_of(folder, warmer), stored[2]
    old = em.load_model(stored[2] / "sfno" / "checkpoint", "cpu")
    made = {}
    for statistics in ("old", "new"):
        begin = start(stored, statistics=statistics)
        made[statistics] = begun(training(warm, tmp_path / statistics, begin, bounds="none")).step
    assert torch.equal(made["old"].state_scale.mean, old.state_scale.mean)
    assert not torch.equal(made["new"].state_scale.mean, old.state_scale.mean)
    samples = Samples(em.open_analysis(stored[0]), old.layout)
    batch = samples.batch([3], 1)
    with torch.no_grad():
        outputs = {}
        for name, step in (("saved", old), *made.items()):
            step.eval()
            change, diagnostic = step.network(step.inputs(batch.start(), batch.forcing[:, 0], batch.clock[:, 0])).split(
                [step.layout.prognostic.count, step.layout.diagnostic.count], 1
            )
            outputs[name] = step.change_std * change, step.diagnostic_scale.inverse(diagnostic)
    for found in ("old", "new"):
        for a, b in zip(outputs[found], outputs["saved"], strict=True):
            size = b.abs().amax((0, 2, 3), keepdim=True) + 1e-30
            torch.testing.assert_close(a / size, b / size, rtol=0, atol=2e-4 if found == "new" else 0)


def test_bounds_have_room_for_what_the_checkpoint_knew_and_for_the_new_data(stored, tmp_path):
    """Warmer data of a smaller range: with its statistics the checkpoint's envelope stays part of the new one."""
    folder = tmp_path / "warm"
    folder.mkdir()
    warm = small_planet(**SIZE)
    mean = warm["temperature"].mean("time")
    changed = (mean + 10 + 0.1 * (warm["temperature"] - mean)).transpose(*warm["temperature"].dims)
    warm["temperature"] = changed.assign_attrs(warm["temperature"].attrs)
    paths = *store_of(folder, warm), stored[2]
    old = em.load_model(stored[2] / "sfno" / "checkpoint", "cpu")
    steps = {how: begun(training(paths, tmp_path / how, start(stored, statistics=how))).step for how in ("old", "new")}
    at = old.layout.prognostic.slices["temperature"]
    for name, wider, sign in (("lower", torch.minimum, -1), ("upper", torch.maximum, 1)):
        before, fresh, both = (getattr(step, name)[at] for step in (old, steps["new"], steps["old"]))
        assert torch.equal(both, wider(before, fresh))
        assert (sign * (both - fresh) >= 0).all()
    assert (steps["old"].lower[at] < steps["new"].lower[at]).all()
    free = begun(training(paths, tmp_path / "free", start(stored, statistics="old"), bounds="none")).step
    assert torch.isinf(free.upper[at]).all()
    limits = [
        begun(training(paths, tmp_path / f"{how} limits", start(stored, statistics=how), bounds="physical")).step
        for how in ("old", "new")
    ]
    assert torch.equal(limits[0].lower, limits[1].lower) and torch.equal(limits[0].upper, limits[1].upper)


@pytest.mark.slow
def test_another_grid_is_taken_over_where_the_kind_allows_it(stored, tmp_path):
    finer = tmp_path / "finer"
    finer.mkdir()
    paths = *store_of(finer, small_planet(**SIZE | {"nlat": 12})), stored[2]
    trainer = begun(training(paths, tmp_path / "unet", start(stored, "unet"), network=NETWORK))
    record = {row.name: row for row in trainer_rows(paths, stored, "unet", NETWORK)}
    assert {row.what for row in record.values()} == {"taken"} and trainer.step.static.shape[1:] == (12, 24)
    rows = trainer_rows(paths, stored, "sfno", SFNO)
    assert "degrees: 8 to 12" in next(row for row in rows if row.name == "blocks.0.filters.0.weight").how


@pytest.mark.slow
def test_a_grid_that_a_kind_does_not_take_over_is_refused(stored, tmp_path):
    finer = tmp_path / "finer"
    finer.mkdir()
    paths = *store_of(finer, small_planet(**SIZE | {"nlat": 12})), stored[2]
    pytest.importorskip("torch_harmonics")
    torch_harmonics = {"kind": "torch_harmonics", "embed_dim": 4, "num_layers": 1}
    em.train(*stored[:2], tmp_path / "th", **options(torch_harmonics))
    begin = {"checkpoint": tmp_path / "th" / "checkpoint", "statistics": "old"}
    with pytest.raises(ValueError, match="only channels, degrees and learned positions may differ"):
        training(paths, tmp_path / "no", begin, network=torch_harmonics).describe()


def trainer_rows(paths, stored, name, network):
    given = TrainOptions.of(
        options(network, start=start(stored, name)) | {"store": paths[0], "statistics": paths[1], "output": "x"}
    )
    store = em.open_analysis(paths[0])
    layout, grid = layout_of(given, store), grid_of(store)
    found = Start(given)
    found.put_into(make_network(network, layout, grid), layout, grid)
    return found.rows


def test_the_checkpoint_keeps_the_table_and_identity_goes_by_the_weights_and_not_their_place(stored, tmp_path):
    step = em.train(*stored[:2], tmp_path / "a", **options(start=start(stored), prognostic=FIVE))
    told = step.metadata["start"]
    assert {"taken", "changed"} == {row["what"] for row in told["tensors"]} and told["statistics"] == "old"
    (row,) = (row for row in told["tensors"] if row["name"] == "encoder.layers.0.weight")
    assert row["how"] == "inputs: 2 added" and row["shape"][0] == 8

    def identity(begin):
        paths = {"store": stored[0], "statistics": stored[1], "output": "x"}
        return identity_of(TrainOptions.of(options(start=begin) | paths), [em.open_analysis(stored[0])])

    shutil.copytree(stored[2] / "sfno" / "checkpoint", tmp_path / "copy")
    own = identity(start(stored))
    assert identity(start(stored) | {"checkpoint": tmp_path / "copy"}) == own
    assert own not in {identity(start(stored, "unet")), identity(start(stored, freeze=["*bias"])), identity(None)}


@pytest.mark.parametrize(
    "more, message",
    [
        (
            {"freeze": ["nothing.*"]},
            "start.freeze among encoder.layers.0.weight, .* got 'nothing.*', which matches none",
        ),
        ({"lora": {"layers": ["*bias"]}}, "start.lora.layers of weights larger than rank 8"),
        ({"lr_by": {"nope": 2.0}}, "start.lr_by of what is trained among"),
        ({"freeze": ["*"]}, "left to train"),
        ({"checkpoint": "nowhere"}, "Expected a checkpoint in nowhere"),
    ],
)
def test_a_start_that_cannot_be_is_refused_before_anything_runs(stored, tmp_path, more, message):
    with pytest.raises(ValueError, match=message):
        training(stored, tmp_path, start(stored) | more).describe()
    assert not list(tmp_path.iterdir())


def test_another_kind_and_another_prediction_are_refused_with_both(stored, tmp_path):
    with pytest.raises(ValueError, match=r"kind 'unet', as the checkpoint .* got 'sfno'"):
        training(stored, tmp_path, start(stored, "unet")).describe()
    with pytest.raises(ValueError, match=r"predict change, as the checkpoint .* got state"):
        training(stored, tmp_path, start(stored), predict="state").describe()
    with pytest.raises(ValueError, match=r"embed_dim 8, not 12"):
        training(stored, tmp_path, start(stored), network=SFNO | {"embed_dim": 12}).describe()
    assert "starts from" in training(stored, tmp_path, start(stored)).describe()
