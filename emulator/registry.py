"""Things of one kind by name, each registered by the file that holds it: to add one is to add a file."""

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """What the files of a package register; they are imported when something is first looked up.

    Attributes:
      what: for messages ("source format"). package: the full name of the package.
      order: an entry -> the key that entries are sorted by, those of one key as they were registered; None: by name.
      error: what an unknown name raises.
    """

    def __init__(
        self,
        what: str,
        package: str,
        order: Callable[[Entry], Any] | None = None,
        error: type[ValueError] = ValueError,
    ):
        self.what, self.package, self.order, self.error = what, package, order, error
        self._entries: dict[str, Entry] = {}
        self._read: list[str] | None = None  # the package's folders when they were read

    def register(self, name: str, entry: Entry) -> Entry:
        """Makes an entry known. Raises `ValueError` for a name that is taken."""
        if name in self._entries:
            raise ValueError(f"Expected one {self.what} of the name {name!r}, got two")
        self._entries[name] = entry
        return entry

    def all(self) -> dict[str, Entry]:
        """All entries by name, in their order."""
        self._read_folder()
        entries = self._entries.items()
        return dict(sorted(entries) if self.order is None else sorted(entries, key=lambda item: self.order(item[1])))

    def names(self) -> list[str]:
        """All names, in the order of the entries."""
        return list(self.all())

    def __getitem__(self, name: str) -> Entry:
        """The entry of a name. Raises `error` for an unknown one, naming all there are and the nearest."""
        self._read_folder(again=name not in self._entries)
        if name not in self._entries:
            near = difflib.get_close_matches(str(name), self._entries, n=2)
            article = "an" if self.what[0] in "aeiou" else "a"
            raise self.error(
                f"Expected {article} {self.what} among {', '.join(self.names())}, got {name!r}"
                + (f"; nearest: {' or '.join(near)}" if near else "")
            )
        return self._entries[name]

    def _read_folder(self, again: bool = False) -> None:
        folders = list(importlib.import_module(self.package).__path__)
        if again or folders != self._read:
            for module in pkgutil.iter_modules(folders):
                importlib.import_module(f"{self.package}.{module.name}")
            self._read = folders
