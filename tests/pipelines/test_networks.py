"""The section `network`: derived from the options that the networks declare, strict, and stable over versions."""

import dataclasses
import datetime
import importlib.util
import json
import re
import subprocess
import sys

import pydantic
import pytest
import yaml

from emulator.networks.registry import build, kinds, options_of
from emulator.planet.grid import Grid
from pipelines.cli import main
from pipelines.config import ConfigError, TrainConfig, network_config
from pipelines.load import load_stage
from pipelines.parse import parse

PATHS = {"store": "a", "statistics": "b", "output": "c"}
# as written by the first version: hashes of these tell whether what lies in a run directory is complete
WRITTEN = {
    "sfno": '{"kind":"sfno","embed_dim":64,"blocks":4,"scale_factor":1.0,"truncation":null,"filter":"complex",'
    '"filter_precision":"float32","rank":16,"spectral_layers":1,"mlp_ratio":2.0,"mlp_precision":"float32","stencil":1,'
    '"encoder_layers":1,"norm":"instance","pre_norm":"stream","activation":true,"inner_skip":"linear",'
    '"outer_skip":"identity","big_skip":"concat","position":"none","noise":null,"condition":[],"checkpointing":false,'
    '"drop_path":0.0,"zero_output":false}',
    "graph": '{"kind":"graph","refinement":4,"multi":true,"radius":0.6,"file":null,"width":128,"rounds":8,"noise":null,'
    '"precision":"float32","checkpointing":false,"zero_output":false}',
    "unet": '{"kind":"unet","width":48,"depth":3,"blocks":1,"noise":null,"checkpointing":false,"zero_output":false}',
    "samudra": '{"kind":"samudra","widths":[48,64,96],"dilations":[1,2,4],"expansion":2,"norm":"batch","edges":"sphere",'
    '"noise":null,"condition":[],"checkpointing":false,"drop_path":0.0,"zero_output":false}',
    "attention_unet": '{"kind":"attention_unet","width":24,"depth":3,"norm":"batch","dropout":0.0,"noise":null,'
    '"condition":[],"checkpointing":false,"zero_output":false}',
    "mgno": '{"kind":"mgno","width":24,"layers":4,"depth":3,"before":1,"after":0,"residual":false,"noise":null,'
    '"condition":[],"checkpointing":false,"zero_output":false}',
    "fno": '{"kind":"fno","width":32,"blocks":4,"modes":[12,16],"latitude":"padded","padding":8,"hidden":64,"noise":null,'
    '"condition":[],"checkpointing":false,"zero_output":false}',
    "aurora": '{"kind":"aurora","patch":2,"embed_dim":48,"depths":[2,2,2],"up_depths":[2,2,2],"heads":[3,6,12],'
    '"window":[2,6,12],"latent_levels":4,"perceiver_depth":1,"perceiver_heads":4,"mlp_ratio":4.0,'
    '"decoder_mlp_ratio":2.0,"drop_path":0.0,"noise":null,"condition":[],"checkpointing":false,'
    '"zero_output":false}',
    "column": '{"kind":"column","design":"perceptron","width":128,"layers":2,"noise":null,"checkpointing":false,'
    '"zero_output":false}',
    "torch_harmonics": '{"kind":"torch_harmonics","embed_dim":64,"num_layers":4,"scale_factor":1,"mlp_ratio":2.0,'
    '"normalization_layer":"instance_norm","residual_prediction":false}',
    "external": '{"kind":"external","factory":"a:b","options":{}}',
}
NOISE = '"noise":{"length_scales":[2000.0,500.0],"channels":4,"correlation":0.0}'


def a_network(kind, **options):
    return network_config(kind=kind, **({"factory": "a:b"} if kind == "external" else {}), **options)


@pytest.mark.parametrize("kind", WRITTEN)
def test_what_older_runs_wrote_is_written_again(kind):
    assert a_network(kind).model_dump_json() == WRITTEN[kind]
    assert parse(TrainConfig, PATHS | {"network": json.loads(WRITTEN[kind])}, "x").network == a_network(kind)
    if "noise" in WRITTEN[kind]:
        assert a_network(kind, noise={}).model_dump_json() == WRITTEN[kind].replace('"noise":null', NOISE)


@pytest.mark.parametrize("kind", kinds())
def test_the_library_reads_what_the_configuration_writes(kind):
    """The same options, from the model and from its JSON, with every default."""
    config = a_network(kind)
    for written in (config.model_dump(exclude={"kind"}), json.loads(config.model_dump_json(exclude={"kind"}))):
        options = options_of(kind).of(written)
        assert options == options_of(kind)(**({"factory": "a:b"} if kind == "external" else {}))
        assert list(written) == [field.name for field in dataclasses.fields(options) if not field.metadata["new"]]


