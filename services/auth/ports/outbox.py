"""Changes of facts that wait for delivery."""

from typing import Protocol


class Outbox(Protocol):
    """What was committed with an object is delivered to where facts are kept, in order."""

    async def relay(self) -> bool:
        """Deliver all that waits; False where that is not possible now: the next relay delivers it."""
        ...

    async def deliver(self) -> None:
        """Deliver all that waits, or raise UNAVAILABLE; it is delivered later."""
        ...
