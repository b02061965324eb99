"""Rules of sign-in by Firebase: valid tokens, and the state of their users."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

from services.kit.contract import Message, Timestamp
from services.kit.errors import ErrorCode, RpcError

FRESH_SIGN_IN: Final = timedelta(minutes=5)
"""Maximum age of the sign-in for a session cookie: a leaked older ID token buys no cookie of two weeks."""
LAST_SECOND: Final = 253_402_300_799
"""End of the year 9999, the last that `datetime` can hold."""

Seconds = Annotated[StrictInt, Field(ge=0, le=LAST_SECOND)]


class FirebaseTokenKind(StrEnum):
    """Kinds of Firebase token, as error messages name them."""

    ID_TOKEN = "ID token"  # noqa: S105 - a name
    SESSION_COOKIE = "session cookie"


ISSUERS: Final = {
    FirebaseTokenKind.ID_TOKEN: "https://securetoken.google.com/",
    FirebaseTokenKind.SESSION_COOKIE: "https://session.firebase.google.com/",
}


class _Provider(BaseModel):
    """The claim `firebase`. Users of tenants are refused."""

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


class FirebaseAccount(Message):
    """A Firebase user at the time of a look-up; `existing` is false after deletion."""

    looked_up_at: Timestamp
    existing: bool
    disabled: bool = False
    tokens_valid_after: Timestamp | None = None


class AdmitFirebaseUserCommand(Message):
    """A sign-in by a verified token; `authenticated_at` is its `auth_time`."""

    project_id: str
    uid: str
    email: str | None = None
    authenticated_at: Timestamp


class FirebaseVerdict(StrEnum):
    """Whether a sign-in is valid; UNKNOWN until Firebase is asked again."""

    VALID = "VALID"
    REVOKED = "REVOKED"
    DISABLED = "DISABLED"
    DELETED = "DELETED"
    UNKNOWN = "UNKNOWN"


class FirebaseAdmission(Message):
    """The verdict on a sign-in."""

    verdict: FirebaseVerdict


class FirebaseLink(Message):
    """The Firebase user of one of our users."""

    project_id: str
    uid: str
    email: str | None = None
    first_sign_in: Timestamp
    last_sign_in: Timestamp


class FirebaseLinkResponse(Message):
    """The link, if the user ever signed in by Firebase."""

    link: FirebaseLink | None = None


@dataclass(frozen=True, slots=True)
class FirebaseUser:
    """The user of a verified token; `email` only if Firebase has verified it."""

    user_id: str
    uid: str
    email: str | None
    authenticated_at: datetime


@dataclass(frozen=True, slots=True)
class FirebaseProject:
    """The accepted project, and the tolerated clock skew."""

    project_id: str
    skew: timedelta

    def user_of(
        self, kind: FirebaseTokenKind, claims: Mapping[str, Any], at: datetime
    ) -> FirebaseUser:
        """The user of a token, from its verified claims.

        Raises:
            RpcError: UNAUTHENTICATED.
        """
        try:
            parsed = _Claims.model_validate(claims)
        except ValidationError as error:
            raise refused(kind, "is malformed") from error
        if parsed.aud != self.project_id or parsed.iss != ISSUERS[kind] + self.project_id:
            raise refused(kind, "is not of this project")
        if parsed.firebase.tenant is not None:
            raise refused(kind, "is of a tenant, and tenants are not served")
        self._check_times(kind, parsed, at)
        return FirebaseUser(
            user_id=user_id_of(self.project_id, parsed.sub),
            uid=parsed.sub,
            email=parsed.email if parsed.email_verified else None,
            authenticated_at=datetime.fromtimestamp(parsed.auth_time, UTC),
        )

    def _check_times(self, kind: FirebaseTokenKind, claims: _Claims, at: datetime) -> None:
        now, skew = at.timestamp(), self.skew.total_seconds()
        if claims.exp + skew <= now:
            raise refused(kind, "has expired")
        if max(claims.iat, claims.nbf, claims.auth_time) > now + skew:
            raise refused(kind, "is not valid yet")


def refused(kind: FirebaseTokenKind, why: str) -> RpcError:
    """UNAUTHENTICATED, with the reason."""
    return RpcError(ErrorCode.UNAUTHENTICATED, f"The Firebase {kind} {why}.")


def user_id_of(project_id: str, uid: str) -> str:
    digest = hashlib.sha256(f"firebase|{project_id}|{uid}".encode()).hexdigest()
    return f"user_{digest[:32]}"


def is_fresh(user: FirebaseUser, at: datetime) -> bool:
    """Whether the sign-in is recent enough for a session cookie."""
    return at - user.authenticated_at <= FRESH_SIGN_IN


class FirebaseIdentity(BaseModel):
    """State of `FirebaseBridgeActor`: the link, and the account as last looked up."""

    link: FirebaseLink | None = None
    account: FirebaseAccount | None = None

    def verdict(
        self, authenticated_at: datetime, at: datetime, max_age: timedelta | None
    ) -> FirebaseVerdict:
        """Whether a sign-in is valid; `max_age` bounds the age of the look-up, None without a directory."""
        if max_age is None:
            return FirebaseVerdict.VALID
        account = self.account
        if account is None or abs(at - account.looked_up_at) > max_age:
            return FirebaseVerdict.UNKNOWN
        if not account.existing:
            return FirebaseVerdict.DELETED
        if account.disabled:
            return FirebaseVerdict.DISABLED
        if account.tokens_valid_after and authenticated_at < account.tokens_valid_after:
            return FirebaseVerdict.REVOKED
        return FirebaseVerdict.VALID

    def linked(self, command: AdmitFirebaseUserCommand) -> "FirebaseIdentity":
        """The identity after a valid sign-in."""
        known, at = self.link, command.authenticated_at
        link = FirebaseLink(
            project_id=command.project_id,
            uid=command.uid,
            email=command.email,
            first_sign_in=known.first_sign_in if known else at,
            last_sign_in=max(known.last_sign_in, at) if known else at,
        )
        return self.model_copy(update={"link": link})

    def updated(self, account: FirebaseAccount) -> "FirebaseIdentity":
        """The identity after a look-up; unchanged if a later one is known."""
        known = self.account
        if known is not None and known.looked_up_at >= account.looked_up_at:
            return self
        return self.model_copy(update={"account": account})
