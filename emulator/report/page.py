"""The report: panels from the scores and the stores behind them as one page, with the numbers beside it.

One HTML file that needs nothing else, on screen, on paper and by keyboard; its style and frame are at the end.
"""

import html
import logging
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from string import Template

from emulator.files.whole_file import whole_file
from emulator.report.ensemble_rows import ensemble_rows
from emulator.report.panel import sections
from emulator.report.style import Panel, figures
from emulator.report.tables import climate_rows, rows_to_csv, scenario_rows, to_csv, to_json
from emulator.report.view import View
from emulator.verify.assemble import open_scores, write_scores
from emulator.verify.merging import combine

log = logging.getLogger(__name__)


def render(view: View, title: str, written: str = "") -> str:
    """The page as HTML that needs no other file; `written` stands in the footer."""
    bodies, links, number = [], [], 0
    # without forecasts the sections that these fill hold persistence alone
    for anchor, name, entries in sections(() if view.forecasts else ("long-run", "scenarios")):
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
    """report.html, scores.csv and scores.json into a folder, and ensemble.csv, long_runs.csv and scenarios.csv where there
    are such scores; `source` is named in the footer.
    """
    written = f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC from {source}."
    files = {
        "scores.csv": to_csv(view),
        "scores.json": to_json(view),
        "report.html": render(view, title, written),
    }
    tables = {"ensemble.csv": ensemble_rows, "long_runs.csv": climate_rows, "scenarios.csv": scenario_rows}
    for name, rows in ((name, rows_of(view)) for name, rows_of in tables.items()):
        if rows:
            files[name] = rows_to_csv(rows)
        else:
            (Path(folder) / name).unlink(missing_ok=True)  # of an earlier page
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


