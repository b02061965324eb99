"""Retry limits and delays of a turn."""

from datetime import timedelta
from typing import Final

MAX_MODEL_ATTEMPTS: Final = 4
"""Attempts by the workflow at a model that fails retryably; the host's first attempt is not counted."""
MAX_HOST_FAILURES: Final = 40
"""Failures of the activity (its host died, a store is down) before the turn fails."""


def model_retry_delay(attempts: int, retry_after_seconds: float) -> timedelta:
    """0.5 s doubling to 8 s, but at least what the provider asked for."""
    return timedelta(seconds=max(retry_after_seconds, min(0.5 * 2 ** (attempts - 1), 8.0)))


def host_retry_delay(failures: int) -> timedelta:
    """0.5 s growing to 10 s."""
    return timedelta(seconds=min(0.5 * 1.5 ** (failures - 1), 10.0))
