"""Forecast models of other packages: one file for each kind, which registers itself. See `emulator.bridges.foreign.registry`."""
