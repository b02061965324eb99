"""Time and ids, passed in so that rules stay pure."""

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The time, to the microsecond that the wire shows."""
    return datetime.now(UTC)


def new_id(kind: str) -> str:
    """`<kind>_` and 32 hexadecimal digits that sort by time: 48 bits of milliseconds, 80 random bits."""
    return f"{kind}_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