def test_reading_other_sections_imports_no_torch():
    code = "import sys; import pipelines.load as l; from pipelines.config import STAGES, RolloutConfig; "
    code += "l.parse(RolloutConfig, {'store': 'a', 'checkpoint': 'b', 'output': 'c'}, 'x'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_models_of_networks_are_frozen_and_described():
    config = a_network("sfno", condition=["co2"], noise={"length_scales": [500]})
    with pytest.raises(pydantic.ValidationError):
        config.blocks = 3
    assert config.condition == ["co2"] and config.noise.length_scales == [500.0]
    for kind in WRITTEN:
        fields = type(a_network(kind)).model_fields
        assert all(field.description for name, field in fields.items() if name != "kind")


def test_options_of_an_external_network_are_what_a_checkpoint_can_hold():
    network = {"kind": "external", "factory": "a:b", "options": {"width": 8, "blocks": [{"rate": 0.5}, None]}}
    config = parse(TrainConfig, PATHS | {"network": network}, "x")
    assert parse(TrainConfig, json.loads(config.model_dump_json()), "y") == config
    network["options"] = {"start": datetime.date(2001, 1, 1)}
    with pytest.raises(ConfigError, match="JSON value at network.options.start"):
        parse(TrainConfig, PATHS | {"network": network}, "x")


def test_the_kind_chooses_the_options_and_faults_name_the_key_as_written():
    assert parse(TrainConfig, PATHS | {"network": {"embed_dim": 32}}, "x").network == a_network("sfno", embed_dim=32)
    assert parse(TrainConfig, PATHS | {"network": {"kind": "unet"}}, "x").network == a_network("unet")
    for network, message in (
        ({"embed_dimm": 8}, "Unknown key network.embed_dimm in x; nearest: network.embed_dim$"),
        ({"kind": "graph", "embed_dim": 8}, "Unknown key network.embed_dim in x; known: .*rounds"),
        ({"kind": "gnn"}, "'gnn' .* does not match any of the expected tags"),
        ({"noise": {"chanels": 2}}, "Unknown key network.noise.chanels in x; nearest: network.noise.channels$"),
        ({"noise": {"length_scales": [500, -1]}}, "equal to 0 at network.noise.length_scales.1 in x, got -1"),
        ({"kind": "external"}, "Missing key network.factory in x"),
        ({"kind": "unet", "depth": 0}, "greater than or equal to 1 at network.depth in x, got 0"),
    ):
        message = message.replace("'gnn' .*", "Input tag 'gnn' found using 'kind'")
        with pytest.raises(ConfigError, match=message):
            parse(TrainConfig, PATHS | {"network": network}, "x")


def test_a_network_of_another_kind_takes_nothing_from_its_base(tmp_path):
    base = PATHS | {"seed": 3, "network": {"embed_dim": 24, "blocks": 2}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    for network, expected in (
        ({"kind": "graph", "rounds": 2}, a_network("graph", rounds=2)),
        ({"blocks": 3}, a_network("sfno", embed_dim=24, blocks=3)),
        ({"kind": "sfno", "blocks": 3}, a_network("sfno", embed_dim=24, blocks=3)),
    ):
        (tmp_path / "own.yaml").write_text(yaml.safe_dump({"base": "base.yaml", "network": network}))
        config = load_stage("train", tmp_path / "own.yaml")
        assert config.network == expected and config.seed == 3


def test_the_command_lists_every_kind_with_its_options_its_size_and_the_time_of_a_step(capsys, monkeypatch):
    monkeypatch.setattr("pipelines.models.REFERENCE", (16, 8))
    assert main(["models"]) == 0
    told = capsys.readouterr().out
    assert "Undefined" not in told and "condition = []" in told  # needed options, and lists
    for kind in kinds():
        assert f"\n{kind}  " in told and f"\n  {kind} " in told
    sized = ["fuxi", "sfno", "wxformer"]
    if importlib.util.find_spec("torch_harmonics"):
        sized.append("torch_harmonics")
    else:
        assert "torch_harmonics  not on this machine: Expected the package torch-harmonics" in told
    for kind in sized:
        count = sum(p.numel() for p in build({"kind": kind}, 8, 8, Grid.gaussian(16)).parameters())
        assert re.search(rf"\n  {kind} +{count:,} parameters +\d+\.\d{{3}} s   \w", told)
    assert "filter = complex   (complex | real | diagonal | low_rank; " in told


def test_the_command_shows_the_kinds_that_are_named_alone(capsys):
    assert main(["models", "column", "unet"]) == 0
    told = capsys.readouterr().out
    assert [line.split()[0] for line in told.splitlines() if re.match(r"  \w", line)] == ["column", "unet"]
    assert "\nunet  " in told and "\nfuxi  " not in told
    assert main(["models", "unte"]) == 1
    assert re.search(r"Expected kinds of networks, of .*unet.*, got unte", capsys.readouterr().err)
