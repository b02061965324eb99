"""Unary JSON calls over HTTP, and the endpoints of a running stack."""

import http.client
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from services.cli.stack.environment import api_token_name
from services.cli.stack.errors import StackError
from services.cli.stack.state import StateFolder, write_private
from services.kit.contract import AnyMethod


@dataclass(frozen=True, slots=True)
class StackEndpoints:
    """Endpoints of a stack, saved by `up` and `infra` for the other commands.

    `sidecar_urls` is by app-id. `token_owner` has the API token of all sidecars; without one, each app has its own.
    """

    edge_url: str
    sidecar_urls: dict[str, str]
    token_owner: str | None = None

    def save(self, state: StateFolder) -> None:
        """Write the endpoints to the state folder."""
        write_private(state.run / "stack.json", json.dumps(asdict(self)))

    def call_own(self, state_dir: Path, method: AnyMethod, body: dict[str, Any]) -> dict[str, Any]:
        """Call a method of an app through its own sidecar, as the app's operator; raises as `post`."""
        app_id = method.service.app_id
        secrets = StateFolder(state_dir).load_secrets()
        token = secrets.get(api_token_name(self.token_owner or app_id), "")
        # A sidecar adds no caller id to a call to its own app.
        headers = {"dapr-api-token": token, "dapr-caller-app-id": app_id}
        url = f"{self.sidecar_urls[app_id]}/v1.0/invoke/{app_id}/method{method.path}"
        return post(url, body, headers)

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
    """A call failed; `status` is 0 if there was no response, `code` is the error's, if it has one."""

    def __init__(self, status: int, body: str) -> None:
        self.status = status
        self.code, line = _error(status, body)
        super().__init__(line)


def _error(status: int, body: str) -> tuple[str, str]:
    """The code of an error in the platform's form, else "", and a line for people."""
    try:
        error = json.loads(body)["error"]
        return error["code"], f"{error['code']}: {error['message']}"
    except (ValueError, KeyError, TypeError):
        return "", f"HTTP {status}: {body[:500]}" if status else body


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
