"""The training curve, from the lines of metrics.jsonl."""

import itertools
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from emulator.report.panel import panel
from emulator.report.style import BLUE, GREY, PALE, VERMILLION, Panel, plain_ticks, svg
from emulator.report.view import View

LOSS_TICKS = tuple(m * 10.0**e for e in range(-6, 6) for m in (1, 2, 5))
CLOSE_TICKS = tuple(m * 10.0**e for e in range(-6, 6) for m in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9))
_WORDS = {"mse": "squared error", "crps": "CRPS"}
_STEP = ("update", "step", "iteration")
_LOSS, _VALIDATION = ("loss", "train_loss"), ("validation_loss", "val_loss", "validation")


@panel("training", 10, needs=("training",))
def of_view(view: View) -> Panel:
    """`training_panel` of the view's training."""
    return training_panel(view.training)


def training_panel(path: Path) -> Panel:
    """Loss against update. Raises `ValueError` where there is no file, or none of its lines has a loss."""
    if not Path(path).exists():
        raise ValueError(f"Expected the training's metrics at {path}, got nothing there")
    lines = []
    for number, text in enumerate(Path(path).read_text().splitlines(), start=1):
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(f"Expected JSON on every line of {path}, got line {number}: {error.msg}") from None
    rows, validation = _rows(lines, _LOSS), _series(_rows(lines, _VALIDATION))
    loss = _series(rows)
    if not len(loss[0]):
        raise ValueError(
            f"Expected lines with one of {', '.join(_LOSS)} in {path}, got {sorted(lines[0]) if lines else 'none'}"
        )
    figure = Figure(figsize=(10.5, 2.8))
    axis = figure.subplots()
    pieces = [(kind, _series(part)) for kind, part in itertools.groupby(rows, key=lambda row: row[2])]
    for number, (_, (updates, values)) in enumerate(pieces):
        named = {} if number else {"each": "training, each update logged", "smooth": "training, smoothed"}
        axis.plot(updates, values, color=GREY, linewidth=0.6, label=named.get("each"))
        axis.plot(updates, _smooth(values), color=BLUE, label=named.get("smooth"))
        if number:
            axis.axvline((pieces[number - 1][1][0][-1] + updates[0]) / 2, color=PALE, linewidth=0.8)
    if len(validation[0]):
        axis.plot(*validation, color=VERMILLION, marker="o", markersize=3, linestyle="--", label="validation")
    axis.set(yscale="log", xlabel="update", ylabel="loss", xlim=(0, loss[0][-1]))
    low, high = axis.get_ylim()
    plain_ticks(axis.yaxis, LOSS_TICKS if high > 20 * low else CLOSE_TICKS)
    figure.legend(loc="outside upper left", ncols=3)
    ends = [f"{values[0]:.3g} to {values[-1]:.3g}" for _, (_, values) in pieces]
    return Panel(
        "Training",
        f"Loss over {loss[0][-1]:g} updates{_told(pieces)}.",
        "The loss is the error that the network is trained to lower. A curve still falling at the end means that longer "
        "training would help; a validation curve that rises means that the network learns its training data by heart.",
        svg(
            figure,
            f"Training loss from {', then from '.join(ends)} over {loss[0][-1]:g} updates.",
            "training",
        ),
    )


def _rows(lines, names):
    """Updates, values and kinds of the loss of the lines that have one of some names."""
    name = next((n for n in names if any(n in line for line in lines)), None)
    return [
        (next((line[key] for key in _STEP if key in line), index), line[name], line.get("loss_kind", ""))
        for index, line in enumerate(lines)
        if name in line and isinstance(line[name], int | float)
    ]


def _series(rows):
    return np.array([row[:2] for row in rows], np.float64).reshape(-1, 2).T


def _told(pieces) -> str:
    if len(pieces) == 1:
        return ""
    spans = [f"{_WORDS.get(kind, kind)} up to update {updates[-1]:g}" for kind, (updates, _) in pieces]
    return f", of different losses that do not compare: {', '.join(spans)}"


def _smooth(values, share=0.05):
    width = max(1, int(len(values) * share)) | 1
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")
