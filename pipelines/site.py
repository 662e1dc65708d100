"""What is true of one cluster and nowhere else: accounts, partitions, modules, sizes of jobs. Read from conf/site/*.yaml."""

import re
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from pipelines.config import Count, Model
from pipelines.parse import parse
from pipelines.yaml_files import read_yaml

StageName = Literal[
    "simulate",
    "ingest",
    "stats",
    "outflow",
    "train",
    "observe",
    "learn",
    "assimilate",
    "cycle",
    "rollout",
    "train_downscaling",
    "downscale",
    "verify",
    "report",
]
PATTERN = r"(?:\d+-)?\d+(?::\d\d){0,2}"  # minutes, minutes:seconds, hours:minutes:seconds, each with days before it


def _limit(value: object) -> object:
    """YAML 1.1 reads 24:00:00 as a number in base 60; Slurm would read that number as minutes."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError('Expected a time limit in quotes, as "24:00:00"')
    if isinstance(value, str) and not re.fullmatch(PATTERN, value):
        raise ValueError('Expected a time limit as "minutes", "hours:minutes:seconds" or "days-hours:minutes:seconds"')
    return value


Limit = Annotated[str, pydantic.BeforeValidator(_limit)]
Word = Annotated[str, Field(pattern=r"^\S+$")]


class Resources(Model):
    """What one job asks for. Several tasks train one network together; other stages run as one task."""

    nodes: Count = 1
    tasks_per_node: Count = 1
    cpus_per_task: Count = 1
    gpus_per_node: int = Field(0, ge=0)
    memory: Word | None = Field(None, description="of a node, as Slurm writes it: 64G")
    time: Limit = "01:00:00"
    partition: Word | None = None
    array: Count = Field(1, description="jobs that share the work; of stages that can be split")
    options: list[str] = Field(default_factory=list, description="more options of sbatch, as --constraint=a100")


class SiteConfig(Model):
    """One cluster: how jobs are asked for, and what has to happen in them before the program can run."""

    account: Word | None = None
    partition: Word | None = None
    qos: Word | None = None
    options: list[str] = Field(default_factory=list, description="options of sbatch for every job")
    setup: list[str] = Field(default_factory=list, description="shell lines before the program: modules, environments")
    environment: dict[str, str] = Field(default_factory=dict, description="variables to export")
    command: str = Field("emulator", description="the program; a container's call may stand before it")
    srun: str = Field("srun --kill-on-bad-exit=1", description="starts the tasks of a job")
    requeue: bool = Field(True, description="a stopped job may put itself back into the queue under its own number")
    continuations: int = Field(0, ge=0, description="further jobs of a training, queued at once where requeue is false")
    warning_seconds: Count = Field(120, description="how long before its time limit a job is told to save and stop")
    most_restarts: Count = Field(200, description="a job that was put back so often fails instead")
    default: Resources = Resources()
    stages: dict[StageName, Resources] = Field(default_factory=dict)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _stages_start_from_the_default(cls, values):
        if (
            isinstance(values, dict)
            and isinstance(values.get("default"), dict)
            and isinstance(values.get("stages"), dict)
        ):
            common = values["default"]
            stages = {
                name: {**common, **own} if isinstance(own, dict) else own for name, own in values["stages"].items()
            }
            return values | {"stages": stages}
        return values

    def resources(self, stage: str) -> Resources:
        return self.stages.get(stage, self.default)


def load_site(path: Path) -> SiteConfig:
    """The site in a YAML file. Raises `ConfigError` with one sentence."""
    return parse(SiteConfig, read_yaml(path), str(path))
