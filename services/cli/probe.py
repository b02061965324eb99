"""Readiness probe of the whole platform: one turn through the edge, as a separate user."""

import contextlib
import secrets
import time
from collections.abc import Callable
from typing import Final

from services.cli.edge import CallError, post
from services.cli.stack.errors import StackError
from services.contracts.llm.conversations import (
    CREATE_CONVERSATION,
    DELETE_CONVERSATION,
    SEND_MESSAGE,
)

USER: Final = "yocaso-probe"
EMAIL: Final = "probe@yocaso.invalid"
_PAUSE_SECONDS: Final = 0.25


def probe_turn(edge_url: str, token: Callable[[], str], seconds: float) -> None:
    """Repeat a turn until it is answered.

    Raises:
        StackError: timeout; names the last failure.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            _send_message(edge_url, token(), max(5.0, deadline - time.monotonic()))
            return
        except CallError as error:
            if time.monotonic() > deadline:
                raise StackError(
                    f"no turn was answered within {seconds:.0f} s; last failure: {error}"
                ) from None
        time.sleep(_PAUSE_SECONDS)


def _send_message(edge_url: str, token: str, timeout: float) -> None:
    headers = {"authorization": f"Bearer {token}"}
    created = post(edge_url + CREATE_CONVERSATION.edge_path, {"title": "probe"}, headers, timeout)
    named = {"conversationId": created["conversationId"]}
    try:
        request = {**named, "text": "Say yes.", "maxOutputTokens": 4}
        keyed = {**headers, "idempotency-key": secrets.token_hex(16)}
        post(edge_url + SEND_MESSAGE.edge_path, request, keyed, timeout)
    finally:
        with contextlib.suppress(CallError):
            post(edge_url + DELETE_CONVERSATION.edge_path, named, headers, 10)
