"""How often, and how long apart, a turn's segment is tried: the one place that retries."""

from datetime import timedelta
from typing import Final

MODEL_TRIES: Final = 4
"""Tries of the model by the workflow, when it fails in a way that may pass; the host's own first one comes before."""
HOST_TRIES: Final = 40
"""Tries of the segment itself, when its host dies or a store is away."""


def after_model_failure(tries: int, wanted_seconds: float) -> timedelta:
    """Exponential, and never earlier than the provider asked."""
    return timedelta(seconds=max(wanted_seconds, min(0.5 * 2 ** (tries - 1), 8.0)))


def after_host_failure(tries: int) -> timedelta:
    """Soon at first, since a dead host is replaced within seconds."""
    return timedelta(seconds=min(0.5 * 1.5 ** (tries - 1), 10.0))
