"""Any sources to an analysis store (or a forecast store) in canonical names, units, signs and order."""

import glob
import json
from pathlib import Path

from emulator.ingestion import run
from emulator.ingestion.plan import GridOptions, IngestOptions, VerticalOptions
from emulator.sources.harmonise import SourceOptions
from emulator.sources.open import absolute
from pipelines.config import ConfigError, DaskConfig, IngestConfig
from pipelines.on_demand import working

ELSEWHERE = (
    "output",
    "sources",
    "period",
    "grid",
    "vertical",
    "dask",
)  # keys that options have under other names or types


def ingest(config: IngestConfig, part: tuple[int, int] | None = None, append: bool = False) -> None:
    """Writes the store, or what is missing of it, or its `part`; see `emulator.ingestion.run.ingest`.

    Raises `ValueError` with one sentence on bad input; nothing finished then lies at the output.
    """
    with working(config.dask, "ingest") as (over, report):
        run.ingest(options(config), config.output, part, append, over, report)


def options(config: IngestConfig) -> IngestOptions:
    """The library's options; the fingerprint is of the configuration: not of where the store lies, nor of who computes it."""
    # with full paths, by which a source is the same from every working directory
    sources = [source.model_copy(update={"path": absolute(source.path)}) for source in config.sources]
    plain = config.model_copy(update={"sources": sources, "dask": DaskConfig(), "output": Path("store")})
    return IngestOptions(
        [SourceOptions(**source.model_dump()) for source in sources],
        start=config.period.start,
        end=config.period.end,
        grid=config.grid and GridOptions(**config.grid.model_dump()),
        vertical=config.vertical and VerticalOptions(**config.vertical.model_dump()),
        settings=json.dumps(json.loads(plain.model_dump_json()), sort_keys=True),
        **config.model_dump(exclude=set(ELSEWHERE)),
    )


def check(config: IngestConfig, made: set[Path]) -> str:
    """How many files it would read, in words; of those `made` by other stages none is looked for. Raises `ConfigError`."""
    count = 0
    for source in config.sources:
        for pattern in [source.path] if isinstance(source.path, str) else source.path:
            if "://" in pattern or any(parent in made for parent in Path(pattern).parents):
                continue
            found = glob.glob(pattern)
            if not found:
                raise ConfigError(f"Expected files at {pattern}, got none")
            count += len(found)
    return f"{count} source files into {config.output}" if count else f"sources into {config.output}"
