"""What becomes of a failed delivery: one rule for events, jobs and input bindings."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from services.kit.dapr.state_rows import StateStoreError
from services.kit.errors import ErrorCode, RpcError, internal_error, unavailable

HANDLER_SECONDS: Final = 5.0
"""Time limit of the handler of an event or a binding; longer work is begun by it and done elsewhere."""
MAX_ATTEMPTS: Final = 5
"""How often a handler may fail by a bug or its time limit before the delivery is given up."""
MAX_WAIT: Final = timedelta(hours=24)
"""How long a delivery is retried while its handler reports errors that may pass."""


async def attempts_if_given_up(
    error: Exception, *, age: timedelta, count_failure: Callable[[], Awaitable[int]]
) -> int | None:
    """The attempts of a delivery that this error ends, or None if it has to be retried.

    An error that may pass is retried for MAX_WAIT, a bug or a timeout MAX_ATTEMPTS times, any other RpcError never.
    """
    if isinstance(error, StateStoreError) or (isinstance(error, RpcError) and error.retryable):
        return 1 if age > MAX_WAIT else None
    if isinstance(error, RpcError):
        return 1
    attempts = await count_failure()
    return attempts if attempts >= MAX_ATTEMPTS else None


def error_of(error: Exception) -> RpcError:
    """What callers and dead letters are shown of a handler's error."""
    if isinstance(error, RpcError):
        return error
    if isinstance(error, StateStoreError):
        return unavailable()
    if isinstance(error, TimeoutError):
        return RpcError(ErrorCode.DEADLINE_EXCEEDED, "The handler exceeded its time limit.")
    return internal_error()
