"""Weather and climate emulators with closed budgets."""

# ecCodes brings a PROJ library of its own. When it is loaded first (xarray loads the GRIB engine with its first open),
# the one of pyproj, which maps need, fails to find its database and the process crashes at exit.
import pyproj  # noqa: F401
