"""What a configuration of a cycle means: its paths in an experiment, and which cycles are the same."""

from pathlib import Path
from types import SimpleNamespace

import xarray as xr

from pipelines.config import CycleConfig
from pipelines.cycle import store_of
from pipelines.load import load_stage

START = "2001-01-14T00:00"


def test_an_experiment_has_the_cycles_paths_and_its_forecasts_start_from_it(tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text(
        f"directory: r\ncycle: {{start: {START}, end: 2001-01-15, analysis: {{kind: letkf}}}}\nrollout: {{}}\nverify: {{}}"
    )
    cycle = load_stage("cycle", path, ["analysis.inflation=1.2"])
    assert cycle.analysis.inflation == 1.2 and cycle.observations == Path("r/observations.parquet")
    assert load_stage("rollout", path).store == cycle.output / "analysis.zarr"
    assert load_stage("verify", path).feedback == cycle.output / "feedback"


def test_options_that_came_later_leave_a_finished_cycle_as_it_was():
    """What is written of LETKF at its defaults, of which the fingerprint is made, and of each option that is not."""
    given = {"store": "a", "checkpoint": "b", "observations": "c", "output": "d", "start": START, "end": START}
    before = {
        "kind": "letkf",
        "radius_km": 3000.0,
        "radius_scale_heights": None,
        "inflation": 1.0,
        "relaxation": 0.0,
    }
    for more in ({}, {"every": 3}):
        written = CycleConfig(**given, analysis={"kind": "letkf"} | more).model_dump()["analysis"]
        assert written == before | more


def test_a_cycle_from_other_first_states_is_another(tmp_path, monkeypatch):
    observed = tmp_path / "observations.parquet"
    observed.write_bytes(b"")
    monkeypatch.setattr("pipelines.cycle.digest_of", lambda model: "weights")
    given = {
        "store": "a",
        "checkpoint": "b",
        "observations": observed,
        "output": tmp_path,
        "start": START,
        "end": START,
    }
    model = SimpleNamespace(model=None, layout=None)
    store, *others = (xr.Dataset(attrs={"fingerprint": name}) for name in "abc")

    def told(**initial):
        config = CycleConfig(**given, initial=initial)
        return [store_of(config, store, other, model, []).fingerprint for other in others]

    assert told(store="one") == told(store="moved") and len({*told(store="one"), told()[0]}) == 3
