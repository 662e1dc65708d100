"""What all configurations share: strict and frozen models, named kinds of number, periods, and where Dask works."""

import calendar
import importlib
import re
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one sentence for a person."""


NEW = {"new": True}  # `Field(default, json_schema_extra=NEW)`: a key that older versions did not have


class Model(pydantic.BaseModel):
    """Strict and frozen. Dumps leave a key marked `NEW` out at its default, so that fingerprints of older runs stay."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @pydantic.model_serializer(mode="wrap")
    def _as_older_versions(self, serialise):
        new = {name: f for name, f in type(self).model_fields.items() if f.json_schema_extra == NEW}
        unused = {name for name, f in new.items() if getattr(self, name) == f.get_default(call_default_factory=True)}
        return {name: value for name, value in serialise(self).items() if name not in unused}


Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Precision = Literal["float32", "bfloat16"]


def _moment(value: Any) -> date | datetime | str | None:
    """A date stays one, whose end is that whole day, and a year the whole year; a day of other calendars stays text.

    Raises `ValueError` for what is none, numbers of other lengths included, which would count as seconds since 1970.
    """
    if isinstance(value, date | None):
        return value
    whole_number = isinstance(value, int | float) and not isinstance(value, bool) and value == round(value)
    text = f"{round(value):04d}" if whole_number else str(value)
    if re.fullmatch(r"\d{4}(-(0[1-9]|1[0-2]))?", text) and int(text[:4]):
        return text
    if found := re.fullmatch(r"(\d{4})-?(\d\d)-?(\d\d)(?:[T ](\d\d)(?::?(\d\d))?.*)?", text):
        year, month, day, hour, minute = found.groups()
        if month == "02" and day in ("29", "30") and not (day == "29" and calendar.isleap(int(year))):
            return f"{year}-{month}-{day}" + (f"T{hour}:{minute or '00'}" if hour else "")
        try:
            whole = date.fromisoformat(f"{year}-{month}-{day}")
            return whole if hour is None else datetime.fromisoformat(text)
        except ValueError as error:
            raise ValueError(f"Expected a date that some calendar has ({error})") from None
    raise ValueError("Expected a date such as 2001, 2001-12, 2001-12-31 or 2001-12-31T06:00")


Moment = Annotated[datetime | date | str, pydantic.PlainValidator(_moment)]


def _url_or_path(value: Any) -> Any:
    """A URL stays text: as a path it would lose one of its slashes."""
    return value if isinstance(value, str) and "://" in value else Path(value) if isinstance(value, str) else value


Location = Annotated[Path | str, pydantic.BeforeValidator(_url_or_path)]


def registered(registry: str, *others: str) -> pydantic.AfterValidator:
    """Text that is one of `others`, or a name in a registry of the library, `package:OBJECT`.

    The library is loaded only for a name that is none of `others`.
    """

    def names() -> list[str]:
        package, _, name = registry.partition(":")
        return [*others, *(n for n in getattr(importlib.import_module(package), name).names() if n not in others)]

    def check(value: str) -> str:
        if value not in others and value not in (known := names()):
            raise ValueError(f"Expected one of {', '.join(known)}")
        return value

    check.names = names  # for completion on Tab
    return pydantic.AfterValidator(check)


class Period(Model):
    """Times from `start` to `end`, both included; None is open."""

    start: Moment | None = None
    end: Moment | None = None


class DaskSlurmConfig(Model):
    """Dask's workers as Slurm jobs, one each; needs the extra `slurm` (dask-jobqueue)."""

    partition: str | None = None
    account: str | None = None
    walltime: str = Field("01:00:00", description="of a worker; unfinished regions go to others")
    options: list[str] = Field(default_factory=list, description="more of sbatch's options, such as --qos=low")
    setup: list[str] = Field(default_factory=list, description="shell lines before a worker starts")


class DaskConfig(Model):
    """Where Dask works: a local cluster of `workers` processes, Slurm jobs, or the scheduler at `address`."""

    workers: int = Field(0, ge=0, description="0: threads of this process")
    threads: Count = 2
    memory: str | None = None
    address: str | None = None
    slurm: DaskSlurmConfig | None = None
