import argparse
import dataclasses
import importlib
import json
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import yaml
from pydantic import Field

from emulator.options import Options, option
from emulator.verify.options import VerifyOptions
from pipelines.commands import parse as typed
from pipelines.config import (
    STAGES,
    ConfigError,
    ConservationConfig,
    Experiment,
    IngestConfig,
    Model,
    RolloutConfig,
    TrainConfig,
    VerifyConfig,
)
from pipelines.config.base import NEW
from pipelines.config.declared import Key, model_of
from pipelines.load import fingerprint, load_experiment, load_stage, to_yaml
from pipelines.parse import parse
from pipelines.site import load_site
from pipelines.yaml_files import read_yaml

CONF = Path(__file__).resolve().parents[2] / "conf"


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda p: str(p.relative_to(CONF)))
def test_every_shipped_file_loads(path, monkeypatch):
    if path.parent.name == "site":
        load_site(path)
        return
    raw = read_yaml(path)
    if "variants" in raw:
        monkeypatch.syspath_prepend(CONF.parent / "scripts")
        compare, source = importlib.import_module("compare"), path.parent / raw["experiment"]
        given = load_experiment(source), source
        for changes in raw["variants"].values():
            compare.stages_of(*given, changes, argparse.Namespace(minutes=30, overrides=[]), Path("variant"))
        return
    if "directory" in raw and any(stage in raw for stage in STAGES):
        load_experiment(path)
        return
    stage = path.parent.name if path.parent.name in STAGES else raw.get("stage")
    paths = {
        "store": "s",
        "statistics": "s",
        "output": "o",
        "checkpoint": "c",
        "truth": "t",
        "scores": "s",
        "directory": "d",
    }
    fields = STAGES[stage].model_fields
    parse(STAGES[stage], {k: v for k, v in paths.items() if k in fields} | raw, str(path))


