"""Time, passed in so that rules stay pure."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The time, to the microsecond that the wire shows."""
    return datetime.now(UTC)
