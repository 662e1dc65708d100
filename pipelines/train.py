"""Train a network on a store: resumable at any moment, a self-contained checkpoint at the end."""

import contextlib
import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch
import xarray as xr

from emulator.data.samples import Samples
from emulator.files.one_writer import one_writer
from emulator.kernels import freed_memory
from emulator.model import checkpoint
from emulator.model.step import Step
from emulator.networks import cost
from emulator.parallel.distributed import device_of, processes
from emulator.parallel.processes import World, world_of
from emulator.store.analysis import open_analysis
from emulator.training.trainer import Trainer
from pipelines import build, checkpoints, conserve
from pipelines.boards import boards
from pipelines.config import TrainConfig
from pipelines.load import fingerprint
from pipelines.progress import progress
from pipelines.run import provenance
from pipelines.signals import stopping_when_asked

log = logging.getLogger(__name__)
# Where things lie, and what changes the speed or what is kept: none of it changes the weights.
NOT_IDENTITY = {"store", "later_stores", "statistics", "output", "save_every", "save_minutes", "keep", "log_every"}
NOT_IDENTITY |= {"tensorboard", "mlflow", "cache_gigabytes", "loader_threads", "threads", "parallel"}
NOT_IDENTITY |= {"retries", "loss_limit"}  # of a training that diverged they decide how it goes on, and that is saved


def train(config: TrainConfig) -> None:
    """Train, or go on with a training that was stopped, and write `output/checkpoint`.

    Several processes that were started together (`torchrun`, `srun`) train one network; the first writes. Raises
    `Interrupted` after saving on SIGTERM or SIGUSR1, `Diverged`, and `Busy` where another training goes on.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    freed_memory.keep()
    world = world_of(os.environ)
    device = device_of(world)
    with processes(world, device):
        if world.rank:  # what the processes do alike, the first one tells
            for name in ("emulator", "pipelines"):
                logging.getLogger(name).setLevel(logging.WARNING)
        _train(config, world, device)


def _train(config: TrainConfig, world: World, device: torch.device) -> None:
    dataset, statistics = open_analysis(config.store), open_statistics(config.statistics)
    layout = build.layout(dataset, config)
    cache = int(config.cache_gigabytes * 1e9)
    paths = [config.store, *config.later_stores]
    stores = [dataset, *(open_analysis(path) for path in config.later_stores)]
    period = config.period
    samples = Samples(stores, layout, period.start, period.end, cache, paths, config.loader_threads)
    torch.manual_seed(config.seed)
    network = build.network(config.network, layout, samples.grid)
    conservation = conserve.conservation(config.conservation, samples, statistics)
    buffers, told = build.buffers(samples, statistics, config), build.conditions(config.network, layout, samples.grid)
    step = Step(network, layout, buffers, conservation.scheme, *told).to(device)
    log.info("%s with %d parameters", config.network.kind, sum(p.numel() for p in network.parameters()))
    recipe, output = build.recipe(config), Path(config.output)
    loss = build.loss(samples, statistics, config, conservation.penalty)
    loss.error.to(device)
    judge = loss.error if config.members > 1 else build.error(samples, statistics, config)
    products, sharded = 0, config.parallel == "fsdp"
    if not sharded:  # a network that is spread over processes may be too large to run whole in one
        more = (asked.count if asked else 0 for asked in told)
        products = cost.products(network, build.input_count(layout), samples.grid.shape, *more)
    if config.compile:
        network.compile()
    trainer = Trainer(
        step,
        loss,
        samples,
        recipe,
        output,
        identity(config, stores),
        build.validation(stores, config, judge.to(device), layout),
        world,
        sharded,
        products,
    )
    with one_writer(output) if world.rank == 0 else contextlib.nullcontext():
        board = boards(config, trainer.identity) if world.rank == 0 else contextlib.nullcontext(lambda row: None)
        with stopping_when_asked() as asked, progress("train", recipe.updates) as report, board as write:
            trainer.run(lambda row: (report(row["update"], _remark(row), row["remaining_seconds"]), write(row)), asked)
        metadata = checkpoints.metadata(config, samples, conservation.saved)
        tensors = trainer.tensors()
        if world.rank == 0:
            chosen, about = _chosen(config, trainer, tensors)
            checkpoint.save(output / "checkpoint", chosen, metadata | about | {"provenance": provenance()})


def _chosen(config: TrainConfig, trainer: Trainer, tensors: dict) -> tuple[dict, dict]:
    """The weights to keep, with what the checkpoint says of the choice."""
    if config.validation is None or config.validation.choose == "last" or trainer.best.update < 0:
        return tensors, {"update": trainer.update}
    path = checkpoint.path_of(trainer.directory, "best", trainer.best.update)
    try:
        best, row = checkpoint.load(path)
    except checkpoint.CheckpointError as error:  # to train all anew for them is not worth it
        log.warning("%s; the weights after the last update are taken in place of the best", error)
        return tensors, {"update": trainer.update}
    if row["identity"] != trainer.identity:
        raise checkpoint.CheckpointError(
            f"Expected the weights after update {trainer.best.update} of this training in {path}, got those of another, "
            f"which took their place; remove {trainer.directory}"
        )
    log.info("the weights after update %d have the best rollouts: skill %.4f", row["update"], row["skill"])
    return best, {"update": row["update"], "validation": {n: v for n, v in row.items() if isinstance(v, float)}}


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


def identity(config: TrainConfig, stores: Sequence[xr.Dataset]) -> str:
    """Hash of what decides the trained weights, wherever it lies: a state of another identity is not resumed."""
    with open(config.statistics, "rb") as stream:
        statistics = hashlib.file_digest(stream, "sha256").hexdigest()
    return fingerprint(
        config, *(str(store.attrs.get("fingerprint")) for store in stores), statistics, without=NOT_IDENTITY
    )


def _remark(row: dict) -> str:
    rate, wait = row["samples_per_second"], row["data_wait_share"]
    products = (
        f", products at {row['product_rate_share']:.0%} of their best rate" if "product_rate_share" in row else ""
    )
    return f"loss {row['loss']:.4f}, {rate:.1f} samples/s, data wait {wait:.1%}{products}"
