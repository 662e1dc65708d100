"""One file a panel, or a few that belong together; importing the package registers them all, a new file among them."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
