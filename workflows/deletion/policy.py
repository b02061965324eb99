"""Delays of account deletion, which retries until it succeeds."""

from datetime import timedelta
from typing import Final

STEPS_PER_RUN: Final = 60
"""Activities of a run before it continues as new, which keeps a history under 500 events."""


def poll_delay(polls: int) -> timedelta:
    """Before asking an app again whether its background erasure is done: 1 s growing to 30 s."""
    return timedelta(seconds=min(1.5 ** min(polls, 12), 30.0))


def retry_delay(failures: int) -> timedelta:
    """Before retrying a failed activity: 1 s growing to an hour."""
    return timedelta(seconds=min(2.0 ** min(failures, 12), 3600.0))
