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
    config, is_downscaling = saved["config"], "coarse_grid" in saved
    what, about, groups, running = (_of_downscaling if is_downscaling else _of_forecasts)(saved, name)
    source = (saved.get("store") or {}).get("source") or "not recorded"
    about = {
        "Data": source,
        "Trained on": " to ".join(text[:16] for text in saved["period"]),
        **about,
        "Network": f"{config['network']['kind']}, {parameters:,} parameters",
        "Licence": licence or "not stated; ask whoever made it",
        "SHA-256 of the weights": f"`{saved['sha256']}`",
    }
    front: dict[str, Any] = {"library_name": "emulator"}
    front |= {LICENCE: licence} if licence else {}
    tags = ["weather", "climate", "downscaling" if is_downscaling else "emulator", str(config["network"]["kind"])]
    front |= {"tags": tags, "model_name": name}
    lines = ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()), "---", ""]
    lines += [f"# {name}", "", what.format(_short(source)), ""]
    lines += ["| what | |", "|---|---|", *(f"| {key} | {_cell(value)} |" for key, value in about.items()), ""]
    lines += ["## Variables", ""]
    lines += [f"- **{role}**: {_names(channels)}" for role, channels in groups.items() if channels.names]
    lines += ["", "## Scores", "", *_scores(scores, saved["sha256"]), ""]
    network = {key: value for key, value in config["network"].items() if key != "kind"}
    lines += ["## How to run it", "", *running, "", "## Network", "", "```json", json.dumps(network), "```", ""]
    return "\n".join(lines)


def _of_forecasts(saved: Mapping, name: str) -> tuple[str, dict[str, str], dict[str, Channels], list[str]]:
    """What a card says of an emulator: a sentence about its data, rows of its table, its variables, and how it is run."""
    layout, step = Layout.from_json(saved["layout"]), _step(saved["step_seconds"])
    about = {
        "Grid": grid_from_json(saved["grid"]).describe(),
        "Levels": Levels.from_json(saved["levels"]).describe() if saved.get("levels") else "none",
        "Step": step,
        "Budgets": _budgets(ConservationOptions.of(saved["config"]["conservation"])),
    }
    roles = ("prognostic", "diagnostic", "forcing", "static")
    groups = {role: getattr(layout, role) for role in roles}
    return f"An emulator of {{}}, with steps of {step}.", about, groups, _running(name, "month" in step)


def _of_downscaling(saved: Mapping, name: str) -> tuple[str, dict[str, str], dict[str, Channels], list[str]]:
    """The same of a downscaling network."""
    plan, config = saved["plan"], saved["config"]
    fine, coarse = (grid_from_json(saved[key]).describe() for key in ("grid", "coarse_grid"))
    steps = _step(plan["seconds"] * plan["steps"]), _step(plan["seconds"])
    groups = {
        role: Channels(*(tuple(plan[role][key]) for key in ("names", "levels"))) for role in ("inputs", "targets")
    }
    about = {
        "Grids": f"{coarse} to {fine}",
        "Steps": steps[1] if plan["steps"] == 1 else f"{steps[0]} to {steps[1]}",
        "Kept": "means of coarse cells" + ("" if plan["steps"] == 1 else ", and of intervals where fields are means"),
        "Kind": config["kind"]
        if config["kind"] == "deterministic"
        else f"{config['kind']}, {config['objective']['kind']}",
    }
    if mean := saved.get("mean"):
        kind, trained = mean["config"]["network"]["kind"], " to ".join(text[:16] for text in mean["period"])
        about["Samples about"] = (
            f"the mean that a network of kind {kind} makes, trained on {trained}, SHA-256 of its own weights "
            f"`{mean['sha256']}`; they are among these"
        )
    several = ", members=10" if config["kind"] == "generative" else ""
    running = [
        "```python",
        "import emulator as em",
        "",
        f'em.downscale("{name}", "coarse.zarr", "fine.zarr"{several})  # this folder; coarse analyses or forecasts',
        "```",
        "",
        f"or `downscale: {{store: coarse.zarr, checkpoint: {name}}}` in an experiment.",
    ]
    return "Coarse fields to fine ones, learned of {}.", about, groups, running


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
