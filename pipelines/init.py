"""`emulator init`: a look into a person's files, what was found in a table, and an experiment that runs as written."""

import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from emulator.files.whole_file import whole_file
from emulator.ingestion.survey import BUDGETS, Survey, survey
from emulator.training.proposal import SAID_OF_SOURCES, Proposal, propose
from pipelines.config import ConfigError
from pipelines.load import load_experiment
from pipelines.yaml_files import apply_overrides

WIDTH = 100
SAID = re.compile(rf"\b({'|'.join(SAID_OF_SOURCES)})\b")  # options of a source in a message
EXAMPLE = "--source units.NAME=K --source rename.NAME=temperature"
SHOWN = 4  # of what a budget lacks


def init(files: Sequence[str], output: Path, directory: str, source: Sequence[str] = ()) -> Iterator[str]:
    """Writes an experiment over files, and yields what was found and what it does, line by line.

    `source`: options of the sources that the files do not tell, as `dotted.name=value`.

    Raises `ConfigError` where a file lies at the output, and `ValueError` with one sentence where nothing can be done.
    """
    if Path(output).exists():
        raise ConfigError(
            f"Expected a new file to write the experiment to, got {output}, which is there; remove it first"
        )
    try:
        found = survey(files, apply_overrides({}, source))
    except ValueError as error:
        if SAID.search(str(error)) is None:
            raise
        raise ValueError(f"{error} (to init such options of a source are given as in {EXAMPLE})") from error
    yield describe(found)
    proposal = propose(found)
    with whole_file(Path(output)) as partial:
        partial.write_text(as_yaml(proposal, directory))
        load_experiment(partial)  # what is written is what every stage takes
    yield f"{output} {proposal.does}."
    yield f"Next: emulator run {output} --check, then emulator run {output}"


def describe(found: Survey) -> str:
    """A short table: grid, levels, period, every field, what each budget lacks, and what ingest would warn of."""
    console = Console(width=WIDTH, record=True, file=io.StringIO(), highlight=False)
    plan = found.plan
    times = f"{_time(plan.times[0])} to {_time(plan.times[-1])}, {len(plan.times)} times, every {plan.step}"
    lines = {
        "grid": plan.grid.describe(),
        "levels": "none" if plan.levels is None else f"{len(plan.levels)} {plan.vertical}",
        "period": times if len(plan.times) > 1 else f"{_time(plan.times[0])}, one time",
    }
    for name, text in lines.items():
        console.print(f"[bold]{name:8}[/] {text}")
    table = Table(box=None, pad_edge=False)
    for column in ("field", "role", "levels"):
        table.add_column(column, no_wrap=True)
    for role, names in found.names.items():
        for name in names:
            field = plan.fields.get(name)
            table.add_row(name, role, str(plan.count(field.vertical)) if field and field.vertical else "")
    console.print(table)
    for budget in BUDGETS:
        lacking = found.lacking(budget)
        more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
        text = f"lacks {', '.join(lacking[:SHOWN])}{more}" if lacking else "can be closed"
        console.print(f"[bold]{budget.replace('_', ' '):8}[/] {text}")
    for name, why in found.remedies.items():
        console.print(f"[bold]{name}[/]: {why}")
    for path in found.passed_over:
        console.print(f"[bold]passed over[/] {path}, which is no data that ingest reads")
    for text in found.said:
        console.print(f"[bold]note[/] {escape(text)}")
    return console.export_text().rstrip()


def _time(time) -> str:
    return str(time)[:16].replace(" ", "T")


def as_yaml(proposal: Proposal, directory: str) -> str:
    """The experiment as YAML with its notes as comments."""
    head = f"An experiment that {proposal.does}. Written by emulator init; change what you like."
    lines = [*_comment(head, 0), f"directory: {directory}"]
    for stage, section in proposal.sections.items():
        lines += ["", *_lines(stage, section, (), proposal.notes)]
    return "\n".join(lines) + "\n"


def _lines(key: str, value: Any, within: tuple[str, ...], notes: dict[str, str]) -> list[str]:
    name, indent = (*within, key), "  " * len(within)
    lines = _comment(notes.get(".".join(name), ""), len(within))
    if isinstance(value, dict) and value and len(name) < 3 and (len(within) == 0 or len(value) > 2):
        lines.append(f"{indent}{key}:")
        for inner, each in value.items():
            lines += _lines(inner, each, name, notes)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        lines += [f"{indent}{key}:", *(f"{indent}  - {_flow(each)}" for each in value)]
    else:
        lines.append(f"{indent}{key}: {_flow(value)}")
    return lines


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def _comment(text: str, depth: int) -> list[str]:
    indent = "  " * depth
    return [f"{indent}# {line}" for line in textwrap.wrap(text, WIDTH - 2 - len(indent), break_on_hyphens=False)]
