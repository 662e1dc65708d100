"""One file for each idea of how good a forecast is, whose metrics register themselves; see `emulator.verify.metric`."""
