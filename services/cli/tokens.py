"""Issues bearer tokens of local users by an RPC to `auth` through its sidecar."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from services.cli.edge import CallError, StackEndpoints, post
from services.cli.stack.errors import StackError
from services.cli.stack.state import StateFolder
from services.contracts.auth.tokens import ISSUE_LOCAL_TOKEN

ISSUER: Final = ISSUE_LOCAL_TOKEN.service.app_id
"""App-id of the token issuer."""


def issue_token(
    state_dir: Path,
    user: str,
    email: str,
    scopes: Sequence[str] = (),
    ttl_seconds: int = 86_400,
    endpoints: StackEndpoints | None = None,
) -> str:
    """Issue a token.

    Raises:
        CallError: `auth` refuses or does not answer.
        StackError: no stack was started in this folder.
    """
    endpoints = endpoints or StackEndpoints.load(state_dir)
    secret = StateFolder(state_dir).load_secrets().get(endpoints.api_token_name, "")
    body: dict[str, Any] = {
        "userId": user,
        "email": email,
        "scopes": list(scopes),
        "ttlSeconds": ttl_seconds,
    }
    # A sidecar adds no caller id to a call to its own app.
    headers = {"dapr-api-token": secret, "dapr-caller-app-id": ISSUER}
    url = f"{endpoints.auth_sidecar_url}/v1.0/invoke/{ISSUER}/method{ISSUE_LOCAL_TOKEN.path}"
    return str(post(url, body, headers)["accessToken"])


def print_token(
    state_dir: Path, user: str, email: str, scopes: Sequence[str], ttl_seconds: int
) -> int:
    """Print a token and nothing else, for command substitution; the exit status."""
    try:
        sys.stdout.write(issue_token(state_dir, user, email, scopes, ttl_seconds) + "\n")
    except (CallError, StackError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
