"""A finished training goes on where its recipe has grown at the end, and is replaced by nothing else."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from small_planet import small_planet
from small_store import FREE, NETWORK, store_of
from small_training import RECIPE, same_state, trainer

import emulator as em
from emulator.files.interruption import Interrupted
from emulator.model import checkpoint
from emulator.training.options.phases import Phase

OURS = dataclasses.replace(RECIPE, rest="the same")
GROWN = {
    "another phase": dataclasses.replace(OURS, phases=(*OURS.phases, Phase(4, rollout_steps=2, batch_size=2))),
    "more updates": dataclasses.replace(OURS, phases=(OURS.phases[0], dataclasses.replace(OURS.phases[1], updates=10))),
}


@pytest.fixture(scope="module")
def planet():
    return small_planet()


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("how", GROWN)
def test_it_goes_on_from_its_last_state_and_interruptions_change_no_bit(planet, tmp_path, how):
    for name in ("a", "b"):
        trainer(planet, tmp_path / name, OURS, "short").run()
    before = rows(tmp_path / "a")
    trainer(planet, tmp_path / "a", GROWN[how], "long").run()
    assert rows(tmp_path / "a")[: len(before)] == before and rows(tmp_path / "a")[-1]["update"] == 22
    for stop_at in (19, 21):
        stopped = trainer(planet, tmp_path / "b", GROWN[how], "long")
        with pytest.raises(Interrupted):
            stopped.run(should_stop=lambda stopped=stopped, stop_at=stop_at: stopped.update == stop_at)
    trainer(planet, tmp_path / "b", GROWN[how], "long").run()
    same_state(tmp_path / "a", tmp_path / "b")


def test_what_has_grown_at_its_end():
    first, second = OURS.phases
    record = OURS.record()

    def grew(*phases, update=18, rest="the same"):
        return dataclasses.replace(OURS, phases=phases, rest=rest).grew_from(json.loads(json.dumps(record)), update)

    more = dataclasses.replace(second, updates=9)
    assert grew(first, second) and grew(first, second, first) and grew(first, more) and grew(first, more, first)
    assert not grew(first)  # shorter
    assert not grew(dataclasses.replace(first, updates=13), second)  # grown in the middle
    assert not grew(first, dataclasses.replace(second, updates=3))
    assert not grew(first, dataclasses.replace(more, rollout_steps=3))
    assert not grew(first, second, rest="other") and not grew(first, second, rest="")
    assert not OURS.grew_from({}, 18)  # a state written before recipes were kept


def test_a_finished_checkpoint_is_gone_on_with_or_kept(tmp_path):
    """Of a whole training with validation: more updates go on; another change is refused unless it is asked for."""
    paths = store_of(tmp_path, small_planet(times=24))
    options = {
        "network": NETWORK,
        "conservation": FREE,
        "phases": [{"updates": 4, "batch_size": 2}],
        "optimizer": {"warmup_steps": 1},
        "save_every": 2,
        "log_every": 1,
        "validation": {"period": {"start": "2001-01-02"}, "every": 2, "windows": 2, "steps": 1},
    }
    out = tmp_path / "out"
    em.train(*paths, out, **options)
    kept = (out / "checkpoint" / checkpoint.METADATA).read_bytes()
    em.train(*paths, out, **options)  # finished: the same again
    assert (out / "checkpoint" / checkpoint.METADATA).read_bytes() == kept
    for other in (
        {"seed": 1},
        {"network": NETWORK | {"width": 8}},
        {"phases": [{"updates": 3, "batch_size": 2}]},
        {"phases": [{"updates": 4, "batch_size": 4}]},
        {"optimizer": {"warmup_steps": 2}},
        {"period": {"end": "2001-01-05"}},
    ):
        with pytest.raises(ValueError, match=r"overwrite=true.*out/checkpoint"):
            em.train(*paths, out, **options | other)
        assert (out / "checkpoint" / checkpoint.METADATA).read_bytes() == kept
    grown = options | {"phases": [{"updates": 6, "batch_size": 2}, {"updates": 2, "rollout_steps": 2, "batch_size": 2}]}
    em.train(*paths, out, **grown)
    assert [row["update"] for row in rows(out)] == list(range(1, 9))
    validated = [json.loads(line)["update"] for line in (out / "validation.jsonl").read_text().splitlines()]
    assert validated == [2, 4, 6, 8]
    step = em.train(*paths, out, **options | {"seed": 1, "overwrite": True})
    assert [row["update"] for row in rows(out)] == [1, 2, 3, 4]
    assert all(torch.isfinite(p).all() for p in step.parameters()) and np.isfinite(rows(out)[-1]["loss"])
