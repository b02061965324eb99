"""Firebase: token signatures, users, and sign-in."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

from services.auth.domain.firebase import FirebaseAccount, FirebaseTokenKind, FirebaseUser


class SignatureCheck(Protocol):
    """Verifies the signatures of Firebase tokens."""

    async def claims(self, kind: FirebaseTokenKind, token: str) -> Mapping[str, Any]:
        """The claims of a token with a valid signature.

        Raises:
            RpcError: UNAUTHENTICATED, or UNAVAILABLE if the certificates cannot be fetched.
        """
        ...


class FirebaseDirectory(Protocol):
    """Firebase's users, by a service account. UNAVAILABLE if Firebase does not answer in time."""

    async def look_up(self, uid: str) -> FirebaseAccount:
        """The user as of now."""
        ...

    async def custom_token(self, uid: str) -> str:
        """A custom token, valid for an hour."""
        ...

    async def session_cookie(self, id_token: str, ttl: timedelta) -> str:
        """A session cookie; UNAUTHENTICATED if Firebase refuses the ID token."""
        ...

    async def delete(self, uid: str) -> None:
        """Delete the user; repeatable."""
        ...


class SignIn(Protocol):
    """An identity provider."""

    async def sign_in(self, kind: FirebaseTokenKind, token: str) -> FirebaseUser:
        """The user of a token; UNAUTHENTICATED if the token or its user is not valid."""
        ...

    async def recheck(self, user_id: str, authenticated_at: datetime) -> None:
        """UNAUTHENTICATED if the user's sign-in at that time has been revoked since."""
        ...
