"""Scores of long runs by years, one file an idea; each registers itself with `emulator.verify.long_climate`."""
