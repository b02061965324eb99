"""A clock that a test sets."""


class ManualClock:
    """Callable like `time.monotonic`."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """The time that was set."""
        return self.now
