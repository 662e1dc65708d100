"""What stands on the page: panels that register themselves, each in a section.

A panel is one file of `emulator/report/panels/`. It draws from a `View` alone, and stands on the page where the view holds
what it needs.
"""

import dataclasses
from collections.abc import Callable, Sequence

from emulator.registry import Registry
from emulator.report.style import Panel
from emulator.report.view import View

Part = Panel | str | None  # a figure, or HTML such as a table
SECTIONS = {
    "summary": "Summary",
    "comparison": "Comparison",
    "error": "Forecast error",
    "ensemble": "Ensemble",
    "extremes": "Extremes",
    "maps": "Maps",
    "downscaling": "Downscaling",
    "spectra": "Spectra",
    "conservation": "Conservation",
    "assimilation": "Data assimilation",
    "long-run": "Long run",
    "scenarios": "Scenarios",
    "training": "Training",
    "caveats": "Caveats",
    "provenance": "Provenance",
}  # a section that is not among them comes last, under its own name


@dataclasses.dataclass(frozen=True)
class Entry:
    """A registered panel.

    Attributes:
      section: key of `SECTIONS`; order: among the panels of the section, rising.
      needs: variables of the scores, or attributes of the view, without which it is left out.
      draw: a view -> what stands on the page.
    """

    section: str
    order: int
    needs: tuple[str, ...]
    draw: Callable[[View], Part | list[Part]]

    @property
    def file(self) -> str:
        return self.draw.__module__

    def parts(self, view: View) -> list:
        """What it puts on the page: nothing where something that it needs is absent."""
        if not all(name in view.scores or getattr(view, name, None) is not None for name in self.needs):
            return []
        drawn = self.draw(view)
        return [part for part in (drawn if isinstance(drawn, list) else [drawn]) if part]


PANELS: Registry[Entry] = Registry("panel", "emulator.report.panels", order=lambda entry: (entry.order, entry.file))


def panel(section: str, order: int, needs: tuple[str, ...] = ()):
    """Registers a function of a `View` that draws a panel, or several."""
    return lambda draw: PANELS.register(f"{draw.__module__}.{draw.__name__}", Entry(section, order, needs, draw)).draw


def sections(after_summary: Sequence[str] = ()) -> list[tuple[str, str, list[Entry]]]:
    """Key, title and panels of every section, in order; `after_summary`: keys of sections that follow the first one."""
    entries = PANELS.all().values()
    keys = [*SECTIONS, *sorted({entry.section for entry in entries} - set(SECTIONS))]
    keys = [keys[0], *after_summary, *(key for key in keys[1:] if key not in after_summary)]
    return [(key, SECTIONS.get(key, key.capitalize()), [e for e in entries if e.section == key]) for key in keys]
