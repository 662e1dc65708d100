"""Train a network on a store: resumable at any moment, a self-contained checkpoint at the end."""

import contextlib
import json
import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
import xarray as xr

from emulator.model import adapted
from emulator.model.checkpoint import describe
from emulator.model.migrations import expect_known
from emulator.parallel.processes import processes_of
from emulator.training.identity import NOT_IDENTITY, data_digests, stores_of, told
from emulator.training.interpolator import with_interpolator
from emulator.training.options import TrainOptions
from emulator.training.run import StageHooks, Training
from emulator.training.start import check_kind
from pipelines.boards import boards
from pipelines.config import TrainConfig
from pipelines.load import fingerprint
from pipelines.progress import progress
from pipelines.run import provenance
from pipelines.signals import stopping_when_asked

STAGE_ONLY = {"tensorboard", "mlflow", "threads"}  # of the stage, not of the training


def train(config: TrainConfig) -> None:
    """Train, or go on with a training that was stopped, and write `output/checkpoint`.

    Several processes that were started together (`torchrun`, `srun`) train one network; the first writes. Raises
    `Interrupted` after saving on SIGTERM or SIGUSR1, `Diverged`, and `Busy` where another training goes on.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    processes = processes_of(os.environ)
    if processes.rank:  # what the processes do alike, the first one reports
        for name in ("emulator", "pipelines"):
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger("emulator.parallel").setLevel(logging.INFO)  # but that it has met the others
    options = options_of(config)
    stores = stores_of(options)
    hooks = StageHooks(
        identity=identity(config, stores),
        rest=identity(config, stores, {"phases"}),
        config=json.loads(config.model_dump_json()),
        provenance=provenance(),
        processes=processes,
        stopping=stopping_when_asked,
        reporting=lambda identity, updates: _reporting(config, identity, updates),
    )
    Training(options, hooks).run()


def identity(config: TrainConfig, stores: Sequence[xr.Dataset], without: Collection[str] = ()) -> str:
    """Hash of what decides the trained weights, wherever it lies: a state of another identity is not resumed.

    `without`: keys that are left out besides.
    """
    digests = data_digests(options_of(config), stores)
    config = config.model_copy(update={"objective": told(config.objective)})
    return fingerprint(config, *digests, without={*NOT_IDENTITY, *without})


def options_of(config: TrainConfig) -> TrainOptions:
    """What the library takes of a stage's configuration."""
    return TrainOptions.of(config.model_dump(exclude=STAGE_ONLY))


@contextlib.contextmanager
def _reporting(config: TrainConfig, identity: str, updates: int):
    with progress("train", updates) as report, boards(config, identity) as write:
        yield lambda row: (report(row["update"], _remark(row), row["remaining_seconds"]), write(row))


def _remark(row: dict) -> str:
    rate, wait = row["samples_per_second"], row["data_wait_share"]
    products = (
        f", products at {row['product_rate_share']:.0%} of their best rate" if "product_rate_share" in row else ""
    )
    return f"loss {row['loss']:.4f}, {rate:.1f} samples/s, data wait {wait:.1%}{products}"


def check_start(config: TrainConfig) -> None:
    """Raises `ValueError` where a checkpoint that it needs is not there or of another kind; the store need not be there."""
    options = with_interpolator(options_of(config))
    if config.start is None:
        return
    saved = describe(config.start.checkpoint)
    expect_known(saved, config.start.checkpoint, adapted.SCHEMA)
    check_kind(options, saved)


def check(config: TrainConfig, made: set[Path]) -> str:
    """What would be trained, in words. Raises `ValueError`."""
    options = options_of(config)
    stores = stores_of(options)
    return Training(options, StageHooks(identity(config, stores), identity(config, stores, {"phases"}))).describe()
