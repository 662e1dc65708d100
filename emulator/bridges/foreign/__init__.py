"""Forecast models of other packages, a file each, which registers itself in `emulator.bridges.foreign.registry`."""
