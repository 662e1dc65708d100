"""Sample maps of a store: every field at one time, as a PNG for a person's first look."""

import textwrap
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from emulator.files.whole_file import whole_file
from emulator.planet.vertical import VERTICAL
from emulator.report.maps import frame
from emulator.report.style import SEQUENTIAL
from emulator.store.masks import existing
from emulator.store.schema import ROWS, level_label

COLUMNS, TITLE_WIDTH = 3, 38
DIVERGING = "PuOr_r"
FIXED = ("cell_area", "missing", "interpolated")


def draw_maps(dataset: xr.Dataset, target: Path, most: int = 18) -> int:
    """Draws the fields of an analysis or forecast dataset at the middle of its period into a PNG; returns how many.

    Fields on levels are shown on the level in the middle, point grids as points. Where a field does not exist the map is
    grey. Fields whose values have both signs are coloured about zero. Raises `ValueError` naming the dataset's fields when
    none can be drawn.
    """
    fields = _fields(dataset)[:most]
    if not fields:
        raise ValueError(f"Expected fields on a grid to draw, got {', '.join(map(str, dataset.data_vars)) or 'none'}")
    points = "cell" in dataset.dims
    shared = None if points else frame(dataset)
    rows = -(-len(fields) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 2.5 * rows), layout="constrained")
    projected = {} if points else {"subplot_kw": {"projection": shared.projection}}
    axes = figure.subplots(rows, COLUMNS, squeeze=False, **projected).ravel()
    for axis, (title, units, values) in zip(axes, fields, strict=False):
        style = _style(values)
        if points:
            image = axis.scatter(dataset["longitude"].values, dataset["latitude"].values, c=values, s=2, **style)
        else:
            image = shared.draw(axis, values, style)
        axis.set_title("\n".join(textwrap.wrap(title, TITLE_WIDTH)), fontsize=9)
        figure.colorbar(image, ax=axis, shrink=0.8, label=units)
    for axis in axes[len(fields) :]:
        axis.set_visible(False)
    try:
        with whole_file(target, shared=True) as scratch:  # whose folder has to be there
            figure.savefig(scratch, format="png", dpi=110)
    except OSError as error:
        raise ValueError(f"Expected to write maps to {target}, got: {error.strerror or error}") from error
    return len(fields)


def _fields(dataset) -> list[tuple[str, str, np.ndarray]]:
    """Title, units and values of the fields, those that change first."""
    panels = []
    for name, field in sorted(dataset.data_vars.items(), key=lambda item: (-item[1].ndim, str(item[0]))):
        if name in FIXED or not ROWS & set(field.dims) or field.dtype.kind != "f":
            continue
        title = str(name).replace("_", " ")
        for dim in ("time", "init_time", "lead_time", "member", *VERTICAL):
            if dim in field.dims:
                at = 0 if dim == "member" else field.sizes[dim] // 2
                if dim in ("time", "init_time"):
                    at = _present(dataset, at)
                    title += f", {str(dataset[dim].values[at])[:16].replace('T', ' ')}"
                elif dim in VERTICAL:
                    title += f", {level_label(dataset, dim, at)}"
                field = field.isel({dim: at})
        values = np.asarray(existing(field, dataset).values, np.float64)
        panels.append((title, field.attrs.get("units", ""), values))
    return panels


def _present(dataset, at: int) -> int:
    """The position, or the nearest one that is not a gap."""
    if "missing" not in dataset:
        return at
    good = np.flatnonzero(~dataset["missing"].values.astype(bool))
    return int(good[np.abs(good - at).argmin()]) if len(good) else at


def _style(values: np.ndarray) -> dict:
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [0.5, 99.5]) if finite.size else (0.0, 1.0)
    if low < 0 < high and min(-low, high) > 0.1 * max(-low, high):
        largest = max(-low, high)
        return {"cmap": DIVERGING, "vmin": -largest, "vmax": largest}
    return {"cmap": SEQUENTIAL, "vmin": low, "vmax": high}
