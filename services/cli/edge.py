"""Unary calls over plain HTTP, and where a running stack is found."""

import http.client
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from services.cli.stack.errors import StackError
from services.cli.stack.state import StateFolder, write_private

CONVERSATION: Final = "/api/v1/llm/conversation"
"""Where the edge has `ConversationService`."""


@dataclass(frozen=True, slots=True)
class Running:
    """What a started stack leaves for the other commands."""

    edge_url: str
    auth_sidecar_url: str
    api_token_name: str

    def save(self, state: StateFolder) -> None:
        """Write it into the state folder."""
        write_private(state.run / "stack.json", json.dumps(asdict(self)))

    @classmethod
    def load(cls, state_dir: Path) -> "Running":
        """Read what the last start left.

        Raises:
            StackError: nothing was started on this folder.
        """
        file = StateFolder(state_dir).run / "stack.json"
        try:
            return cls(**json.loads(file.read_text()))
        except (OSError, ValueError, TypeError):
            raise StackError(
                f"nothing runs on {state_dir}: start it by `yocaso up`, or name its folder by --state"
            ) from None


class CallError(Exception):
    """A call that was answered by an error, or not at all (status 0)."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(explain(status, body))
        self.status = status


def explain(status: int, body: str) -> str:
    """An error body in one line."""
    try:
        error = json.loads(body)["error"]
        return f"{error['code']}: {error['message']}"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}: {body[:500]}" if status else body


def post(
    url: str, body: dict[str, Any], headers: dict[str, str] | None = None, timeout: float = 30
) -> dict[str, Any]:
    """POST JSON and return the JSON of the answer.

    Raises:
        CallError: any status but 2xx, or no answer.
    """
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    connector = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = connector(parts.hostname or "", parts.port, timeout=timeout)
    try:
        sent = {"content-type": "application/json", **(headers or {})}
        connection.request("POST", parts.path, json.dumps(body), sent)
        response = connection.getresponse()
        text = response.read().decode("utf-8", errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise CallError(0, f"{parts.netloc} does not answer ({error})") from None
    finally:
        connection.close()
    if not 200 <= response.status < 300:
        raise CallError(response.status, text)
    return json.loads(text or "{}")
