"""The probe of the whole platform: one turn through the edge, as a separate user."""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.cli.edge import CallError, post
from services.cli.stack.errors import StackError
from services.contracts.llm.conversations import (
    CREATE_CONVERSATION,
    DELETE_CONVERSATION,
    SEND_MESSAGE,
)
from services.contracts.llm.errors import LlmErrorCode
from services.kit.errors import ErrorCode

USER: Final = "yocaso-probe"
EMAIL: Final = "probe@yocaso.invalid"
PLATFORM_SECONDS: Final = 90.0
"""Limit for the first conversation, which needs no model."""
_PAUSE_SECONDS: Final = 0.25
_LATER_SECONDS: Final = 10.0
"""Pause between two probes after the start."""
_LATER_LIMIT: Final = 120.0
_OF_MODEL: Final = {
    LlmErrorCode.MODEL_INVALID.value,
    LlmErrorCode.CONTENT_FILTERED.value,
    ErrorCode.BUDGET_EXCEEDED.value,
    ErrorCode.FAILED_PRECONDITION.value,
    ErrorCode.INVALID_ARGUMENT.value,
}
"""Failures of the model that another try does not cure."""


@dataclass
class ModelProbe:
    """Sends turns until the model answers one."""

    edge_url: str
    token: Callable[[], str]
    failure: str = ""
    """Why the last turn was not answered."""
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def await_platform(self, seconds: float = PLATFORM_SECONDS) -> None:
        """Create and delete conversations until that works.

        Raises:
            StackError: timeout; names the last failure.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                with self._conversation(max(5.0, deadline - time.monotonic())):
                    return
            except CallError as error:
                if time.monotonic() > deadline:
                    raise StackError(
                        f"no conversation could be created within {seconds:.0f} s; last failure: {error}"
                    ) from None
            time.sleep(_PAUSE_SECONDS)

    def await_model(self, seconds: float) -> bool:
        """Whether the model answers a turn in time; if not, `failure` says why."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                self._turn(left)
                return True
            except CallError as error:
                if error.status:
                    self.failure = str(error)
                if error.code in _OF_MODEL:
                    return False
            self._over.wait(_PAUSE_SECONDS)
        self.failure = self.failure or f"no answer within {seconds:.0f} s"
        return False

    def follow(self, answered: Callable[[float], None]) -> None:
        """Repeat turns in the background; `answered` gets the seconds until one was answered."""
        began = time.monotonic()

        def run() -> None:
            while not self._over.wait(_LATER_SECONDS):
                with contextlib.suppress(CallError, StackError, KeyError, ValueError):
                    self._turn(_LATER_LIMIT)
                    answered(time.monotonic() - began)
                    return

        self._thread = threading.Thread(target=run, name="probe", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send no more turns; one in flight ends with the process."""
        self._over.set()

    def _turn(self, seconds: float) -> None:
        with self._conversation(seconds) as named:
            request = {**named, "text": "Say yes.", "maxOutputTokens": 4}
            keyed = {**self._headers(), "idempotency-key": secrets.token_hex(16)}
            post(self.edge_url + SEND_MESSAGE.edge_path, request, keyed, seconds)

    @contextlib.contextmanager
    def _conversation(self, seconds: float) -> Iterator[dict[str, str]]:
        headers = self._headers()
        url = self.edge_url + CREATE_CONVERSATION.edge_path
        created = post(url, {"title": "probe"}, headers, seconds)
        named = {"conversationId": created["conversationId"]}
        try:
            yield named
        finally:
            with contextlib.suppress(CallError):
                post(self.edge_url + DELETE_CONVERSATION.edge_path, named, headers, 10)

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token()}"}


def advice(environ: Mapping[str, str], model_log: Path) -> str:
    """What to do when the model does not answer, by how the platform reaches it."""
    if base_url := environ.get("LLM_BASE_URL"):
        return f"Check that a model server answers at {base_url} (LLM_BASE_URL), and LLM_DEFAULT_MODEL."
    if environ.get("OPENROUTER_API_KEY"):
        return (
            "Check OPENROUTER_API_KEY, the account's credit, the network to openrouter.ai, and LLM_DEFAULT_MODEL; "
            "without the key a small local model answers."
        )
    return (
        f"The local model may be slow on this machine: see {model_log}, or set OPENROUTER_API_KEY."
    )
