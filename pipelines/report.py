"""Report: one HTML page from the scores and the stores behind them, with the numbers beside it."""

import logging
import shutil
from datetime import UTC, datetime
from pathlib import Path

from emulator.files.whole_file import whole_file
from emulator.report.long_run_panel import long_run_panel
from emulator.report.page import render
from emulator.report.style import Panel, figures
from emulator.report.tables import to_csv, to_json
from emulator.report.training_panel import training_panel
from emulator.report.view import View
from emulator.store.forecast import open_forecast
from emulator.store.schema import grid_of
from emulator.verify.files import open_scores, write_scores
from emulator.verify.ledger import Ledger
from emulator.verify.merging import combine
from pipelines.config import ReportConfig

log = logging.getLogger(__name__)


def report(config: ReportConfig) -> None:
    """Write report.html and scores as JSON, CSV and NetCDF into the output folder. Raises `ValueError` in one sentence."""
    view = View(open_scores(config.scores))
    with figures():
        panels = {"long_run": _long_run(view, config.long_run), "training": _training(config.metrics)}
    _write_page(view, config, panels, str(config.scores))
    beside = Path(config.output) / "scores.nc"
    if beside.resolve() != Path(config.scores).resolve():
        with whole_file(beside) as partial:
            shutil.copyfile(config.scores, partial)


def compare(models: list[str], output: Path, title: str = "Comparison of forecasts") -> None:
    """A page, and the files beside it, of several models that were verified apart, the first as the reference.

    `models`: files of scores or folders that hold a `scores.nc`, each as `path` or `name=path`. Raises `ValueError`,
    naming the difference, when they were not scored on the same sample.
    """
    paths = _labelled(models)
    if len(paths) < 2:
        raise ValueError(f"Expected at least 2 files of scores under different names, got {', '.join(models)}")
    scores = combine({name: open_scores(path) for name, path in paths.items()})
    config = ReportConfig(scores=next(iter(paths.values())), output=output, title=title)
    _write_page(View(scores), config, {}, ", ".join(map(str, paths.values())))
    write_scores(scores, Path(output) / "scores.nc")


def _labelled(models: list[str]) -> dict[str, Path]:
    """Name -> file of scores; without a name that of the folder, or of the file where it is not `scores.nc`."""
    found = {}
    for model in models:
        name, equals, text = model.partition("=")
        path = Path(text if equals else model)
        path = path / "scores.nc" if path.is_dir() else path
        label = name if equals else path.resolve().parent.name if path.name == "scores.nc" else path.stem
        if label in found:
            raise ValueError(f"Expected a different name for each model, got {label!r} twice; write name=path")
        found[label] = path
    return found


def _write_page(view: View, config: ReportConfig, panels: dict, source: str) -> None:
    written = f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC from {source}."
    files = {
        "scores.csv": to_csv(view),
        "scores.json": to_json(view),
        "report.html": render(view, config.title, config.map_lead_days, panels, written),
    }
    folder = Path(config.output)
    for name, text in files.items():
        with whole_file(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    log.info("%s: %.1f MB", folder / "report.html", len(files["report.html"]) / 1e6)


def _long_run(view: View, path: Path | None) -> Panel | None:
    if path is None:
        return None
    run = open_forecast(path)
    total, _ = Ledger(run, run).read({"init_time": 0}, "lead_time")
    return long_run_panel(view, run, grid_of(run).area, total.get("dry_air"))


def _training(path: Path | None) -> Panel | None:
    if path is None:
        return None
    if not Path(path).exists():
        raise ValueError(f"Expected the training's metrics at {path}, got nothing there")
    return training_panel(path)
