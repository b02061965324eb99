"""The proof that the platform works: one whole turn through the edge, by a user of its own."""

import contextlib
import secrets
import time
from collections.abc import Callable
from typing import Final

from services.cli.edge import CONVERSATION, CallError, post
from services.cli.stack.errors import StackError

USER: Final = "yocaso-probe"
EMAIL: Final = "probe@yocaso.invalid"
_PAUSE_SECONDS: Final = 0.25


def probe_turn(edge_url: str, token: Callable[[], str], seconds: float) -> None:
    """Return once a turn has been answered, trying again until then.

    Raises:
        StackError: none was in time, with the last reason.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            _ask_once(edge_url, token(), max(5.0, deadline - time.monotonic()))
            return
        except CallError as error:
            if time.monotonic() > deadline:
                raise StackError(
                    f"no turn was answered in {seconds:.0f} s; the last reason: {error}"
                ) from None
        time.sleep(_PAUSE_SECONDS)


def _ask_once(edge_url: str, token: str, timeout: float) -> None:
    headers = {"authorization": f"Bearer {token}"}
    created = post(
        f"{edge_url}{CONVERSATION}/create-conversation", {"title": "probe"}, headers, timeout
    )
    named = {"conversationId": created["conversationId"]}
    try:
        request = {**named, "text": "Say yes.", "maxOutputTokens": 4}
        keyed = {**headers, "idempotency-key": secrets.token_hex(16)}
        post(f"{edge_url}{CONVERSATION}/send-message", request, keyed, timeout)
    finally:
        with contextlib.suppress(CallError):
            post(f"{edge_url}{CONVERSATION}/delete-conversation", named, headers, 10)
