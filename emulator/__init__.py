"""Weather and climate emulators with closed budgets."""
