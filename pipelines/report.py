"""Report: one HTML page from the scores and the stores behind them, with the numbers beside it."""

from pathlib import Path

from emulator.report.page import write_comparison, write_report
from emulator.store.forecast import open_forecast
from pipelines.config import ReportConfig


def report(config: ReportConfig) -> None:
    """Write report.html and scores as JSON, CSV and NetCDF into the output folder. Raises `ValueError` in one sentence."""
    run = None if config.long_run is None else open_forecast(config.long_run)
    options = {"map_lead_days": config.map_lead_days, "long_run": run, "training": config.metrics}
    write_report(config.scores, config.output, config.title, **options)


def compare(models: list[str], output: Path, **title: str) -> None:
    """A page of several models that were verified apart, as `write_comparison` has it."""
    write_comparison(models, output, **title)


def check(config: ReportConfig, made: set[Path]) -> str:
    """Where the page would lie, in words."""
    return f"page into {config.output}"
