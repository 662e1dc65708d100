"""Values that a training needs and its stores lack, found before it starts and told by name and time."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from emulator.data.channels import Layout
from emulator.store.analysis import AnalysisSeries
from emulator.store.masks import domain_of
from emulator.training.options import TrainOptions

BLOCK_BYTES = 64 << 20


def refuse_gaps(options: TrainOptions, stores: Sequence[xr.Dataset], layout: Layout, statistics: xr.Dataset) -> None:
    """Raises `ValueError` naming the first field and time of a training's period with missing values in what is predicted.

    Only fields are read of which the statistics say that some are missing; times that the store marks as missing are none of
    a training's.
    """
    names = [name for group in (layout.prognostic, layout.diagnostic) for name in group.names]
    for name in names:
        if name in statistics and "fewest_values" in statistics[name].attrs:
            _refuse(name, options, stores)


def _refuse(name: str, options: TrainOptions, stores: Sequence[xr.Dataset]) -> None:
    series = AnalysisSeries.of(stores, options.period.start, options.period.end, [name])
    for stretch in series.stretches:
        dataset, exists = stretch.dataset, domain_of(stores[stretch.store], name)
        block = max(1, BLOCK_BYTES // (4 * dataset[name][0].size))
        for first in range(0, dataset.sizes["time"], block):
            part = dataset.isel(time=slice(first, first + block))
            lacking = ~np.isfinite(part[name].values)
            if exists is not None:
                lacking &= exists
            count = lacking.reshape(len(lacking), -1).sum(axis=1)
            if "missing" in part:
                count = np.where(part["missing"].values.astype(bool), 0, count)
            if count.any():
                at = int(np.argmax(count > 0))
                raise ValueError(
                    f"Expected values of {name} at every time to train on, got {int(count[at])} missing ones at "
                    f"{part['time'].values[at]} in {options.paths[stretch.store]}; leave it out (train.prognostic, "
                    "train.diagnostic), or those times out of its source and ingest with missing: keep"
                )
