"""Data assimilation: analyses from a background and observations, and their cycle with forecasts."""
