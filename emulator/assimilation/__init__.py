"""From observations to analyses: what is observed, what a state would give there, and how a state is drawn to it."""