@pytest.mark.parametrize(
    "text, message",
    [
        ("directory: r\ntrain: {optimiser: {lr: 1}}", r"Unknown key train.optimiser in .*; nearest: train.optimizer"),
        ("directory: r\ntrain: {optimizer: {rl: 1}}", r"Unknown key train.optimizer.rl .*nearest: train.optimizer.lr"),
        ("directory: r\ntrain: {phases: [{updats: 1}]}", r"nearest: train.phases.0.updates"),
        (
            "directory: r\ningest: {sources: [{pth: x}]}",
            r"Unknown key ingest.sources.0.pth .*nearest: ingest.sources.0.path",
        ),
        ("directory: r\ntrian: {}", r"Unknown key trian .*nearest: train"),
        ("directory: r\ntrain: {phases: [{}]}", r"Missing key train.phases.0.updates"),
        ("directory: r\ntrain: {optimizer: {lr: -1}}", r"greater than 0 at train.optimizer.lr .* got -1"),
        ("train: {}", r"Expected a key 'directory'"),
        ("directory: r", r"Expected at least one stage of simulate, .*e.yaml"),
        ("directory: 3\ntrain: {}", r"Expected a key 'directory' .* got 3"),
        ("base: 3\ndirectory: r", r"Expected the path of a file after `base:` in .*e.yaml, got 3"),
        ("directory: r\ntrain: {base: [a]}", r"after `base:` in .*e.yaml, got \['a'\]"),
        ("directory: r\nsimulate: {directory: 3}\ningest: {}", r"simulate.directory"),
        ("directory: r\nrollout: {output: 3}", r"rollout.output"),
        (
            "directory: r\nstats: {period: {end: 2001-02-31}}",
            r"date that some calendar has .*stats.period.end in .*e.yaml",
        ),
        ("3: r", r"Expected a key 'directory'"),
        ("- a", r"Expected a mapping"),
        ("a: [", r"Expected valid YAML"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_experiment(write(tmp_path / "e.yaml", text))


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="none.yaml"):
        load_experiment(tmp_path / "none.yaml")


def test_overrides_replace_single_values(tmp_path):
    path = write(tmp_path / "e.yaml", "directory: r\ntrain: {phases: [{updates: 5}]}")
    config = load_stage("train", path, ["optimizer.lr=2e-4", "phases.0.batch_size=8", "seed=3", "validation=null"])
    assert config.optimizer.lr == 2e-4 and config.phases[0].batch_size == 8 and config.seed == 3
    assert config.phases[0].updates == 5
    experiment = load_experiment(path, ["train.network.embed_dim=12"])
    assert experiment.train.network.embed_dim == 12
    with pytest.raises(ConfigError, match="dotted.name=value"):
        load_stage("train", path, ["optimizer.lr"])
    with pytest.raises(ConfigError, match="index below 1"):
        load_stage("train", path, ["phases.1.updates=3"])
    with pytest.raises(ConfigError, match="nearest: train.seed"):
        load_stage("train", path, ["sed=3"])


def test_another_kind_of_network_takes_nothing_from_the_one_before(tmp_path):
    path = write(tmp_path / "e.yaml", "directory: r\ntrain: {network: {kind: vector_cnn, vectors: 3, width: 9}}")
    network = load_experiment(path, ["train.network.width=16", "train.network.kind=unet"]).train.network
    assert network.kind == "unet" and network.width == 16
    assert load_experiment(path, ["train.network.kind=vector_cnn"]).train.network.vectors == 3
    assert load_stage("train", path, ["network.kind=sfno"]).network.kind == "sfno"


DOCUMENTED = [
    tuple(line.split("#")[0].split()[1:])
    for page in (CONF.parent / "README.md", *sorted((CONF.parent / "docs").glob("*.md")))
    for line in re.findall(rf"^emulator (?:run|{'|'.join(STAGES)}) conf/.*", page.read_text(), re.M)
    if "..." not in line  # which stands for what a reader fills in
]


@pytest.mark.parametrize("words", sorted(set(DOCUMENTED)), ids=" ".join)
def test_commands_of_the_pages_name_what_there_is(words, monkeypatch):
    monkeypatch.chdir(CONF.parent)
    given = typed(words)
    if given.command == "run":
        load_experiment(given.config, given.overrides)
    else:
        load_stage(given.command, given.config, given.overrides)


def test_an_override_that_is_no_yaml_is_shown(tmp_path):
    path = write(tmp_path / "e.yaml", "directory: r\nreport: {}")
    with pytest.raises(ConfigError, match=r"'report.title=A: b: c' \(text with ': ' needs quotes inside\)"):
        load_experiment(path, ["report.title=A: b: c"])
    assert load_experiment(path, ["report.title='A: b: c'"]).report.title == "A: b: c"


def test_overrides_of_a_stage_hold_within_its_section_or_from_the_top(tmp_path):
    path = write(tmp_path / "e.yaml", "directory: r\nsimulate: {}\ntrain: {seed: 1}\nrollout: {}")
    assert load_stage("train", path, ["train.seed=2"]) == load_stage("train", path, ["seed=2"])
    assert load_stage("train", path, ["train={seed: 2}"]) == load_stage("train", path, ["seed=2"])
    assert load_stage("train", path, ["directory=/tmp/x"]).store == Path("/tmp/x/analysis.zarr")
    assert load_stage("rollout", path, ["train.seed=2", "lead_days=3"]).lead_days == 3
    assert load_stage("simulate", path, ["directory=x"]).directory == Path("x/simulation")
    with pytest.raises(ConfigError, match="nearest: train.seed"):
        load_stage("train", path, ["train.sed=3"])
    with pytest.raises(ConfigError, match="a section 'verify'"):
        load_stage("verify", path)


def test_a_stages_own_file_may_name_a_directory(tmp_path):
    path = write(tmp_path / "s.yaml", "directory: r\ndays: 3")
    assert load_stage("simulate", path, ["directory=x"]).directory == Path("x")


def test_bases_are_merged_and_cycles_refused(tmp_path):
    write(tmp_path / "base.yaml", "optimizer: {lr: 0.1, clip: 3}\nseed: 1")
    path = write(tmp_path / "e.yaml", "directory: r\ntrain: {base: base.yaml, optimizer: {lr: 0.2}}")
    config = load_stage("train", path)
    assert (config.optimizer.lr, config.optimizer.clip, config.seed) == (0.2, 3, 1)
    write(tmp_path / "a.yaml", "base: b.yaml")
    write(tmp_path / "b.yaml", "base: a.yaml")
    with pytest.raises(ConfigError, match="cycle"):
        read_yaml(tmp_path / "a.yaml")


def test_paths_between_stages_default_to_the_run_directory(tmp_path):
    path = write(tmp_path / "e.yaml", "directory: r\nsimulate: {}\ningest: {}\nstats: {}\ntrain: {}\nrollout: {}")
    experiment = load_experiment(path)
    assert experiment.ingest.output == experiment.train.store == experiment.rollout.store == Path("r/analysis.zarr")
    assert experiment.ingest.sources[0].path == "r/simulation/*.nc"
    assert experiment.rollout.checkpoint == experiment.train.output / "checkpoint"


def test_statistics_are_those_of_the_stores_that_are_trained_on(tmp_path):
    path = write(tmp_path / "e.yaml", "directory: r\nstats: {}\ntrain: {later_stores: [b.zarr, c.zarr]}")
    assert load_experiment(path).stats.later_stores == [Path("b.zarr"), Path("c.zarr")]
    assert load_experiment(path, ["stats.later_stores=[b.zarr]"]).stats.later_stores == [Path("b.zarr")]


def test_the_run_directory_moves_everything(tmp_path):
    moved = to_yaml(load_experiment(CONF / "quickstart.yaml", [f"directory={tmp_path}"]))
    assert "runs/quickstart" not in moved and moved.count(str(tmp_path)) > 10


def test_a_stage_may_have_a_file_of_its_own(tmp_path):
    path = write(tmp_path / "t.yaml", "store: a\nstatistics: b\noutput: c\nseed: 4")
    assert load_stage("train", path, ["seed=5"]).seed == 5


def test_resolved_yaml_loads_to_the_same_configuration(tmp_path):
    experiment = load_experiment(CONF / "quickstart.yaml")
    again = load_experiment(write(tmp_path / "again.yaml", to_yaml(experiment)))
    assert again == experiment
    assert fingerprint(again) == fingerprint(experiment)
    assert fingerprint(again) != fingerprint(load_experiment(CONF / "quickstart.yaml", ["train.seed=9"]))


def test_a_key_that_older_versions_lacked_changes_no_fingerprint_until_it_is_used():
    class Older(Model):
        days: int = 3

    class Newer(Model):
        days: int = 3
        bands: list[float] = Field([], json_schema_extra=NEW)

    assert fingerprint(Newer()) == fingerprint(Older()) != fingerprint(Newer(bands=[30.0]))
    assert Newer.model_validate(Newer(bands=[30.0]).model_dump()).bands == [30.0]


@dataclasses.dataclass(frozen=True)
class CookingOptions(Options):
    """How to cook."""

    pot: str = option("small", "which pot")
    inside: int = option(0)
    minutes: int = option(3, "how long", new=True, minimum=1)


def test_declared_options_become_keys_with_others_between_them():
    made = model_of(CookingOptions, pot=Key(int | str), water=Key(float, 1.0, "litres", after="pot"), inside=None)
    assert list(made.model_fields) == ["pot", "water", "minutes"]
    assert made.model_fields["pot"].is_required() and made.model_fields["pot"].description == "which pot"
    assert made(pot=3).model_dump() == {"pot": 3, "water": 1.0}  # what is new and at its default is left out
    assert made(pot=3, minutes=4).model_dump() == {"pot": 3, "water": 1.0, "minutes": 4}
    with pytest.raises(ValueError, match="inside"):
        made(pot=3, inside=1)


def test_a_store_has_the_sources_period_and_output_among_its_options():
    keys = list(STAGES["ingest"].model_fields)
    assert keys[:2] == ["sources", "output"] and keys[keys.index("constants") + 1] == "period"
    assert not {"start", "end", "settings"} & set(keys)


def test_levels_to_score_are_a_list_or_lists_by_axis():
    def read(levels):
        return VerifyConfig.model_validate({"truth": "a.zarr", "output": "s.nc", "levels": levels}).levels

    assert read([500, 850]) == [500, 850] and read(None) is None
    assert (
        read({"depth": [5, 100]})
        == {"depth": [5, 100]}
        == {axis: list(values) for axis, values in VerifyOptions.of({"levels": {"depth": [5, 100]}}).levels.items()}
    )
    assert VerifyOptions.of({"levels": [500, 850]}).levels == (500, 850)
    for wrong in ({"depth": 5}, "500", {"depth": ["deep"]}):
        with pytest.raises(ValueError, match="levels"):
            read(wrong)
    with pytest.raises(ValueError, match=r"a sequence as levels\.depth, got 5"):
        VerifyOptions.of({"levels": {"depth": 5}})


def test_models_are_frozen_and_strict():
    for model in (*STAGES.values(), Experiment):
        assert model.model_config["frozen"] and model.model_config["extra"] == "forbid"
    config = TrainConfig(store="a", statistics="b", output="c")
    with pytest.raises(ValueError):
        config.seed = 3
    assert typing.get_type_hints(TrainConfig)["seed"] is int


def test_fields_that_came_later_are_dumped_only_where_they_say_something():
    """So the fingerprints of runs that were recorded before stay what they were."""
    silent, said = ConservationConfig(), ConservationConfig(bands=[0.0], kind="projection")
    assert "bands" not in silent.model_dump() and "bands" not in json.loads(silent.model_dump_json())
    assert said.model_dump()["bands"] == [0.0] and ConservationConfig(**said.model_dump()) == said


@pytest.mark.parametrize("stage", ["ingest", "stats", "verify"])
def test_stages_without_a_network_are_read_without_torch(finished, stage):
    """Which takes seconds to import, and most of a gigabyte."""
    code = f"import sys; from pipelines.load import load_stage; load_stage({stage!r}, {str(finished)!r}); "
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"margin": -2}, "Input should be greater than or equal to 0 at margin in e.yaml, got -2"),
        ({"margin": {"t": -2}}, "Input should be greater than or equal to 0 at margin.t in e.yaml, got -2"),
        ({"level_weights": [-1]}, "Input should be greater than 0 at level_weights.0 in e.yaml, got -1"),
        ({"margin": [1]}, "Input should be a valid number or a valid dictionary at margin in e.yaml, got [1]"),
    ],
)
def test_a_value_of_several_types_is_refused_in_one_sentence_without_the_names_of_types(given, said):
    with pytest.raises(ConfigError) as error:
        parse(TrainConfig, {"store": "a", "statistics": "s", "output": "o"} | given, "e.yaml")
    assert str(error.value) == said