STYLE = """
:root { --ink:#1f2328; --soft:#57606a; --line:#d5d8dd; --wash:#f6f7f9; --blue:#0072B2; --red:#B84A00; }
* { box-sizing:border-box; }
html { scroll-behavior:smooth; }
body { margin:0; color:var(--ink); background:#fff; font:17px/1.55 Charter,"Bitstream Charter","Sitka Text",Cambria,Georgia,
  "Liberation Serif",serif; }
main, header, footer, nav > ul { max-width:1060px; margin:0 auto; padding:0 24px; }
header { padding-top:44px; }
h1 { font-size:32px; line-height:1.2; font-weight:600; margin:0 0 4px; letter-spacing:-.01em; }
.sub { color:var(--soft); margin:0 0 22px; }
.verdict { margin:0 0 26px; padding:0 0 0 18px; border-left:3px solid var(--blue); }
.verdict p { font-size:20px; line-height:1.45; margin:0; max-width:47em; } .verdict p + p { font-size:17px; margin-top:8px;
  color:var(--soft); }
h2 { font-size:23px; font-weight:600; margin:56px 0 10px; padding-top:14px; border-top:1px solid var(--line); }
h3 { font-size:18px; font-weight:600; margin:34px 0 6px; }
p { max-width:46em; }
a { color:var(--blue); text-decoration-thickness:1px; text-underline-offset:2px; }
a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline:2px solid var(--blue); outline-offset:3px; }
.skip { position:absolute; left:-9999px; }
.skip:focus { left:12px; top:8px; background:#fff; padding:6px 10px; z-index:2; }
nav { position:sticky; top:0; background:rgba(255,255,255,.96); border-bottom:1px solid var(--line); z-index:1; }
nav ul { list-style:none; display:flex; flex-wrap:wrap; gap:2px 20px; padding-top:9px; padding-bottom:9px;
  font:14px/1.5 var(--sans); }
:root { --sans:"Source Sans 3","Helvetica Neue",Helvetica,Arial,"Liberation Sans",sans-serif; }
nav a { color:var(--ink); text-decoration:none; }
nav a:hover { text-decoration:underline; }
section { scroll-margin-top:52px; } section:first-child h2 { border-top:0; margin-top:26px; }
dl.facts { display:grid; grid-template-columns:repeat(auto-fit,minmax(200px,1fr)); gap:12px 28px; margin:0 0 28px;
  font:14px/1.45 var(--sans); }
dl.facts dt { color:var(--soft); }
dl.facts dd { margin:0; overflow-wrap:anywhere; }
figure { margin:18px 0 30px; }
figure svg, figure img { display:block; width:100%; height:auto; }
figure svg text { font-family:var(--sans) !important; }
figcaption { font:14.5px/1.5 var(--sans); color:var(--ink); margin-top:8px; max-width:62em; }
figcaption b { font-weight:600; }
details { font:14.5px/1.55 var(--sans); margin-top:4px; color:var(--soft); max-width:62em; }
details > p { margin:4px 0 8px; max-width:none; }
summary { cursor:pointer; color:var(--blue); width:fit-content; }
.scroll { overflow-x:auto; margin:16px 0 8px; }
table { border-collapse:collapse; font:14px/1.35 var(--sans); font-variant-numeric:tabular-nums lining-nums; width:100%; }
caption { text-align:left; font-weight:600; padding:0 0 8px; }
thead th { font-weight:600; border-bottom:1px solid var(--ink); padding:4px 8px; text-align:right; vertical-align:bottom; }
thead tr:first-child th[colspan] { border-bottom:1px solid var(--line); text-align:center; }
thead tr:not(:only-child):not(:first-child) th { font-weight:400; color:var(--soft); }
tbody th { font-weight:400; text-align:left; padding:6px 10px 6px 0; white-space:nowrap; }
tbody td { text-align:right; padding:6px 7px; white-space:nowrap; }
table.headline { font-size:13.5px; } table.headline thead th { padding:4px 5px; white-space:nowrap; }
table.headline tbody td { padding:6px 5px; }
tbody tr { border-bottom:1px solid #eceef1; }
table.headline { border-bottom:1px solid var(--ink); }
table.headline td.value, td.value { font-weight:600; }
.interval { display:block; font-weight:400; font-size:11.5px; color:var(--soft); }
.unit { color:var(--soft); font-size:12.5px; }
.better { color:var(--blue); } .worse { color:var(--red); } .unsure { color:var(--soft); }
table.narrow { width:auto; } table.narrow td, table.narrow thead th { padding-left:28px; }
table.card { width:auto; font-size:13px; } table.card tbody td { min-width:50px; text-align:center; padding:3px 4px; }
table.card tbody td.gap { min-width:14px; } table.card tbody th { padding:3px 12px 3px 0; }
table.card.wide { font-size:11.5px; } table.card.wide tbody td { min-width:30px; padding:3px 1px; }
table.card.wide tbody td.gap { min-width:8px; } table.card.wide thead th { padding-left:1px; padding-right:1px; }
table.card.wide .mark { margin-left:0; }
table.card thead th { text-align:center; }
.card td.inverse { color:#fff; }
.mark { margin-left:3px; }
table.budget thead th.text { text-align:left; padding-left:0; } table.budget tbody th[scope=rowgroup] { font-weight:600; }
.note { font:14px/1.5 var(--sans); color:var(--soft); }
ul.caveats { padding-left:20px; max-width:46em; }
ul.caveats li { margin:4px 0; }
pre { background:var(--wash); border:1px solid var(--line); padding:12px 14px; overflow-x:auto; font:12.5px/1.5 ui-monospace,
  "SF Mono",Menlo,Consolas,"Liberation Mono",monospace; white-space:pre-wrap; overflow-wrap:anywhere; }
footer { color:var(--soft); font:13px/1.5 var(--sans); padding-top:22px; padding-bottom:44px; }
@media (max-width:700px) {
  body { font-size:16px; } h1 { font-size:26px; } .verdict p { font-size:18px; } nav { position:static; }
  figure { overflow-x:auto; } figure svg, figure img { min-width:680px; }
}
@media print {
  @page { size:A4; margin:16mm 14mm; }
  body { font-size:10.5pt; } nav, .skip { display:none; } main, header, footer { max-width:none; padding:0; }
  header { padding-top:0; } h2 { break-after:avoid; margin-top:22pt; } h3, h3 + .note { break-after:avoid; }
  figure, table, li { break-inside:avoid; } .scroll { overflow:visible; }
  table { font-size:8pt; } table.card.wide { font-size:6pt; }
  table.card.wide tbody td { min-width:0; }
  tbody td, tbody th, thead th { padding:3px 4px; } a { color:inherit; text-decoration:none; }
  details:not([open]) { display:none; }
  * { -webkit-print-color-adjust:exact; print-color-adjust:exact; }
}
"""

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>$title</title>
<style>$style</style>
</head>
<body>
<a class="skip" href="#summary">Skip to the summary</a>
<header>
<h1>$title</h1>
<p class="sub">$subtitle</p>
</header>
<nav aria-label="Sections"><ul>$links</ul></nav>
<main>
$sections
</main>
<footer>$footer</footer>
</body>
</html>
""")

SECTION = Template("""<section id="$anchor" aria-labelledby="$anchor-title">
<h2 id="$anchor-title">$title</h2>
$body
</section>
""")

FIGURE = Template("""<figure>
$markup
<figcaption><b>Figure $number. $title.</b> $caption</figcaption>
<details><summary>How to read this</summary><p>$help</p></details>
</figure>
""")
