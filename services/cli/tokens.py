"""Issues bearer tokens of local users by an RPC to `auth` through its sidecar."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from services.cli.edge import CallError, StackEndpoints
from services.cli.stack.errors import StackError
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
    body: dict[str, Any] = {
        "userId": user,
        "email": email,
        "scopes": list(scopes),
        "ttlSeconds": ttl_seconds,
    }
    return str(endpoints.call_own(state_dir, ISSUE_LOCAL_TOKEN, body)["accessToken"])


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