def test_keys_that_do_not_go_together_are_named_without_the_section():
    section = {"sources": [{"path": "p"}], "output": "o", "step_hours": 6, "step": "6 hours"}
    with pytest.raises(ConfigError, match=r"step_hours or step, got both, 6 and '6 hours' in e.yaml$"):
        parse(IngestConfig, section, "e.yaml")
    phases = [{"updates": 1, "batch_size": 3, "accumulate": 2}]
    with pytest.raises(ConfigError, match=r"into 2 parts \(accumulate\) at phases.0 in e.yaml$"):
        parse(TrainConfig, {"store": "a", "statistics": "s", "output": "o", "phases": phases}, "e.yaml")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"lead_days": 30}, {"lead": "12 months"}),
        ({"every_hours": 24}, {"every": "1 month"}),
        ({"long_run_days": 30}, {"long_run_lead": "2 years"}),
    ],
)
def test_a_length_is_given_once(first, second):
    section = {"store": "a", "checkpoint": "c", "output": "o"}
    for alone in (first, second):  # and as it is written out
        parse(RolloutConfig, yaml.safe_load(to_yaml(parse(RolloutConfig, section | alone, "e.yaml"))), "e.yaml")
    with pytest.raises(ConfigError, match=f"Expected {next(iter(first))} or {next(iter(second))}, got both"):
        parse(RolloutConfig, section | first | second, "e.yaml")
