"""What tells a training from others: a hash of all that decides its weights, wherever that lies."""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import xarray as xr

from emulator.data.normalisation import open_statistics
from emulator.generative.windows import DYFFUSION
from emulator.model import checkpoint
from emulator.model.predictions import PREDICTIONS
from emulator.options import as_before
from emulator.store.analysis import APART, apart, open_analysis
from emulator.store.forecast import open_forecast
from emulator.store.schema import open_zarr
from emulator.training.options import TrainOptions
from emulator.training.options.sections import StartOptions

# Where things lie, and what changes the speed or what is kept: none of it changes the weights. Retries and the limit of the
# loss decide how a training that diverged goes on, and that is saved.
NOT_IDENTITY = {
    "store",
    "later_stores",
    "scenarios",
    "statistics",
    "output",
    "save_every",
    "save_minutes",
    "keep",
    "log_every",
}
NOT_IDENTITY |= {"tensorboard", "mlflow", "cache_gigabytes", "loader_threads", "threads", "parallel"}
NOT_IDENTITY |= {"retries", "loss_limit", "climatology", "overwrite", "forecasts", "posterior"}
NOT_IDENTITY |= {"boundary"}  # told by the fingerprint of its store in place of its path
NOT_IDENTITY |= {"start"}  # which is told by the weights' digest in place of their path


def stores_of(options: TrainOptions) -> list[xr.Dataset]:
    """A training's stores, opened, its scenarios apart from the others. Raises `ValueError` for what is none."""
    stores = [open_analysis(path) for path in options.paths]
    count = len(stores) - len(options.scenarios)
    return [*stores[:count], *map(apart, stores[count:])]


def data_digests(options: TrainOptions, stores: Sequence[xr.Dataset]) -> list[str]:
    """Fingerprints of the stores and digests of the statistics and of what is started from: the weights depend on them."""
    open_statistics(options.statistics).close()  # says in a sentence what is not there
    with open(options.statistics, "rb") as stream:
        statistics = hashlib.file_digest(stream, "sha256").hexdigest()
    more = []
    if PREDICTIONS[options.predict].reference and options.climatology is not None:
        more = [str(open_zarr(options.climatology).attrs.get("fingerprint"))]
    if options.forecasts is not None:
        more += [_of_forecasts(options.forecasts.store), str(options.forecasts.lead_days)]
    if options.boundary is not None:
        values = {n: value for n, value in as_before(options.boundary).items() if n not in ("store", "outflow")}
        more.append(f"boundary {open_analysis(options.boundary.store).attrs.get('fingerprint')} {values}")
        if options.boundary.outflow is not None:
            with open(options.boundary.outflow, "rb") as stream:
                more.append(f"outflow {hashlib.file_digest(stream, 'sha256').hexdigest()}")
    if options.objective["kind"] == DYFFUSION:
        more.append(f"interpolator {checkpoint.describe(options.objective['interpolator'])['sha256']}")
    if options.start is not None:
        more.append(identity_of_start(options.start))
    marks = [f"{'scenario ' if APART in store.attrs else ''}{store.attrs.get('fingerprint')}" for store in stores]
    return [*marks, statistics, *more]


def identity_of(options: TrainOptions, stores: Sequence[xr.Dataset], without: Collection[str] = ()) -> str:
    """Hash of what decides the trained weights, wherever it lies: a state of another identity is not resumed.

    `without`: options that are left out besides.
    """
    left = {*NOT_IDENTITY, *without}
    values = {name: value for name, value in as_before(options).items() if name not in left}
    if options.objective["kind"] == DYFFUSION:
        values |= {"objective": told(options.objective)}
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256("\n".join([text, *data_digests(options, stores)]).encode()).hexdigest()[:16]


def told(objective: Mapping[str, Any]) -> dict[str, Any]:
    """An objective as a training is told by: wherever its interpolator lies, whose digest is among those of the data."""
    return {name: value for name, value in objective.items() if objective["kind"] != DYFFUSION or name == "kind"}


def _of_forecasts(path) -> str:
    """What tells one store of forecasts from another; of one without a fingerprint where it lies and what it holds."""
    dataset = open_forecast(path)
    if fingerprint := dataset.attrs.get("fingerprint"):
        return str(fingerprint)
    inits = dataset["init_time"].values
    return json.dumps(
        [str(path), dict(dataset.sizes), sorted(map(str, dataset.data_vars)), str(inits[0]), str(inits[-1])]
    )


def identity_of_start(options: StartOptions) -> str:
    """What tells one start from another, wherever its checkpoint lies. Raises `CheckpointError`."""
    values = {name: value for name, value in dataclasses.asdict(options).items() if name != "checkpoint"}
    values["lr_by"] = list(options.lr_by.items())  # of several patterns that match the last counts
    digest = checkpoint.describe(options.checkpoint)["sha256"]
    return json.dumps(values | {"weights": digest}, sort_keys=True, default=str)
