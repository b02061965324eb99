"""Jobs: work at a time, which contracts declare, and their app schedules and handles."""

import re
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from services.kit.contract import Message
from services.kit.schedules import Schedule

P = TypeVar("P", bound=Message)

RUN_SECONDS: Final = 300.0

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True, eq=False)
class CronJob:
    """A job that runs by a `Schedule`, in one replica at a time; `seconds` is the time limit of a run."""

    name: str
    schedule: str
    summary: str
    seconds: float = RUN_SECONDS
    due: Schedule = field(init=False)

    def __post_init__(self) -> None:
        _require_name(self.name)
        object.__setattr__(self, "due", Schedule.parse(self.schedule))


@dataclass(frozen=True, slots=True, eq=False)
class OneShotJob(Generic[P]):
    """A job that an app schedules for one time, under a key and with a payload: ids, not data."""

    name: str
    payload: type[P]
    summary: str
    seconds: float = RUN_SECONDS

    def __post_init__(self) -> None:
        _require_name(self.name)


def _require_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a job's name: small letters, digits and hyphens")


AnyJob = CronJob | OneShotJob[Any]
