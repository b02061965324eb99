"""Sessions: one sign-in, its refresh tokens one after the other, and what ends it."""

import hmac
import re
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Self

from pydantic import BaseModel, Field

from services.auth.domain.keys import BASE62, Digest, Draw
from services.auth.domain.signing import LONGEST_TOKEN
from services.kit.errors import RpcError

SESSION_LIFE: Final = timedelta(days=30)
GRACE: Final = timedelta(seconds=10)
"""How long the token before works once more, for a client that lost the reply with the next."""
LONGEST_ACCESS_TOKEN: Final = timedelta(hours=1)
SID_LENGTH: Final = 22
SECRET_LENGTH: Final = 28
MARK_LENGTH: Final = 22

_TOKEN: Final = re.compile(rf"yr_([0-9A-Za-z]{{{SID_LENGTH}}})[0-9A-Za-z]{{{SECRET_LENGTH}}}")


class Subject(BaseModel):
    """For whom a token is, and what it may do: of a session (`sid`), of an API key (`key_id`), or of neither."""

    user_id: str
    email: str
    scopes: list[str]
    sid: str | None = None
    key_id: str | None = None

    def narrowed(self, scope: str | None) -> Self:
        """The same subject with only the scopes that are asked for.

        Raises:
            RpcError: INVALID_ARGUMENT for more than it has.
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
    """What it means that a refresh token is shown."""

    GOOD = "GOOD"
    REUSED = "REUSED"
    OVER = "OVER"


class Session(BaseModel):
    """A sign-in. `digest` is of the refresh token that is good; `previous_digest` of the one before."""

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
        """Judge a token of this session."""
        if self.ended_at is not None or self.expires_at <= at:
            return TokenUse.OVER
        if hmac.compare_digest(digest, self.digest) or self._is_in_grace(digest, at):
            return TokenUse.GOOD
        return TokenUse.REUSED

    def refreshed(self, shown: bytes, fresh: bytes, at: datetime) -> Self:
        """The session after a good token was traded for the next.

        The token before works once: a third use, or that of a reply that nobody was to see, is reuse.
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
        """For whom its tokens are."""
        return Subject(user_id=self.user_id, email=self.email, scopes=self.scopes, sid=self.sid)

    def _is_in_grace(self, digest: bytes, at: datetime) -> bool:
        if self.rotated_at is None or at >= self.rotated_at + GRACE:
            return False
        return hmac.compare_digest(digest, self.previous_digest or b"")


def new_refresh_token(sid: str, draw: Draw, digest: Digest) -> str:
    """A refresh token. It names its session, and bears a mark that only we can make."""
    body = f"yr_{sid}{draw(SECRET_LENGTH)}"
    return body + mark_of(body, digest)


def mark_of(body: str, digest: Digest) -> str:
    """The mark of a token's body: 128 bits of its keyed hash."""
    value = int.from_bytes(digest(f"mark {body}")[:16])
    characters = ""
    for _ in range(MARK_LENGTH):
        value, digit = divmod(value, len(BASE62))
        characters = BASE62[digit] + characters
    return characters


def session_of(token: str, digest: Digest) -> str | None:
    """The session of a refresh token that we made, whether or not it still works."""
    body, mark = token[:-MARK_LENGTH], token[-MARK_LENGTH:]
    match = _TOKEN.fullmatch(body)
    if match is None or not hmac.compare_digest(mark.encode(), mark_of(body, digest).encode()):
        return None
    return match[1]


def life_of(claim: str) -> timedelta:
    """How long after its revocation the last token with this claim may live."""
    return LONGEST_TOKEN if claim == "sub" else LONGEST_ACCESS_TOKEN
