"""What TensorBoard and MLflow hold of a training is what its own log holds, also of one that was stopped."""

import json
import sys

import pytest
from tiny_experiment import tiny_experiment

from emulator.training.trainer import Interrupted, Trainer
from pipelines import train as training
from pipelines.boards import boards, flattened
from pipelines.config import ConfigError
from pipelines.load import load_stage

SHORT = ["phases=[{updates: 8}]", "log_every=2", "save_every=3"]


def config(finished, output, *more):
    return load_stage("train", finished, [f"output={output}", *SHORT, *more])


def logged(output) -> dict[int, dict]:
    """The training's own rows, by update."""
    rows: dict[int, dict] = {}
    for name in ("metrics.jsonl", "timing.jsonl"):
        for line in (output / name).read_text().splitlines():
            row = json.loads(line)
            rows.setdefault(row["update"], {}).update(row)
    return rows


def stopped_after(monkeypatch, update):
    """Trainings ask to stop after an update."""
    run = Trainer.run

    def stopping(self, on_log, asked):
        run(self, on_log, lambda: self.update == update)

    monkeypatch.setattr(Trainer, "run", stopping)


def test_tensorboard_holds_the_log(finished, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    training.train(config(finished, tmp_path / "t", "tensorboard=true"))
    found = EventAccumulator(str(tmp_path / "t" / "tensorboard")).Reload()
    rows = logged(tmp_path / "t")
    assert sorted(rows) == [2, 4, 6, 8]
    for name in ("loss", "learning_rate", "gradient_norm", "residual_after_energy"):
        read = {event.step: event.value for event in found.Scalars(name)}
        assert read == pytest.approx({update: row[name] for update, row in rows.items()}, rel=1e-6)


def test_tensorboard_goes_on_with_the_curves_of_a_stopped_training(finished, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    given = config(finished, tmp_path / "t", "tensorboard=true")
    with monkeypatch.context() as patched:
        stopped_after(patched, 5)
        with pytest.raises(Interrupted):
            training.train(given)
    training.train(given)
    found = EventAccumulator(str(tmp_path / "t" / "tensorboard")).Reload()
    assert [event.step for event in found.Scalars("loss")] == [2, 4, 6, 8]


def test_losses_of_two_kinds_are_two_curves(tmp_path, monkeypatch):
    """What is scored by members and what single forecasts are trained by have nothing to do with each other."""
    pytest.importorskip("tensorboard"), pytest.importorskip("mlflow")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    more = "loss={kind: crps, members: 2}", "network.noise={channels: 2}", "tensorboard=true", "mlflow=true"
    phases = "phases=[{updates: 4, single: true}, {updates: 4}]"
    given = config(tiny_experiment(tmp_path), tmp_path / "t", phases, *more)
    rows = [{"update": n, "loss": 1.0 / n, "learning_rate": 0.1} for n in (2, 4, 6, 8)]
    told = [{**row, "loss_kind": "mse" if row["update"] < 5 else "crps"} for row in rows]
    for part in (told[:3], told[1:]):  # stopped after the third row, and begun again with the second
        with boards(given, "the same") as write:
            for row in part:
                write(row)
    curves = {"loss_mse": {2: 0.5, 4: 0.25}, "loss": {6: 1 / 6, 8: 0.125}}
    found = EventAccumulator(str(tmp_path / "t" / "tensorboard")).Reload()
    client, run = mlflow_run((tmp_path / "t" / "mlruns").as_uri())
    for name, curve in curves.items():
        assert {event.step: event.value for event in found.Scalars(name)} == pytest.approx(curve)
        assert {entry.step: entry.value for entry in client.get_metric_history(run.info.run_id, name)} == curve
    assert set(found.Tags()["scalars"]) == {"update", "learning_rate", *curves}


def mlflow_run(uri):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("emulator").experiment_id])
    return client, run


def test_mlflow_holds_the_log_and_the_configuration_and_goes_on_after_a_stop(finished, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    given = config(finished, tmp_path / "t", "mlflow=true")
    with monkeypatch.context() as patched:
        stopped_after(patched, 5)
        with pytest.raises(Interrupted):
            training.train(given)
    uri = (tmp_path / "t" / "mlruns").as_uri()
    assert mlflow_run(uri)[1].info.status == "KILLED"
    training.train(given)
    client, run = mlflow_run(uri)  # the same one
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer.lr"] == str(given.optimizer.lr) and run.data.params["phases.0.updates"] == "8"
    rows = logged(tmp_path / "t")
    for name in ("loss", "learning_rate", "gradient_norm", "residual_after_energy"):
        read = {entry.step: entry.value for entry in client.get_metric_history(run.info.run_id, name)}
        assert read == {update: row[name] for update, row in rows.items()}
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 4


def test_mlflow_goes_where_its_own_variable_says_and_tells_of_failures(finished, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "elsewhere").as_uri())
    monkeypatch.setattr(Trainer, "_learn", lambda self, batch: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        training.train(config(finished, tmp_path / "t", "mlflow=true"))
    assert not (tmp_path / "t" / "mlruns").exists()
    assert mlflow_run((tmp_path / "elsewhere").as_uri())[1].info.status == "FAILED"


def test_logging_elsewhere_changes_no_weight(finished, tmp_path):
    pytest.importorskip("tensorboard"), pytest.importorskip("mlflow")
    training.train(config(finished, tmp_path / "plain"))
    training.train(config(finished, tmp_path / "logged", "tensorboard=true", "mlflow=true"))
    plain, other = (tmp_path / name / "checkpoint" / "weights.safetensors" for name in ("plain", "logged"))
    assert plain.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("package, module", [("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow.tracking")])
def test_an_absent_package_ends_in_one_sentence(finished, tmp_path, monkeypatch, package, module):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "mlflow.entities" if package == "mlflow" else module, None)
    with pytest.raises(ConfigError, match=f"Expected the package {package} for train.{package}, it is not installed"):
        training.train(config(finished, tmp_path / "t", f"{package}=true"))
    assert not (tmp_path / "t" / "checkpoint").exists()


def test_values_of_a_configuration_get_dotted_names():
    nested = {"a": {"b": 1, "c": [1, 2]}, "d": [{"e": None}], "f": []}
    assert dict(flattened(nested)) == {"a.b": "1", "a.c": "[1, 2]", "d.0.e": "None", "f": "[]"}
