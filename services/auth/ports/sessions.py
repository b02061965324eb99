"""Where sessions and revocations are kept."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from services.auth.domain.firebase import FirebaseTokenKind, FirebaseUser
from services.auth.domain.sessions import Session, TokenUse
from services.contracts.auth.tokens import Revocation


class Revocations(Protocol):
    """Tokens that no longer count."""

    async def revoke(self, claim: str, value: str, *, connection: Any = None) -> None:
        """End every token with this claim (`sid`, `key_id`, `sub`), and its sessions; repeatable.

        In the transaction of `connection` if given.
        """
        ...

    async def all(self) -> list[Revocation]:
        """Those that still matter."""
        ...


class Sessions(Protocol):
    """Sign-ins. What begins or ends one is in the audit log by the same transaction."""

    async def begin(self, session: Session) -> None:
        """Keep a new session."""
        ...

    async def get(self, sid: str) -> Session | None:
        """A session."""
        ...

    async def refresh(
        self, sid: str, decide: Callable[[Session], tuple[TokenUse, Session]]
    ) -> TokenUse | None:
        """Change a session as `decide` says, one change at a time; None where there is no such session.

        REUSED ends it and revokes its tokens.
        """
        ...

    async def end(self, sid: str) -> None:
        """End a session and revoke its tokens; an unknown one is no error."""
        ...

    async def purge(self) -> None:
        """Forget sessions and revocations that are over."""
        ...


class SignIn(Protocol):
    """Somebody else who knows our users."""

    async def sign_in(self, kind: FirebaseTokenKind, token: str) -> FirebaseUser:
        """Who a token speaks for; UNAUTHENTICATED where that person may not come in."""
        ...

    async def recheck(self, user_id: str, authenticated_at: datetime) -> None:
        """UNAUTHENTICATED where a person who came in then may no longer stay."""
        ...
