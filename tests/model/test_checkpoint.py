import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emulator.model import checkpoint

TENSORS = {"a/weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(3)}


def test_round_trip(tmp_path):
    checkpoint.save(tmp_path / "c", TENSORS, {"schema": "x"})
    tensors, metadata = checkpoint.load(tmp_path / "c")
    assert metadata["schema"] == "x" and tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        torch.testing.assert_close(tensors[name], tensor, rtol=0, atol=0)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_saving_again_replaces_the_whole(tmp_path):
    checkpoint.save(tmp_path / "c", TENSORS, {"n": 1})
    checkpoint.save(tmp_path / "c", {"other": torch.ones(2)}, {"n": 2})
    tensors, metadata = checkpoint.load(tmp_path / "c")
    assert list(tensors) == ["other"] and metadata["n"] == 2


def test_the_previous_one_is_found_after_a_kill_between_the_renames(tmp_path):
    checkpoint.save(tmp_path / "c", TENSORS, {"n": 1})
    (tmp_path / "c").rename(tmp_path / ".c.previous")
    assert checkpoint.load(tmp_path / "c")[1]["n"] == 1


@pytest.mark.parametrize("cut", [1, 100])
def test_damage_is_detected(tmp_path, cut):
    checkpoint.save(tmp_path / "c", TENSORS, {})
    path = tmp_path / "c" / checkpoint.TENSORS
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(checkpoint.CheckpointError, match="damaged"):
        checkpoint.load(tmp_path / "c")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([checkpoint.TENSORS, checkpoint.METADATA]), st.integers(0, 10**6), st.integers(0, 7))
def test_a_bit_that_turned_is_detected_wherever_it_lies(tmp_path, name, place, bit):
    metadata = {"update": 10, "unlogged": [{"loss": 0.1}], "identity": "a"}
    checkpoint.save(tmp_path / "c", TENSORS, metadata)
    content = bytearray((tmp_path / "c" / name).read_bytes())
    content[place % len(content)] ^= 1 << bit
    (tmp_path / "c" / name).write_bytes(content)
    try:
        _, found = checkpoint.load(tmp_path / "c")
    except checkpoint.CheckpointError as error:
        assert "damaged" in str(error)
    else:  # in the name of the checksum itself
        assert found | metadata == found and checkpoint.OWN_SUM not in content.decode()


def test_a_file_in_place_of_the_folder_is_no_checkpoint(tmp_path):
    (tmp_path / "c").write_text("")
    with pytest.raises(checkpoint.CheckpointError, match="found no checkpoint.json"):
        checkpoint.load(tmp_path / "c")


def test_what_killed_saves_left_is_swept_away(tmp_path):
    checkpoint.save(tmp_path / "state-1", TENSORS, {})
    (tmp_path / ".state-2.writing").mkdir()
    (tmp_path / ".state-2.writing" / checkpoint.TENSORS).write_bytes(b"half")
    checkpoint.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["state-1"]


def test_absent_and_truncated_metadata_are_named(tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match="found no checkpoint.json"):
        checkpoint.load(tmp_path / "none")
    checkpoint.save(tmp_path / "c", TENSORS, {"n": 1})
    (tmp_path / "c" / checkpoint.METADATA).write_text(json.dumps({"n": 1})[:-3])
    with pytest.raises(checkpoint.CheckpointError, match="damaged"):
        checkpoint.load(tmp_path / "c")


def test_an_unwritable_folder_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError):
        checkpoint.save(tmp_path / "file" / "c", TENSORS, {})
    assert (tmp_path / "file").read_text() == "not a folder"


def test_rotation_keeps_the_newest_by_number(tmp_path):
    for number in (9, 10, 100):
        checkpoint.save(tmp_path / f"state-{number}", TENSORS, {})
    checkpoint.rotate(tmp_path, "state", keep=2)
    assert [p.name for p in checkpoint.numbered(tmp_path, "state")] == ["state-10", "state-100"]


def test_rotation_of_one_identity_leaves_the_others(tmp_path):
    for number, identity in ((1, "a"), (2, "a"), (3, "b"), (4, "a"), (5, "b")):
        checkpoint.save(tmp_path / f"state-{number}", TENSORS, {"identity": identity})
    (tmp_path / "state-2" / checkpoint.METADATA).write_text("{")  # damaged: nobody's, and of no use
    checkpoint.rotate(tmp_path, "state", 1, "a")
    assert [p.name for p in checkpoint.numbered(tmp_path, "state")] == ["state-3", "state-4", "state-5"]
    assert [p.name for p in checkpoint.numbered(tmp_path, "state", "b")] == ["state-3", "state-5"]
