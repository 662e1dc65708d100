"""The model card of a checkpoint: what it is, on what it was trained, what its report found, how it is run.

In the form of Hugging Face's model cards: Markdown after a YAML front matter, with values as JSON, which is YAML too.
"""

import json
from collections.abc import Mapping
from typing import Any

from emulator.conservation.options import ConservationOptions
from emulator.data.channels import Channels, Layout
from emulator.model.saved_model import grid_from_json
from emulator.planet.calendar import MONTH_SECONDS, TimeStep
from emulator.planet.vertical import Levels

LICENCE = "license"  # Hugging Face's spelling of the key
SHOWN = 24  # rows of scores


def card(saved: Mapping, parameters: int, name: str, licence: str | None, scores: Mapping | None = None) -> str:
    """A README.md for a checkpoint.

    Args:
      saved: what the checkpoint says of itself. parameters: numbers in its network's tensors.
      name: of the model. licence: an identifier such as `cc-by-4.0`; None: nothing is said of one.
      scores: content of the `scores.json` of its report; None: none is at hand.
    """
    layout, grid, config = Layout.from_json(saved["layout"]), grid_from_json(saved["grid"]), saved["config"]
    levels = Levels.from_json(saved["levels"]).describe() if saved.get("levels") else "none"
    step, source = _step(saved["step_seconds"]), (saved.get("store") or {}).get("source") or "not recorded"
    network = {key: value for key, value in config["network"].items() if key != "kind"}
    period = " to ".join(text[:16] for text in saved["period"])
    about = {
        "Data": source,
        "Trained on": period,
        "Grid": grid.describe(),
        "Levels": levels,
        "Step": step,
        "Network": f"{config['network']['kind']}, {parameters:,} parameters",
        "Budgets": _budgets(ConservationOptions.of(config["conservation"])),
        "Licence": licence or "not stated; ask whoever made it",
        "SHA-256 of the weights": f"`{saved['sha256']}`",
    }
    front: dict[str, Any] = {"library_name": "emulator"}
    front |= {LICENCE: licence} if licence else {}
    front |= {"tags": ["weather", "climate", "emulator", str(config["network"]["kind"])], "model_name": name}
    lines = ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()), "---", ""]
    lines += [f"# {name}", "", f"An emulator of {_short(source)}, with steps of {step}.", ""]
    lines += ["| what | |", "|---|---|", *(f"| {key} | {_cell(value)} |" for key, value in about.items()), ""]
    lines += ["## Variables", ""]
    groups = {
        "prognostic": layout.prognostic,
        "diagnostic": layout.diagnostic,
        "forcing": layout.forcing,
        "static": layout.static,
    }
    lines += [f"- **{role}**: {_names(channels)}" for role, channels in groups.items() if channels.names]
    lines += ["", "## Scores", "", *_scores(scores, saved["sha256"]), ""]
    lines += [
        "## How to run it",
        "",
        *_running(name, "month" in step),
        "",
        "## Network",
        "",
        "```json",
        json.dumps(network),
        "```",
        "",
    ]
    return "\n".join(lines)


def _step(seconds: float) -> str:
    months = round(seconds / MONTH_SECONDS)
    calendar = months and abs(seconds - months * MONTH_SECONDS) < 1e-3
    return str(TimeStep(months=months) if calendar else TimeStep(seconds))


def _budgets(conservation: ConservationOptions) -> str:
    if conservation.kind == "none":
        return "none is closed"
    names = ", ".join(name.replace("_", " ") for name in conservation.budgets)
    return f"{names} closed in every step ({conservation.kind})"


def _names(channels: Channels) -> str:
    counted = zip(channels.names, channels.levels, strict=True)
    return ", ".join(f"`{name}`" + (f" on {count} levels" if count else "") for name, count in counted)


def _scores(scores: Mapping | None, digest: str) -> list[str]:
    """Rows of the report's headline scores that are of this checkpoint's forecasts, or a sentence."""
    provenance = (scores or {}).get("provenance") or {}
    own = [name for name, about in provenance.items() if (about or {}).get("checkpoint") == digest]
    rows = [row for row in (scores or {}).get("headline", ()) if row["forecast"] in own]
    if not rows:
        return ["None of a report were at hand when this card was written."]
    found = [f"Of {scores['initial_times']} initial times, by area-weighted means over the globe.", ""]
    found += ["| field | lead | RMSE | ACC | bias |", "|---|---|---|---|---|"]
    for row in rows[:SHOWN]:
        key = "lead_months" if "lead_months" in row else "lead_days"
        lead = f"{row[key]:g} {key.removeprefix('lead_').removesuffix('s')}{'s' * (row[key] != 1)}"
        numbers = " | ".join(_number(row.get(key)) for key in ("rmse", "acc", "bias"))
        found.append(f"| {_cell(row['channel'])} [{row['units']}] | {lead} | {numbers} |")
    residuals = [b for b in scores.get("budgets", ()) if b["source"] in own]
    residuals = [b for b in residuals if b["relative_residual_per_step_rms"] is not None]
    if residuals:
        words = (f"{b['budget'].replace('_', ' ')} {b['relative_residual_per_step_rms']:.2g}" for b in residuals)
        found += ["", f"What a step leaves unexplained, relative: {', '.join(words)}."]
    return found


def _running(name: str, calendar: bool) -> list[str]:
    length = 'lead="12 months"' if calendar else "days=10"
    return [
        "```python",
        "import emulator as em",
        "",
        f'model = em.load_model("{name}")  # this folder',
        'truth = em.open_analysis("analysis.zarr")  # on the grid and levels above',
        f"forecast = em.forecast(model, truth, init=truth.time.values[0], {length})",
        "```",
        "",
        f"or `rollout: {{store: analysis.zarr, checkpoint: {name}}}` in an experiment.",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _short(text: str) -> str:
    """The first line of a text, at most so long that it is one."""
    line = text.strip().splitlines()[0].rstrip(" :;,")
    return line if len(line) <= 120 else f"{line[:120]}..."


def _cell(text: str) -> str:
    """Text for a cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|")
