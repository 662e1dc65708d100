"""Configuration of the stage observe."""

from pathlib import Path

from pydantic import Field

from emulator.assimilation.options import ObserveOptions
from pipelines.config.base import Location, Period
from pipelines.config.declared import Key, model_of


class ObserveConfig(model_of(ObserveOptions, output=Key(Path, after="cut_off_hours"))):
    """Observations of a nature run by simulated networks, real ones from tables, or both, as one Parquet file."""

    store: Location | None = Field(None, description="analysis store that is the nature run; for networks")
    period: Period = Period()
