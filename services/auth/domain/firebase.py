"""Who may come in from Firebase: what a token has to say, and what is known of its user."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

from services.auth.domain.firebase_users import (
    AdmitFirebaseUserCommand,
    FirebaseAccount,
    FirebaseLink,
    FirebaseVerdict,
)
from services.kit.errors import ErrorCode, RpcError

FRESH_SIGN_IN: Final = timedelta(minutes=5)
"""How long after a sign-in a session cookie is made: a token that leaked later buys no fortnight."""
LAST_SECOND: Final = 253_402_300_799
"""The end of the year 9999: later instants have no date."""

Seconds = Annotated[StrictInt, Field(ge=0, le=LAST_SECOND)]


class FirebaseTokenKind(StrEnum):
    """What Firebase signs, by its name among people."""

    ID_TOKEN = "ID token"  # noqa: S105 - a name
    SESSION_COOKIE = "session cookie"


ISSUERS: Final = {
    FirebaseTokenKind.ID_TOKEN: "https://securetoken.google.com/",
    FirebaseTokenKind.SESSION_COOKIE: "https://session.firebase.google.com/",
}


class _Provider(BaseModel):
    """The claim `firebase`; users of a tenant are not users of the project."""

    tenant: Any = None


class _Claims(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    iss: StrictStr
    aud: StrictStr
    sub: Annotated[StrictStr, Field(min_length=1, max_length=128)]
    iat: Seconds
    exp: Seconds
    auth_time: Seconds
    nbf: Seconds = 0
    email: Annotated[StrictStr, Field(max_length=320)] | None = None
    email_verified: StrictBool = False
    firebase: _Provider = _Provider()


@dataclass(frozen=True, slots=True)
class FirebaseUser:
    """Who a verified token speaks for; `email` only where Firebase has verified it."""

    user_id: str
    uid: str
    email: str | None
    authenticated_at: datetime


@dataclass(frozen=True, slots=True)
class FirebaseProject:
    """The project whose users may come in, and how far its clock and ours may differ."""

    project_id: str
    skew: timedelta

    def user_of(
        self, kind: FirebaseTokenKind, claims: Mapping[str, Any], at: datetime
    ) -> FirebaseUser:
        """The user that a rightly signed token speaks for.

        Raises:
            RpcError: UNAUTHENTICATED.
        """
        try:
            said = _Claims.model_validate(claims)
        except ValidationError as error:
            raise refused(kind, "is malformed") from error
        if said.aud != self.project_id or said.iss != ISSUERS[kind] + self.project_id:
            raise refused(kind, "is not of this project")
        if said.firebase.tenant is not None:
            raise refused(kind, "is of a tenant, and tenants are not served")
        self._check_times(kind, said, at)
        return FirebaseUser(
            user_id=user_id_of(self.project_id, said.sub),
            uid=said.sub,
            email=said.email if said.email_verified else None,
            authenticated_at=datetime.fromtimestamp(said.auth_time, UTC),
        )

    def _check_times(self, kind: FirebaseTokenKind, said: _Claims, at: datetime) -> None:
        now, skew = at.timestamp(), self.skew.total_seconds()
        if said.exp + skew <= now:
            raise refused(kind, "has expired")
        if max(said.iat, said.nbf, said.auth_time) > now + skew:
            raise refused(kind, "is not valid yet")


def refused(kind: FirebaseTokenKind, why: str) -> RpcError:
    """UNAUTHENTICATED, with a reason for people."""
    return RpcError(ErrorCode.UNAUTHENTICATED, f"The Firebase {kind} {why}.")


def user_id_of(project_id: str, uid: str) -> str:
    """Our id of a Firebase user: always the same, and never that of anybody else."""
    digest = hashlib.sha256(f"firebase|{project_id}|{uid}".encode()).hexdigest()
    return f"user_{digest[:32]}"


def is_fresh(user: FirebaseUser, at: datetime) -> bool:
    """Whether the sign-in is recent enough for a session cookie."""
    return at - user.authenticated_at <= FRESH_SIGN_IN


class FirebaseIdentity(BaseModel):
    """What the bridge keeps of a user: the link, and what Firebase last said."""

    link: FirebaseLink | None = None
    account: FirebaseAccount | None = None

    def verdict(
        self, authenticated_at: datetime, at: datetime, believed: timedelta | None
    ) -> FirebaseVerdict:
        """Whether a sign-in counts now; `believed` is how long Firebase's word is, None where it cannot be asked."""
        if believed is None:
            return FirebaseVerdict.VALID
        account = self.account
        if account is None or abs(at - account.looked_up_at) > believed:
            return FirebaseVerdict.UNKNOWN
        if not account.existing:
            return FirebaseVerdict.DELETED
        if account.disabled:
            return FirebaseVerdict.DISABLED
        if account.tokens_valid_after and authenticated_at < account.tokens_valid_after:
            return FirebaseVerdict.REVOKED
        return FirebaseVerdict.VALID

    def linked(self, command: AdmitFirebaseUserCommand) -> "FirebaseIdentity":
        """The identity after a sign-in that counts; the same where it is known already."""
        known = self.link
        link = FirebaseLink(
            project_id=command.project_id,
            uid=command.uid,
            email=command.email,
            first_sign_in=known.first_sign_in if known else command.authenticated_at,
            last_sign_in=max(known.last_sign_in, command.authenticated_at)
            if known
            else command.authenticated_at,
        )
        return self.model_copy(update={"link": link})

    def told(self, account: FirebaseAccount) -> "FirebaseIdentity":
        """The identity after Firebase's word; the same where a later word is known."""
        known = self.account
        if known is not None and known.looked_up_at >= account.looked_up_at:
            return self
        return self.model_copy(update={"account": account})
