"""What a store holds, on one screen."""

import io
from pathlib import Path

import xarray as xr
from rich.console import Console
from rich.table import Table

from emulator.planet.calendar import TimeStep, lead_seconds, lead_text
from emulator.planet.vertical import VERTICAL
from emulator.sources.open import format_of
from emulator.store.analysis import ANALYSIS, open_analysis
from emulator.store.forecast import FORECAST_NAMES, open_forecast
from emulator.store.joined import is_joined
from emulator.store.masks import domain_name
from emulator.store.schema import ROWS, grid_of, levels_of, of_another_tool

SHORT = {"init_time": "init", "lead_time": "lead", "latitude": "lat", "longitude": "lon"}


def inspect(path: Path, width: int = 120) -> str:
    """A screenful on an analysis or forecast store: grid, levels, period, gaps, variables, chunks, size, provenance.

    Raises `ValueError` naming the path when there is no finished store.
    """
    schema, dataset = _open(path)
    console = Console(width=width, record=True, file=io.StringIO(), highlight=False)
    size = sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())
    lines = {
        "store": f"{path} ({schema or 'of another tool'}, {size / 1e6:,.0f} MB)",
        "grid": grid_of(dataset).describe(),
        "levels": _levels(dataset),
        **{
            axis.label: _axis(dataset[name])
            for name, axis in VERTICAL.items()
            if name != "level" and name in dataset.dims
        },
        "period": _period(dataset),
        "source": dataset.attrs.get("source"),
        "made by": dataset.attrs.get("checkpoint") and f"checkpoint {dataset.attrs['checkpoint'][:12]}",
        "history": dataset.attrs.get("history"),
    }
    for name, text in lines.items():
        if text:
            console.print(f"[bold]{name:8}[/] {text}", soft_wrap=False)
    table = Table(box=None, pad_edge=False)
    for column in ("field", "units", "role", "dimensions", "shape", "chunk"):
        table.add_column(column, no_wrap=True)
    spatial = {n: f for n, f in dataset.data_vars.items() if ROWS & set(f.dims) or f.attrs.get("role") == "forcing"}
    for name, field in sorted(spatial.items(), key=lambda item: (-item[1].ndim, str(item[0]))):
        chunk = field.encoding.get("preferred_chunks") or {}
        shape, cut = (
            " ".join(str(sizes.get(FORECAST_NAMES.get(d, [d])[0], sizes.get(d, n))) for d, n in field.sizes.items())
            for sizes in ({}, chunk)
        )
        dims = " ".join(SHORT.get(str(d), str(d)) for d in field.dims)
        table.add_row(str(name), field.attrs.get("units", ""), field.attrs.get("role", ""), dims, shape, cut)
    console.print(table)
    if masked := [f"{name} ({domain})" for name in dataset.data_vars if (domain := domain_name(dataset, name))]:
        console.print(f"[bold]masked[/]   {', '.join(sorted(masked))}")
    if others := sorted(str(n) for n in dataset.data_vars if n not in spatial):
        console.print(f"[bold]also[/]     {', '.join(others)}")
    return console.export_text()


def plot(path: Path, target: Path) -> int:
    """Draws sample maps of a store into a PNG; returns how many. Raises `ValueError` as `inspect` does."""
    from emulator.report.sample_maps import draw_maps  # a second for cartopy, only where maps are drawn

    return draw_maps(_open(path)[1], Path(target))


def _open(path: Path) -> tuple[str | None, xr.Dataset]:
    """The schema of a store, and the store. Raises `ValueError` for what is no store."""
    if is_joined(path):
        return ANALYSIS, open_analysis(path)
    if Path(path).exists() and (kind := format_of(str(path))).name != "zarr":
        raise ValueError(of_another_tool(path, f"a {kind.label} file", "an analysis or forecast store"))
    with xr.open_zarr(path, chunks=None, decode_times=False) if Path(path).exists() else open_analysis(path) as raw:
        schema = raw.attrs.get("emulator_schema")
    return schema, open_analysis(path) if schema == ANALYSIS else open_forecast(path)


def _levels(dataset: xr.Dataset) -> str:
    levels = levels_of(dataset)
    if levels is None:  # one level makes no column, but is one
        return _axis(dataset["level"]) if "level" in dataset.coords else "none"
    return f"{len(levels)} {levels.kind}: {', '.join(map(levels.label, _few(levels)))}"


def _axis(coordinate: xr.DataArray) -> str:
    values = ", ".join(f"{coordinate.values[at]:g}" for at in _few(coordinate))
    units = coordinate.attrs.get("units", "1")
    return f"{coordinate.size}: {values}{'' if units == '1' else f' {units}'}"


def _few(levels) -> list[int]:
    """Positions of some levels: all when few, else first, middle and last."""
    count = len(levels)
    return list(range(count)) if count <= 8 else [0, count // 2, count - 1]


def _period(dataset: xr.Dataset) -> str:
    name = "init_time" if "init_time" in dataset.dims else "time"
    times = dataset[name].values
    text = (
        f"{_short(times[0])} to {_short(times[-1])}, {len(times)} {'initial times' if name == 'init_time' else 'times'}"
    )
    step = TimeStep.of(dataset)
    text += f", every {step}" if step.seconds else ""
    if name == "init_time":
        last = dataset["lead_time"].values[-1]
        text += f" to {lead_text(last) if step.months else f'{lead_seconds(last) / 86400:g} days'}"
    for kind in ("missing", "interpolated"):
        if kind in dataset:
            text += f", {int(dataset[kind].sum())} {kind}"
    return text


def _short(time) -> str:
    return str(time)[:16]
