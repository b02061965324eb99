"""What sign-in by Firebase needs of the outside world."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Protocol

from services.auth.domain.firebase import FirebaseTokenKind
from services.auth.domain.firebase_users import FirebaseAccount


class SignatureCheck(Protocol):
    """Knows Firebase's signature."""

    async def claims(self, kind: FirebaseTokenKind, token: str) -> Mapping[str, Any]:
        """What a rightly signed token says.

        Raises:
            RpcError: UNAUTHENTICATED, or UNAVAILABLE where the keys cannot be had.
        """
        ...


class FirebaseDirectory(Protocol):
    """Firebase's users, by the rights of a service account. UNAVAILABLE where it does not answer in time."""

    async def look_up(self, uid: str) -> FirebaseAccount:
        """What Firebase says of a user."""
        ...

    async def custom_token(self, uid: str) -> str:
        """A custom token of at most an hour."""
        ...

    async def session_cookie(self, id_token: str, ttl: timedelta) -> str:
        """A session cookie; UNAUTHENTICATED where Firebase refuses the ID token."""
        ...

    async def delete(self, uid: str) -> None:
        """Delete a user; one that is not there is no error."""
        ...
