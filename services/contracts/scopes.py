"""What a token may be used for. A method of the contract names the one scope that it needs."""

from typing import Annotated, Final

from pydantic import StringConstraints

CONVERSATIONS_READ: Final = "conversations:read"
CONVERSATIONS_WRITE: Final = "conversations:write"
SHARING_READ: Final = "sharing:read"
SHARING_WRITE: Final = "sharing:write"
KEYS_READ: Final = "keys:read"
KEYS_WRITE: Final = "keys:write"
AUDIT_READ: Final = "audit:read"
ACCOUNT_WRITE: Final = "account:write"

USER_SCOPES: Final = (
    CONVERSATIONS_READ,
    CONVERSATIONS_WRITE,
    SHARING_READ,
    SHARING_WRITE,
    KEYS_READ,
    KEYS_WRITE,
    AUDIT_READ,
    ACCOUNT_WRITE,
)
"""What a person who signs in may do."""
KEY_SCOPES: Final = tuple(
    scope for scope in USER_SCOPES if scope not in (KEYS_WRITE, ACCOUNT_WRITE)
)
"""What an API key may be given: it never makes keys and never ends an account."""

Scope = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.:-]{0,63}$")]
