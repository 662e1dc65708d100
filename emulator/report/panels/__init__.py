"""One file a panel, or a few that belong together, which register themselves; see `emulator.report.panel`."""
