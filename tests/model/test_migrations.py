"""Checkpoints of every released schema are read, and give what the version that wrote them gave."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from emulator.data.channels import Layout
from emulator.model import checkpoint, migrations, saved_model
from emulator.model.checkpoint import CheckpointError

RELEASED = Path(__file__).parent / "released"  # NAME OF THE SCHEMA/ and .json: a network's output, to six digits


def test_every_schema_but_todays_has_a_checkpoint_here_and_a_way_to_today():
    assert {path.name for path in RELEASED.iterdir() if path.is_dir()} == set(migrations.MIGRATIONS)
    for schema in migrations.MIGRATIONS:
        passed = [schema]
        while passed[-1] in migrations.MIGRATIONS:
            passed.append(migrations.MIGRATIONS[passed[-1]].to)
            assert len(passed) == len(set(passed))
        assert passed[-1] == migrations.SCHEMA


@pytest.mark.parametrize("schema", migrations.MIGRATIONS)
def test_a_released_checkpoint_gives_what_it_gave(schema):
    step = saved_model.load_model(RELEASED / schema, "cpu")
    shape = 1, step.network.in_channels, *step.static.shape[1:]
    x = torch.linspace(-1, 1, torch.Size(shape).numel()).view(shape)
    with torch.no_grad():
        found = step.network(x).flatten()
    expected = torch.tensor(json.loads((RELEASED / f"{schema}.json").read_text()))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-6)
    assert step.metadata["schema"] == migrations.SCHEMA


def test_schema_1_is_told_where_levels_lie_and_how_long_a_step_is():
    saved = checkpoint.describe(RELEASED / "checkpoint-1")
    assert not {"at", "hours"} & set(saved["layout"])
    layout = Layout.from_json(migrations.migrated({}, saved, "it")[1]["layout"])
    assert layout.hours == 6 and layout.at == {"temperature": [250.0, 750.0]}  # middles of sigma layers of 500 hPa each
    told = saved | {"layout": saved["layout"] | {"at": {"temperature": [1.0, 2.0]}, "hours": 3.0}}
    kept = Layout.from_json(migrations.migrated({}, told, "it")[1]["layout"])
    assert kept.hours == 3 and kept.at == {"temperature": [1.0, 2.0]}  # of schema 1 too, the last that were written


def test_a_schema_of_the_future_is_refused_with_those_that_are_known(tmp_path):
    shutil.copytree(RELEASED / "checkpoint-1", tmp_path / "later")
    tensors, saved = checkpoint.load(tmp_path / "later")
    checkpoint.save(tmp_path / "later", tensors, saved | {"schema": "checkpoint-99"})
    with pytest.raises(CheckpointError, match=r"among checkpoint-1, .* got 'checkpoint-99'"):
        saved_model.load_model(tmp_path / "later")
