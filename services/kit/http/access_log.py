"""Access log of calls that bypass the edge: those of apps that act for a user."""

import hashlib
import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.kit.access.identity import acting_caller

log = structlog.get_logger()


class AccessLog:
    """Writes an entry for each call of a trusted back end or another app in a user's name; the edge logs its own.

    It holds no header, query or body: they may carry secrets.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request; log it when its response ends."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 500, time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            if (caller := acting_caller(scope)) is not None:
                write = log.warning if status >= 500 else log.info
                write(
                    "request",
                    caller=caller.app,
                    method=scope["method"],
                    route=scope["path"],
                    status=status,
                    durationMs=round((time.perf_counter() - began) * 1000, 3),
                    user=hash_user(caller.user_id),
                    **({"keyId": caller.key_id} if caller.key_id else {}),
                )


def hash_user(user_id: str) -> str:
    """A user id's pseudonym in logs, the same as the edge's."""
    return hashlib.sha256(user_id.encode()).hexdigest()[:12]
