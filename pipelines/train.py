"""Train a network on a store: resumable at any moment, a self-contained checkpoint at the end."""

import hashlib
import logging
import signal
from pathlib import Path

import torch
import xarray as xr

from emulator import checkpoint
from emulator.dataset import Samples
from emulator.store import open_analysis
from emulator.train import Trainer
from pipelines import build
from pipelines.config import TrainConfig
from pipelines.load import fingerprint
from pipelines.progress import progress

log = logging.getLogger(__name__)
NOT_IDENTITY = {"output", "save_every", "log_every", "cache_gigabytes", "threads"}


def train(config: TrainConfig) -> None:
    """Train, or go on with a training that was stopped, and write `output/checkpoint`.

    Raises `emulator.train.Interrupted` after saving on SIGTERM or SIGUSR1, and `emulator.train.Diverged`.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    dataset, statistics = open_analysis(config.store), open_statistics(config.statistics)
    layout = build.layout(dataset, config)
    cache = int(config.cache_gigabytes * 1e9)
    samples = Samples(dataset, layout, config.period.start, config.period.end, cache)
    torch.manual_seed(config.seed)
    network = build.network(config.network, layout, samples.grid)
    conservation = build.conservation(config.conservation, samples, statistics)
    step = build.Step(network, layout, build.buffers(samples, statistics, config), conservation.scheme)
    log.info("%s with %d parameters", config.network.kind, sum(p.numel() for p in network.parameters()))
    recipe, output = build.recipe(config), Path(config.output)
    loss = build.loss(samples, statistics, config, conservation.penalty)
    trainer = Trainer(step, loss, samples, recipe, output, identity(config, dataset))
    stop = _stop_signals()
    with progress("train", recipe.updates) as report:
        trainer.run(lambda row: report(row["update"], _remark(row)), lambda: bool(stop))
    checkpoint.save(output / "checkpoint", trainer.tensors(), build.metadata(config, samples, conservation.saved))


def open_statistics(path: Path) -> xr.Dataset:
    """Statistics in memory. Raises `ValueError` naming the file when it is absent or not a statistics file."""
    try:
        with xr.open_dataset(path) as dataset:
            loaded = dataset.load()
    except FileNotFoundError:
        raise ValueError(f"Expected statistics at {path}, got nothing there; run the stage stats") from None
    if "statistic" not in loaded.dims:
        raise ValueError(f"Expected statistics with a dimension 'statistic' at {path}, got {dict(loaded.sizes)}")
    return loaded


def identity(config: TrainConfig, dataset: xr.Dataset) -> str:
    """Hash of what decides the trained weights: a state of another identity is not resumed."""
    decides = config.model_copy(
        update={name: type(config).model_fields[name].default for name in NOT_IDENTITY - {"output"}}
    )
    decides = decides.model_copy(update={"output": Path()})
    with open(config.statistics, "rb") as stream:
        statistics = hashlib.file_digest(stream, "sha256").hexdigest()
    return fingerprint(decides, str(dataset.attrs.get("fingerprint")), statistics)


def _remark(row: dict) -> str:
    rate, wait = row["samples_per_second"], row["data_wait_share"]
    return f"loss {row['loss']:.4f}, {rate:.1f} samples/s, data wait {wait:.1%}, {row['remaining_seconds']:.0f} s left"


def _stop_signals() -> list[int]:
    """A list that receives SIGTERM and SIGUSR1 (preemption, time limit) so that the loop can save and stop."""
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGUSR1):
        try:
            signal.signal(number, lambda got, frame: received.append(got))
        except ValueError:  # not the main thread, as in a test
            break
    return received
