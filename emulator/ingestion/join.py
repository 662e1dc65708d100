"""Analysis stores as one store that is joined when it is read: what `kind: joined` writes."""

import dataclasses
import logging

from emulator.ingestion.options import IngestOptions
from emulator.sources.open import absolute
from emulator.sources.options import SourceOptions
from emulator.store.analysis import open_analysis
from emulator.store.joined import Part, Recipe, write_joined

USED = {"sources", "kind", "step_hours", "roles", "settings"}  # options that mean something to stores that exist

log = logging.getLogger(__name__)


def join(options: IngestOptions, output) -> None:
    """Writes the joined store of the sources, each one analysis store, the first of which gives grid and times.

    Raises `ValueError` for stores that do not go together, and for an option that a join has no use for.
    """
    parts = expect_stores(options, USED, "joined")
    datasets = [open_analysis(part.path) for part in parts]
    write_joined(Recipe(parts, options.step_hours, options.roles), datasets, output)
    joined = open_analysis(output)
    log.info("%s: %d times of %s, joined when read", output, joined.sizes["time"], ", ".join(p.path for p in parts))


def expect_stores(options: IngestOptions, used: set[str], kind: str) -> tuple[Part, ...]:
    """The sources as stores. Raises `ValueError` for an option that is not `used` by what makes a store of that kind."""
    fields = [field.name for field in dataclasses.fields(options) if field.name not in used]
    plain = IngestOptions(options.sources, kind=kind)
    odd = [name for name in fields if getattr(options, name) != getattr(plain, name)]
    for number, source in enumerate(options.sources):
        if source != SourceOptions(source.path, variables=source.variables):
            odd.append(f"sources.{number}")
    if odd:
        words = "path and variables, step_hours and roles" if kind == "joined" else "path alone"
        raise ValueError(
            f"Expected sources of {words} with kind {kind}, got {', '.join(odd)} too; ingest the stores as they are to be "
            "first"
        )
    return tuple(Part(_one(source.path, kind), source.variables) for source in options.sources)


def _one(path, kind: str) -> str:
    if not isinstance(path, str):
        raise ValueError(f"Expected one store as each of the sources with kind {kind}, got {', '.join(path)}")
    return absolute(path)
