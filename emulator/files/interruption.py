"""Stopping on request: what a stage raises after saving, so that its caller can ask to be started again."""


class Interrupted(RuntimeError):
    """Stopped on request after saving; starting again goes on."""
