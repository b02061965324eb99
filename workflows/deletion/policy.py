"""How long apart an erasure looks again, and tries again: it is never given up."""

from datetime import timedelta


def before_next_look(looks: int) -> timedelta:
    """Objects remove themselves in the background: soon at first, then every half minute."""
    return timedelta(seconds=min(1.0 * 1.5**looks, 30.0))


def after_failure(failures: int) -> timedelta:
    """An app that is away is asked again for as long as it takes, at least once an hour."""
    return timedelta(seconds=min(1.0 * 2 ** min(failures, 12), 3600.0))
