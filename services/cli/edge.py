"""Unary JSON calls over HTTP, and the endpoints of a running stack."""

import http.client
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from services.cli.stack.errors import StackError
from services.cli.stack.state import StateFolder, write_private


@dataclass(frozen=True, slots=True)
class StackEndpoints:
    """Endpoints of a stack, saved by `up` and `infra` for the other commands."""

    edge_url: str
    auth_sidecar_url: str
    api_token_name: str

    def save(self, state: StateFolder) -> None:
        """Write the endpoints to the state folder."""
        write_private(state.run / "stack.json", json.dumps(asdict(self)))

    @classmethod
    def load(cls, state_dir: Path) -> Self:
        """Read the endpoints that the last start saved.

        Raises:
            StackError: no stack was started in this folder.
        """
        file = StateFolder(state_dir).run / "stack.json"
        try:
            return cls(**json.loads(file.read_text()))
        except (OSError, ValueError, TypeError):
            raise StackError(
                f"no stack was started in {state_dir}: run `yocaso up`, or set --state to its folder"
            ) from None


class CallError(Exception):
    """A call failed; `status` is 0 if there was no response."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(_error_line(status, body))
        self.status = status


def _error_line(status: int, body: str) -> str:
    try:
        error = json.loads(body)["error"]
        return f"{error['code']}: {error['message']}"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}: {body[:500]}" if status else body


def post(
    url: str, body: dict[str, Any], headers: dict[str, str] | None = None, timeout: float = 30
) -> dict[str, Any]:
    """POST JSON and return the JSON response.

    Raises:
        CallError: a status other than 2xx, or no response.
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
        raise CallError(
            0, f"{parts.netloc} does not answer ({error}): check that the stack runs"
        ) from None
    finally:
        connection.close()
    if not 200 <= response.status < 300:
        raise CallError(response.status, text)
    return json.loads(text or "{}")
