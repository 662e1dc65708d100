"""One file for each idea of how good a forecast is; importing the package registers them all, a new file among them."""

import importlib
import pkgutil

FIRST = ("errors", "anomaly", "ensemble", "events")  # the order in tables; the others follow by name

for _name in (*FIRST, *sorted({module.name for module in pkgutil.iter_modules(__path__)} - set(FIRST))):
    importlib.import_module(f"{__name__}.{_name}")
