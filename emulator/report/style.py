"""How figures look: one palette, one typeface, sober axes; and how they get into a page without any other file."""

import base64
import contextlib
import dataclasses
import html
import io
import math
import re
import warnings

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from emulator.report.display import RAISED

# Okabe and Ito (2008): told apart by colour-blind readers and in greyscale print with the line styles below.
BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
INK, GREY, PALE = "#1f2328", "#6b7280", "#d5d8dd"
FORECAST_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE)
FORECAST_DASHES = ("-", (0, (7, 1.5)), (0, (4, 1, 1, 1)), (0, (2, 1)), "-", (0, (7, 1.5)))
NAMED = {
    "persistence": (GREY, (0, (5, 2.2)), 1.3),
    "climatology": (GREY, (0, (1, 1.6)), 1.5),
    "truth": (INK, (0, (1, 1.4)), 1.6),
}
HELD = {"color": INK, "linestyle": (0, (5, 2.2)), "linewidth": 1.3}  # analyses that are held, as persistence is
DECADES = tuple(m * 10.0**e for e in range(-9, 10) for m in (1, 2, 3, 5))  # of an axis of a few decades
SEQUENTIAL, DIVERGING = "cividis", "RdBu_r"
WIDTH, COLUMNS = 10.5, 3  # inches, the width of the page; axes in a row

_SETTINGS = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Source Sans 3", "Helvetica Neue", "Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#eceef1",
    "grid.linewidth": 0.7,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.direction": "out",
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "figure.constrained_layout.use": True,
    "text.parse_math": False,  # a name may hold dollars
    "svg.fonttype": "none",  # text stays text: small, selectable, searchable
    "svg.hashsalt": "emulator",  # the same figure gives the same file
    "path.simplify": True,
}
_LONG = re.compile(r"(-?\d+\.\d{2})\d+")


@dataclasses.dataclass(frozen=True)
class Panel:
    """One figure of the page: `markup` is an inline SVG or an image with its data inside; `help` is plain language."""

    title: str
    caption: str
    help: str
    markup: str


class Markup(str):
    """HTML of a figure, which it keeps."""

    figure: Figure

    @classmethod
    def of(cls, text: str, figure: Figure) -> "Markup":
        markup = cls(text)
        markup.figure = figure
        return markup


@contextlib.contextmanager
def figures():
    """Matplotlib's settings for the report, inside a `with` block only."""
    with matplotlib.rc_context(_SETTINGS):
        yield


def line_style(name: str, position: int) -> dict:
    """Colour, dashes and width of a forecast (by its position among the forecasts), a baseline or the truth."""
    if name in NAMED:
        colour, dashes, width = NAMED[name]
        return {"color": colour, "linestyle": dashes, "linewidth": width}
    turn = position % len(FORECAST_COLOURS)
    return {"color": FORECAST_COLOURS[turn], "linestyle": FORECAST_DASHES[turn], "linewidth": 1.9}


def line_styles(view) -> dict[str, dict]:
    """Of every line of a view, by its name."""
    return {name: HELD if name in view.held else line_style(name, position) for position, name in enumerate(view.lines)}


def multiples(count: int, height: float = 2.35, extra: float = 0.35, **options) -> tuple[Figure, list]:
    """A figure of `count` axes, three in a row, `height` inches each; `options` as of matplotlib's `subplots`."""
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH if columns == COLUMNS else 3.4 * columns, height * rows + extra))
    axes = figure.subplots(rows, columns, squeeze=False, **options).ravel()
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def legend(figure: Figure, lines: dict, most: int = 99) -> None:
    """One legend above all axes: text -> line, `most` in a row."""
    columns = max(1, min(len(lines), most, int(figure.get_figwidth() // 1.7)))  # a name takes about so many inches
    figure.legend(lines.values(), lines.keys(), loc="outside upper left", ncols=columns, handlelength=2.6)


def plain_ticks(axis, ticks) -> None:
    """Ticks written as plain numbers, at the given places alone: for logarithmic axes of a few decades."""
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def span(axis, low: float, high: float) -> None:
    """Limits in x; a single lead gets a day around it."""
    axis.set_xlim(low, high) if high > low else axis.set_xlim(low - 0.5, high + 0.5)


def power_ticks(axis) -> None:
    """Powers of ten on a logarithmic axis of many decades, as plain text: matplotlib's own need its mathematics."""
    axis.set_major_formatter(FuncFormatter(_power_of_ten))
    axis.set_minor_formatter(NullFormatter())


def _power_of_ten(value: float, _=None) -> str:
    return f"10{f'{round(math.log10(value)):d}'.translate(RAISED)}" if value > 0 else ""


def _show_single_points(figure: Figure) -> None:
    """A mark on lines of one point, such as scores of a single lead, of which nothing would be seen."""
    for line in (line for axis in figure.axes for line in axis.lines):
        if len(line.get_xdata()) == 1 and line.get_marker() in ("None", None, ""):
            line.set(marker="o", markersize=4, clip_on=False)


def svg(figure: Figure, alt: str, prefix: str) -> Markup:
    """The figure as inline SVG that scales with the page; `prefix` keeps its ids apart from other figures'."""
    buffer = io.StringIO()
    _show_single_points(figure)
    with warnings.catch_warnings():
        # The browser draws the text, and finds what the first typeface here lacks in another one.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'(xlink:href="#|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    # Hundredths of a point are enough in geometry; text is left alone.
    text = re.sub(r'\b(d|transform|points|x|y)="[^"]*"', lambda match: _LONG.sub(r"\1", match[0]), text)
    opening = text[: text.index(">") + 1]
    size = re.search(r'viewBox="[\d.]+ [\d.]+ ([\d.]+) ([\d.]+)"', opening)
    label = html.escape(alt, quote=True)
    fresh = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'aria-label="{label}" viewBox="0 0 {size[1]} {size[2]}" style="max-width:{float(size[1]) * 4 / 3:.0f}px">'
        f"<title>{label}</title>"
    )
    return Markup.of(fresh + text[len(opening) :], figure)


def png(figure: Figure, alt: str, dpi: int = 150) -> Markup:
    """The figure as an image with its data inside."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    width = figure.get_figwidth() * 96
    text = html.escape(alt, quote=True)
    return Markup.of(f'<img alt="{text}" src="data:image/png;base64,{data}" style="max-width:{width:.0f}px">', figure)
