"""Where a training's log goes besides its own files: TensorBoard and MLflow, both as files in the training's folder.

The rows are those of `metrics.jsonl` and `timing.jsonl`. A training that was stopped goes on with the same curves: rows that
it writes again replace what TensorBoard shows from that update on, and are left out where MLflow has them. `loss` is the
training's own; phases of another kind have a curve beside it, such as `loss_mse` of single forecasts.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from emulator.files.interruption import Interrupted
from pipelines.config import ConfigError, TrainConfig

Write = Callable[[dict], None]
ENTITIES = 100  # parameters that MLflow takes at a time


@contextlib.contextmanager
def boards(config: TrainConfig, identity: str) -> Iterator[Write]:
    """Yields what writes a row of the log wherever the configuration asks. Raises `ConfigError` where a package is absent."""
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(_tensorboard(Path(config.output)))] if config.tensorboard else []
        writers += [stack.enter_context(_mlflow(config, identity))] if config.mlflow else []
        yield lambda row: [write(_numbers(row, config.loss.kind)) for write in writers] and None


def _numbers(row: dict, loss: str) -> dict[str, float]:
    """A row without the kind of its loss, which the name says where it is another than the training's."""
    kind = row.get("loss_kind", loss)
    named = {"loss" if kind == loss else f"loss_{kind}": row["loss"]}
    return {name: value for name, value in row.items() if name not in ("loss", "loss_kind")} | named


@contextlib.contextmanager
def _tensorboard(output: Path) -> Iterator[Write]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise _absent("tensorboard") from None
    with contextlib.ExitStack() as stack:
        opened = []

        def write(row: dict) -> None:
            if not opened:  # at the first row, when it is known from where on the curves are written anew
                opened.append(stack.enter_context(SummaryWriter(output / "tensorboard", purge_step=row["update"])))
            for name, value in row.items():
                opened[0].add_scalar(name, value, row["update"])

        yield write


@contextlib.contextmanager
def _mlflow(config: TrainConfig, identity: str) -> Iterator[Write]:
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 asks for a database otherwise
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing leaves the machine unasked
    try:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise _absent("mlflow") from None
    output = Path(config.output).absolute()
    client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or (output / "mlruns").as_uri())
    existing = client.get_experiment_by_name("emulator")
    experiment = existing.experiment_id if existing else client.create_experiment("emulator")
    runs = client.search_runs([experiment], f"tags.identity = '{identity}'", max_results=1)
    if runs:
        run = runs[0].info.run_id
        client.update_run(run, status="RUNNING")
    else:
        run = client.create_run(experiment, tags={"identity": identity}, run_name=output.name).info.run_id
        parameters = [Param(name, value) for name, value in flattened(json.loads(config.model_dump_json()))]
        for first in range(0, len(parameters), ENTITIES):
            client.log_batch(run, params=parameters[first : first + ENTITIES])
    written = max((entry.step for entry in client.get_metric_history(run, "learning_rate")), default=-1)

    def write(row: dict) -> None:
        if row["update"] > written:
            now = round(1000 * time.time())
            client.log_batch(run, [Metric(name, value, now, row["update"]) for name, value in row.items()])

    try:
        yield write
    except BaseException as error:
        client.set_terminated(run, "KILLED" if isinstance(error, Interrupted | KeyboardInterrupt) else "FAILED")
        raise
    client.set_terminated(run)


def flattened(node, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and texts of the values of a configuration; lists of plain values stay whole."""
    if isinstance(node, list) and any(isinstance(item, dict | list) for item in node):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        yield prefix, str(node)
        return
    for name, value in node.items():
        yield from flattened(value, f"{prefix}.{name}" if prefix else str(name))


def _absent(package: str) -> ConfigError:
    return ConfigError(
        f"Expected the package {package} for train.{package}, it is not installed: emulator[{package}] has it"
    )
