"""Sessions: how refresh tokens follow one another, and what their reuse does."""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.domain.keys import BASE62
from services.auth.domain.sessions import (
    GRACE,
    LONGEST_ACCESS_TOKEN,
    SESSION_LIFE,
    Session,
    Subject,
    TokenUse,
    longest_token_life,
    new_refresh_token,
    session_id_of,
)
from services.auth.domain.signing import LONGEST_TOKEN
from services.contracts.auth.tokens import RefreshTokenRequest
from services.kit.errors import ErrorCode, RpcError
from tests.requirements import requirement

NOON = datetime(2026, 3, 15, 12, tzinfo=UTC)
SID = "0123456789abcdefABCDEF"


def draw(length: int) -> str:
    return "".join(secrets.choice(BASE62) for _ in range(length))


def digest(text: str) -> bytes:
    return hashlib.sha256(b"pepper" + text.encode()).digest()


def a_session(**fields: object) -> Session:
    session = Session(
        sid=SID,
        user_id="ada",
        email="ada@example.com",
        scopes=["a", "b"],
        authenticated_at=NOON,
        created_at=NOON,
        expires_at=NOON + SESSION_LIFE,
        digest=b"1",
    )
    return session.model_copy(update=fields)


def test_a_refresh_token_names_its_session_and_is_one_by_the_contract() -> None:
    token = new_refresh_token(SID, draw, digest)
    assert RefreshTokenRequest(refresh_token=token).refresh_token == token
    assert session_id_of(token, digest) == SID
    assert 62**28 >= 2**160


@given(place=st.integers(0, 74), character=st.sampled_from(BASE62 + "_é"))
def test_nobody_else_makes_a_token_of_a_session(place: int, character: str) -> None:
    token = new_refresh_token(SID, draw, digest)
    forged = token[:place] + character + token[place + 1 :]
    assert (session_id_of(forged, digest) is None) is (forged != token)


def test_what_is_no_refresh_token_is_of_no_session() -> None:
    token = new_refresh_token(SID, draw, digest)
    for text in ("", "yr_", token[:-1], token + "0", "e30.e30.e30"):
        assert session_id_of(text, digest) is None
    assert session_id_of(token, lambda text: digest("another secret" + text)) is None


@requirement("access:tokens:refresh")
def test_a_token_is_good_until_it_was_used_and_the_session_until_it_ends() -> None:
    session = a_session()
    assert session.use(b"1", NOON) is TokenUse.VALID
    assert session.use(b"1", NOON + SESSION_LIFE) is TokenUse.ENDED
    assert a_session(ended_at=NOON).use(b"1", NOON) is TokenUse.ENDED
    after = session.refreshed(b"1", b"2", NOON)
    assert after.use(b"2", NOON) is TokenUse.VALID
    assert after.use(b"0", NOON) is TokenUse.REUSED


@requirement("access:tokens:reuse")
def test_the_token_before_works_once_more_for_a_moment() -> None:
    after = a_session().refreshed(b"1", b"2", NOON)
    assert after.use(b"1", NOON + GRACE) is TokenUse.REUSED
    within = NOON + GRACE - timedelta(seconds=1)
    assert after.use(b"1", within) is TokenUse.VALID
    again = after.refreshed(b"1", b"3", within)
    assert again.use(b"3", within) is TokenUse.VALID
    assert again.use(b"2", within) is TokenUse.REUSED
    assert again.use(b"1", within) is TokenUse.REUSED


def test_a_scope_narrows_and_never_widens() -> None:
    subject = a_session().subject()
    assert subject == Subject(user_id="ada", email="ada@example.com", scopes=["a", "b"], sid=SID)
    assert subject.narrowed(None) == subject
    assert subject.narrowed(" b  b ").scopes == ["b"]
    for scope in ("", "  ", "c", "a c"):
        with pytest.raises(RpcError) as refused:
            subject.narrowed(scope)
        assert refused.value.code is ErrorCode.INVALID_ARGUMENT
        assert refused.value.violations[0].field == "scope"


def test_a_revocation_is_kept_as_long_as_its_last_token_lives() -> None:
    assert longest_token_life("sub") == LONGEST_TOKEN
    assert longest_token_life("sid") == longest_token_life("key_id") == LONGEST_ACCESS_TOKEN


def test_a_representation_holds_no_hash() -> None:
    assert "a-hash" not in repr(a_session(digest=b"a-hash", previous_digest=b"a-hash"))
