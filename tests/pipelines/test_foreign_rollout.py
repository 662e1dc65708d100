"""The stage rollout with a model of another package: its configuration, and the store that verify and report read."""

import pydantic
import pytest
from small_planet import small_planet
from small_store import write_store

from pipelines.config import ReportConfig, RolloutConfig, VerifyConfig
from pipelines.load import load_experiment, load_stage
from pipelines.report import report
from pipelines.rollout import check, rollout
from pipelines.verify import verify

SECTION = {"kind": "earth2studio", "factory": "earth2studio.models.px:Persistence"}


def test_a_checkpoint_or_a_model_and_nothing_that_only_ours_can(tmp_path):
    here = {"store": tmp_path / "a.zarr", "output": tmp_path / "f.zarr"}
    assert RolloutConfig(**here, model=SECTION).model.factory == SECTION["factory"]
    assert "model" not in RolloutConfig(**here, checkpoint=tmp_path).model_dump()  # fingerprints of older runs stay
    with pytest.raises(pydantic.ValidationError, match="Expected either checkpoint or model"):
        RolloutConfig(**here)
    with pytest.raises(pydantic.ValidationError, match="Expected either checkpoint or model"):
        RolloutConfig(**here, checkpoint=tmp_path, model=SECTION)
    with pytest.raises(
        pydantic.ValidationError, match="Expected no ensemble and no step_hours with a model of another"
    ):
        RolloutConfig(**here, model=SECTION, step_hours=6, ensemble={"members": 2})


def test_an_experiment_with_a_foreign_model_asks_for_no_checkpoint(tmp_path):
    (tmp_path / "e.yaml").write_text(
        f"directory: {tmp_path}\nrollout: {{model: {{kind: earth2studio, factory: 'a.b:c'}}, lead_days: 2}}\n"
    )
    assert load_experiment(tmp_path / "e.yaml").rollout.checkpoint is None


@pytest.mark.slow
def test_the_stages_take_a_model_of_earth2studio(tmp_path, monkeypatch):
    pytest.importorskip("earth2studio", reason="earth2studio is not installed; the extra earth2studio brings it")
    store = write_store(tmp_path, small_planet(times=24))
    names = ["sp", *(f"{short}{k}k" for short in ("t", "q") for k in range(4))]
    section = {"kind": "earth2studio", "factory": "foreign_persistence:make"}
    (tmp_path / "foreign_persistence.py").write_text(
        "from collections import OrderedDict\n"
        "from earth2studio.models.px import Persistence\n"
        "def make(source):\n"
        f"    return Persistence({names}, OrderedDict(lat=source.lat, lon=source.lon))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = RolloutConfig(store=store, output=tmp_path / "f.zarr", model=section, lead_days=1, every_hours=24)
    assert check(config, set()).startswith("5 forecasts of 1 days")
    rollout(config)
    verify(VerifyConfig(forecasts={"foreign": tmp_path / "f.zarr"}, truth=store, output=tmp_path / "scores.nc"))
    report(ReportConfig(scores=tmp_path / "scores.nc", output=tmp_path / "report"))
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Conservation" in page and "foreign" in page


def test_the_stage_alone_has_the_model_that_its_experiment_names(tmp_path):
    (tmp_path / "e.yaml").write_text(
        f"directory: {tmp_path}\nrollout: {{model: {{kind: earth2studio, factory: 'a.b:c'}}, lead_days: 2}}\n"
    )
    assert load_stage("rollout", tmp_path / "e.yaml").model.factory == "a.b:c"
