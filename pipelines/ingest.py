"""Any sources to an analysis store (or a forecast store) in canonical names, units, signs and order."""

import glob
import json
from pathlib import Path

from emulator.ingestion import run
from emulator.ingestion.options import IngestOptions
from emulator.sources.open import absolute
from pipelines.config import ConfigError, DaskConfig, IngestConfig
from pipelines.on_demand import working

STAGE_ONLY = {"output", "period", "dask", "scenarios"}  # keys that are not the library's options


def ingest(config: IngestConfig, part: tuple[int, int] | None = None, append: bool = False) -> None:
    """Writes the store (of each scenario), or what is missing of it, or its `part`; see `emulator.ingestion.run.ingest`.

    Raises `ValueError` with one sentence on bad input; nothing finished then lies at the output.
    """
    for one in config.stores():
        with working(one.dask, "ingest") as (over, report):
            run.ingest(options(one), one.output, part, append, over, report)


def options(config: IngestConfig) -> IngestOptions:
    """The library's options; the fingerprint is of the configuration: not of where the store lies, nor of who computes it."""
    # with full paths, by which a source is the same from every working directory
    sources = [source.model_copy(update={"path": absolute(source.path)}) for source in config.sources]
    plain = config.model_copy(update={"sources": sources, "dask": DaskConfig(), "output": Path("store")})
    period = {"start": config.period.start, "end": config.period.end}
    settings = {"settings": json.dumps(json.loads(plain.model_dump_json()), sort_keys=True)}
    given = config.model_copy(update={"sources": sources}).model_dump(exclude=STAGE_ONLY)
    return IngestOptions.of(given | period | settings)


def check(config: IngestConfig, made: set[Path]) -> str:
    """How many files it would read, in words; of those `made` by other stages none is looked for. Raises `ConfigError`."""
    count = 0
    for source in (source for one in config.stores() for source in one.sources):
        for pattern in [source.path] if isinstance(source.path, str) else source.path:
            if "://" in pattern or any(parent in made for parent in Path(pattern).parents):
                continue
            found = glob.glob(pattern)
            if not found:
                raise ConfigError(f"Expected files at {pattern}, got none")
            count += len(found)
    outputs = ", ".join(str(one.output) for one in config.stores())
    return f"{count} source files into {outputs}" if count else f"sources into {outputs}"
