"""Configuration of the stage report."""

from pathlib import Path

from pydantic import Field

from pipelines.config.base import Model, Positive


class ReportConfig(Model):
    """One HTML page from the scores and the stores behind them."""

    scores: Path
    output: Path = Field(description="folder; receives report.html, scores.json, scores.csv and scores.nc")
    title: str = "Forecast verification"
    long_run: Path | None = Field(None, description="forecast store of one long run")
    metrics: Path | None = Field(None, description="metrics.jsonl of the training")
    map_lead_days: Positive = 3
