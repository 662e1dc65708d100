"""Analysis stores: opened and checked."""

import xarray as xr

from emulator.store.schema import check_coordinates, check_schema, open_zarr, uniform_step

ANALYSIS = "analysis-1"


def open_analysis(path, chunks=None) -> xr.Dataset:
    """The analysis store at `path`, lazily: fields `(time, [member,] level, latitude, longitude)`.

    Args:
      path: folder or fsspec URL of a store that ingest finished.
      chunks: None for arrays that are read when indexed; xarray's `chunks` (e.g. `{"time": 64}`) for Dask arrays.

    Raises `ValueError` with one sentence, naming the path, when it is absent, unfinished or breaks the schema.
    """
    dataset = open_zarr(path, chunks)
    check_schema(dataset, path, ANALYSIS)
    return check_times(dataset, path)


def check_times(dataset: xr.Dataset, path) -> xr.Dataset:
    """The analysis, with `time_step_seconds` as its axis has it. Raises `ValueError` where coordinates or step are wrong."""
    check_coordinates(dataset, path, ("time",))
    step = uniform_step(dataset["time"].values, "time", path)
    recorded = dataset.attrs.get("time_step_seconds", step)
    if abs(recorded - step) > 1e-6:
        raise ValueError(f"Expected time_step_seconds = {step:g} as the time axis of {path} has it, got {recorded:g}")
    return dataset if "time_step_seconds" in dataset.attrs else dataset.assign_attrs(time_step_seconds=step)
