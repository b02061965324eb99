"""A clock that stands still until the test moves it."""


class ManualClock:
    """Seconds, as `time.monotonic` gives them."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """The time as it was set."""
        return self.now
