"""A folder whose files register what they bring: to add one is to add a file, and nothing else has to know it."""

import importlib
import pkgutil
from collections.abc import Collection
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """What the files of a package register, each under the file's own name; a file is imported when it is asked for.

    Attributes:
      what: for messages ("source format").
      package: the full name of the package; `besides` are files of it that register nothing.
    """

    def __init__(self, what: str, package: str, besides: Collection[str] = ()):
        self.what, self.package, self._besides = what, package, frozenset(besides)
        self._entries: dict[str, Entry] = {}

    def register(self, name: str, entry: Entry) -> None:
        """Makes an entry known. Raises `ValueError` for a name that is taken."""
        if name in self._entries:
            raise ValueError(f"Expected one {self.what} of the name {name!r}, got two")
        self._entries[name] = entry

    def names(self) -> list[str]:
        """All names, sorted; nothing is imported."""
        modules = pkgutil.iter_modules(importlib.import_module(self.package).__path__)
        return sorted(module.name for module in modules if module.name not in self._besides)

    def __getitem__(self, name: str) -> Entry:
        """The entry of a name. Raises `ValueError` for an unknown one."""
        if name not in self.names():
            raise ValueError(f"Expected a {self.what} among {', '.join(self.names())}, got {name!r}")
        if name not in self._entries:
            importlib.import_module(f"{self.package}.{name}")
        return self._entries[name]
