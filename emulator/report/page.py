"""The report: panels from the scores and the stores behind them, as one page, with the numbers beside it."""

import html
import logging
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from emulator.files.whole_file import whole_file
from emulator.report.panel import sections
from emulator.report.style import Panel, figures
from emulator.report.tables import to_csv, to_json
from emulator.report.template import FIGURE, PAGE, SECTION, STYLE
from emulator.report.view import View
from emulator.verify.files import open_scores, write_scores
from emulator.verify.merging import combine

log = logging.getLogger(__name__)


def render(view: View, title: str, written: str = "") -> str:
    """The page as HTML that needs no other file; `written` stands in the footer."""
    bodies, links, number = [], [], 0
    for anchor, name, entries in sections():
        body = []
        with figures():
            parts = [part for entry in entries for part in entry.parts(view)]
        for part in parts:
            if isinstance(part, Panel):
                number += 1
                texts = {key: html.escape(getattr(part, key), quote=False) for key in ("title", "caption", "help")}
                body.append(FIGURE.substitute(markup=part.markup, number=number, **texts))
            else:
                body.append(part)
        if body:
            links.append(f'<li><a href="#{anchor}">{name}</a></li>')
            bodies.append(SECTION.substitute(anchor=anchor, title=name, body="\n".join(body)))
    judged = ", ".join(view.forecasts) or "Persistence"
    subtitle = f"{judged} against the truth at valid time, {view.scores.sizes['init_time']} initial times"
    return PAGE.substitute(
        title=html.escape(title),
        subtitle=html.escape(subtitle),
        style=STYLE,
        links="".join(links),
        sections="\n".join(bodies),
        footer=html.escape(written),
    )


def write_page(view: View, folder: Path, title: str, source: str) -> None:
    """report.html, scores.csv and scores.json into a folder; `source` is named in the footer."""
    written = f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC from {source}."
    files = {
        "scores.csv": to_csv(view),
        "scores.json": to_json(view),
        "report.html": render(view, title, written),
    }
    for name, text in files.items():
        with whole_file(Path(folder) / name) as partial:
            partial.write_text(text, encoding="utf-8")
    log.info("%s: %.1f MB", Path(folder) / "report.html", len(files["report.html"]) / 1e6)


def write_report(scores: Path, folder: Path, title: str, **options) -> None:
    """The page of one file of scores, which is copied beside it; `options` as of `View`. Raises `ValueError`."""
    write_page(View(open_scores(scores), **options), folder, title, str(scores))
    beside = Path(folder) / "scores.nc"
    if beside.resolve() != Path(scores).resolve():
        with whole_file(beside) as partial:
            shutil.copyfile(scores, partial)


def write_comparison(models: Sequence[str], folder: Path, title: str = "Comparison of forecasts") -> None:
    """A page, and the files beside it, of several models that were verified apart, the first as the reference.

    `models`: files of scores or folders that hold a `scores.nc`, each as `path` or `name=path`. Raises `ValueError`,
    naming the difference, when they were not scored on the same sample.
    """
    paths = _labelled(models)
    if len(paths) < 2:
        raise ValueError(f"Expected at least 2 files of scores under different names, got {', '.join(models)}")
    scores = combine({name: open_scores(path) for name, path in paths.items()})
    write_page(View(scores), folder, title, ", ".join(map(str, paths.values())))
    write_scores(scores, Path(folder) / "scores.nc")


def _labelled(models: Sequence[str]) -> dict[str, Path]:
    """Name -> file of scores; without a name that of the folder, or of the file where it is not `scores.nc`."""
    labelled = {}
    for model in models:
        name, equals, text = model.partition("=")
        path = Path(text if equals else model)
        path = path / "scores.nc" if path.is_dir() else path
        label = name if equals else path.resolve().parent.name if path.name == "scores.nc" else path.stem
        if label in labelled:
            raise ValueError(f"Expected a different name for each model, got {label!r} twice; write name=path")
        labelled[label] = path
    return labelled
