"""What ingest leaves out of its sources, as its log has it."""

import logging
from collections.abc import Sequence

from emulator.sources.conventions import time_method
from emulator.sources.open import Source
from emulator.sources.options import SourceOptions
from emulator.sources.unknown import unknown

log = logging.getLogger(__name__)
SHOWN = 12  # names in a message


def label(name: str, array) -> str:
    """A field's name, with the statistic that it is of its quantity."""
    method = time_method(array.attrs)
    return name if method in (None, "point", "mean", "sum") else f"{name} ({method})"


def warn_of_unknown(files: Sequence[Source], options: SourceOptions) -> None:
    """A line on the fields that the table does not know: nothing else would tell that they are not in the store; and one on
    each that it does know on another vertical axis."""
    found = {name: (file.path, why) for file in reversed(files) for name, why in unknown(file, options).items()}
    for name, (path, why) in sorted(found.items()):
        if why:
            log.warning(
                "%s of %s is left out: %s; a vertical coordinate is told by CF's standard_name and units in the file, and "
                "`select` takes one value of a dimension",
                name,
                path,
                why,
            )
    if rest := sorted(name for name, (_, why) in found.items() if not why):
        arrays = {str(name): array for file in files for name, array in file.dataset.data_vars.items()}
        labels = [label(name, arrays[name]) if name in arrays else name for name in rest]
        names = [*labels[:SHOWN], *([f"{len(rest) - SHOWN} more"] if len(rest) > SHOWN else [])]
        log.warning(
            "The variable table has no entry for %s (%s): left out; to ingest one, `define` it, as in define: {%s: {}} where "
            "its file says what it is, or `rename` it to a name of the table, as in rename: {%s: NAME}",
            ", ".join(names),
            found[rest[0]][0],
            rest[0],
            rest[0],
        )
