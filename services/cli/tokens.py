"""Bearer tokens of local users, issued by the app `auth` through its sidecar."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from services.cli.edge import CallError, Running, post
from services.cli.stack.errors import StackError
from services.cli.stack.state import StateFolder

_METHOD: Final = "/v1.0/invoke/auth/method/yocaso.auth.v1.TokenService/IssueLocalToken"


def issue_token(
    state_dir: Path,
    user: str,
    email: str,
    scopes: Sequence[str] = (),
    ttl_seconds: int = 86_400,
    running: Running | None = None,
) -> str:
    """A new token.

    Raises:
        CallError: the app refused, or is not there.
        StackError: nothing was started on this folder.
    """
    running = running or Running.load(state_dir)
    secret = StateFolder(state_dir).load_secrets().get(running.api_token_name, "")
    body: dict[str, Any] = {
        "userId": user,
        "email": email,
        "scopes": list(scopes),
        "ttlSeconds": ttl_seconds,
    }
    # A sidecar names the caller to other apps only; with its token this command speaks as its app.
    headers = {"dapr-api-token": secret, "dapr-caller-app-id": "auth"}
    answer = post(running.auth_sidecar_url + _METHOD, body, headers)
    return str(answer["accessToken"])


def print_token(
    state_dir: Path, user: str, email: str, scopes: Sequence[str], ttl_seconds: int
) -> int:
    """Print a token and nothing else, so that it can be captured."""
    try:
        sys.stdout.write(issue_token(state_dir, user, email, scopes, ttl_seconds) + "\n")
    except (CallError, StackError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
