"""A dataset of the small planet's kind as a store on disk with its statistics, for what trains and forecasts from files."""

from pathlib import Path

import numpy as np

import emulator as em
from emulator.planet.grid import Grid

NETWORK = {"kind": "unet", "width": 4, "depth": 1}
FREE = {"kind": "none"}  # conserves nothing


def write_store(folder: Path, dataset, name="analysis.zarr") -> Path:
    """An analysis store of the dataset in a folder."""
    area = Grid.from_coordinates(dataset["latitude"].values, dataset["longitude"].values).area
    attributes = {"emulator_schema": "analysis-1", "complete": True, "fingerprint": "small"}
    moving = [name for name in dataset if "time" in dataset[name].dims and name != "missing"]
    dataset = dataset.assign(cell_area=(("latitude", "longitude"), area)).assign_attrs(attributes)
    dataset = dataset.assign({n: dataset[n].astype(np.float32) for n in moving})
    dataset.to_zarr(folder / name, zarr_format=3, consolidated=False, mode="w")
    return folder / name


def store_of(folder: Path, dataset) -> tuple[Path, Path]:
    """Paths of an analysis store and its statistics in a folder."""
    store = write_store(folder, dataset)
    em.statistics(store, folder / "statistics.nc")
    return store, folder / "statistics.nc"
