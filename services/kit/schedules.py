"""Schedules of cron jobs, as Dapr's scheduler reads them; times are UTC."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self

from cronsim import CronSim, CronSimError

NAMED: Final = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
MAX_SKEW: Final = timedelta(seconds=5)
"""How far the database's clock may be behind that of the scheduler, at most half the time between two runs."""

_EVERY: Final = re.compile(r"@every (?=\d)(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_FIELD: Final = re.compile(r"[0-9A-Za-z*,/-]+")
_UNLIKE_DAPR: Final = re.compile(r"[/7lL]")
"""In the day of the week: Dapr refuses these, or reads them in another way."""
_SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a cron job runs: `@every 1h30m`, `@hourly` … `@yearly`, or six fields that begin with the second.

    Of the day of the month and the day of the week one is `*`.
    """

    text: str
    _period: timedelta | None
    _fields: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a schedule.

        Raises:
            ValueError: it is none, never comes, or means something else to Dapr.
        """
        if text.startswith("@every "):
            return cls(text, _period(text), "")
        fields = NAMED.get(text, text)
        parts = fields.split(" ")
        if len(parts) != 6 or not all(map(_FIELD.fullmatch, parts)):
            raise ValueError(f"{text!r} is not `@every …`, a named schedule or six cron fields")
        if "*" not in (parts[3], parts[5]):
            raise ValueError(f"{text!r} restricts both the day of the month and of the week")
        if _UNLIKE_DAPR.search(parts[5]) or "L" in parts[3].upper():
            raise ValueError(f"{text!r} has a day that Dapr does not know")
        try:
            next(CronSim(fields, datetime(2024, 1, 1)))  # noqa: DTZ001 - only whether there is one
        except (CronSimError, StopIteration) as error:
            raise ValueError(f"{text!r} is no cron expression, or never comes") from error
        return cls(text, None, fields)

    def due(self, now: datetime, last: datetime | None) -> datetime | None:
        """The due time for which a delivery at `now` counts; None if its run, or a later one, was done at `last`.

        The newest one: what was missed meanwhile is one run. `@every` is due half a period after the last run.
        """
        if self._period is not None:
            return now if last is None or now - last >= self._period / 2 else None
        due = self._newest(now)
        return due if last is None or due > last else None

    def _newest(self, now: datetime) -> datetime:
        second = now.replace(microsecond=0)
        previous = next(CronSim(self._fields, second + _SECOND, reverse=True))
        following = next(CronSim(self._fields, second))
        is_early = following - now <= min(MAX_SKEW, (following - previous) / 2)
        return following if is_early else previous


def _period(text: str) -> timedelta:
    found = _EVERY.fullmatch(text)
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    period = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if period < _SECOND:
        raise ValueError(f"{text!r} is not `@every` a time such as 1h30m or 10s")
    return period
