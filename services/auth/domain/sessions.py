"""Rules of sessions: refresh tokens, their rotation and reuse."""

import hmac
import re
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Self

from pydantic import BaseModel, Field

from services.auth.domain.keys import BASE62, Digest, RandomText
from services.auth.domain.signing import LONGEST_TOKEN
from services.kit.errors import RpcError

SESSION_LIFE: Final = timedelta(days=30)
GRACE: Final = timedelta(seconds=10)
"""How long the previous token works once more, for a client that lost the reply with the next."""
LONGEST_ACCESS_TOKEN: Final = timedelta(hours=1)
SID_LENGTH: Final = 22
SECRET_LENGTH: Final = 28
MAC_LENGTH: Final = 22

_TOKEN: Final = re.compile(rf"yr_([0-9A-Za-z]{{{SID_LENGTH}}})[0-9A-Za-z]{{{SECRET_LENGTH}}}")


class Subject(BaseModel):
    """Subject of a token: of a session (`sid`), of an API key (`key_id`), or of neither."""

    user_id: str
    email: str
    scopes: list[str]
    sid: str | None = None
    key_id: str | None = None

    def narrowed(self, scope: str | None) -> Self:
        """The subject with only the requested scopes.

        Raises:
            RpcError: INVALID_ARGUMENT for a scope that it lacks.
        """
        if scope is None:
            return self
        wanted = list(dict.fromkeys(scope.split()))
        if not wanted:
            raise RpcError.invalid("scope", "names no scope")
        if missing := [name for name in wanted if name not in self.scopes]:
            raise RpcError.invalid("scope", f"the subject does not have {', '.join(missing)}")
        return self.model_copy(update={"scopes": wanted})


class TokenUse(StrEnum):
    """Outcome of presenting a refresh token."""

    VALID = "VALID"
    REUSED = "REUSED"
    ENDED = "ENDED"


class Session(BaseModel):
    """A sign-in. `digest` is of the current refresh token, `previous_digest` of the one before."""

    sid: str
    user_id: str
    email: str
    scopes: list[str]
    authenticated_at: datetime
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None
    digest: bytes = Field(repr=False)
    previous_digest: bytes | None = Field(default=None, repr=False)
    rotated_at: datetime | None = None

    def use(self, digest: bytes, at: datetime) -> TokenUse:
        if self.ended_at is not None or self.expires_at <= at:
            return TokenUse.ENDED
        if hmac.compare_digest(digest, self.digest) or self._is_in_grace(digest, at):
            return TokenUse.VALID
        return TokenUse.REUSED

    def refreshed(self, shown: bytes, fresh: bytes, at: datetime) -> Self:
        """The session after a valid refresh; `shown` is the digest presented, `fresh` that of the next token.

        The previous token is accepted once: after that it counts as reuse, as does the token of a lost reply.
        """
        first_use = shown == self.digest
        return self.model_copy(
            update={
                "digest": fresh,
                "previous_digest": shown if first_use else None,
                "rotated_at": at if first_use else None,
            }
        )

    def subject(self) -> Subject:
        return Subject(user_id=self.user_id, email=self.email, scopes=self.scopes, sid=self.sid)

    def _is_in_grace(self, digest: bytes, at: datetime) -> bool:
        if self.rotated_at is None or at >= self.rotated_at + GRACE:
            return False
        return hmac.compare_digest(digest, self.previous_digest or b"")


def new_refresh_token(sid: str, random_text: RandomText, digest: Digest) -> str:
    """A refresh token: session id, random text and MAC."""
    body = f"yr_{sid}{random_text(SECRET_LENGTH)}"
    return body + mac_of(body, digest)


def mac_of(body: str, digest: Digest) -> str:
    """The MAC of a token's body: 128 bits of its keyed hash."""
    value = int.from_bytes(digest(f"mark {body}")[:16])
    characters = ""
    for _ in range(MAC_LENGTH):
        value, digit = divmod(value, len(BASE62))
        characters = BASE62[digit] + characters
    return characters


def session_id_of(token: str, digest: Digest) -> str | None:
    """The session of a refresh token with a valid MAC; the token may have been used."""
    body, mac = token[:-MAC_LENGTH], token[-MAC_LENGTH:]
    match = _TOKEN.fullmatch(body)
    if match is None or not hmac.compare_digest(mac.encode(), mac_of(body, digest).encode()):
        return None
    return match[1]


def longest_token_life(claim: str) -> timedelta:
    """How long a token with this claim may outlive its revocation."""
    return LONGEST_TOKEN if claim == "sub" else LONGEST_ACCESS_TOKEN
