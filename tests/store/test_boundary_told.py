"""What a forecast store says of driving data is read where it is ours, and nothing else is taken for it."""

import json

import pytest

from emulator.store.forecast import boundary_told

OURS = {"kind": "analysis", "place": "inside", "width": 3, "delay_hours": 0}


def test_ours_is_read():
    assert boundary_told({"boundary": json.dumps(OURS)}) == OURS


@pytest.mark.parametrize("text", ["land and sea", "[1, 2]", '{"kind": "coast"}', "3", None])
def test_what_another_tool_means_by_it_is_nothing(text):
    assert boundary_told({"boundary": text}) == {}
    assert boundary_told({}) == {}
