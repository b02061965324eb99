"""Which key signs, and which keys verify, over time."""

from datetime import UTC, datetime, timedelta

from services.auth.domain.signing import (
    LONGEST_TOKEN,
    PUBLISHED_AHEAD,
    SigningKey,
    needs_successor,
    signing_key,
    successor_begins,
    verifying_keys,
)
from tests.requirements import requirement

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
QUARTER = timedelta(days=90)


def a_key(kid: str, signs_from: datetime) -> SigningKey:
    return SigningKey(kid=kid, public={"kid": kid}, sealed=b"", signs_from=signs_from)


def kids(keys: list[SigningKey]) -> list[str]:
    return [key.kid for key in keys]


def test_without_keys_nothing_signs_and_a_first_key_begins_at_once() -> None:
    assert signing_key([], NOON) is None
    assert verifying_keys([], NOON) == []
    assert needs_successor([], NOON, QUARTER)
    assert successor_begins([], NOON) == NOON


@requirement("auth:rotation")
def test_a_new_key_is_published_before_it_signs() -> None:
    old = a_key("old", NOON - QUARTER)
    begins = successor_begins([old], NOON)
    assert begins is not None
    assert begins == NOON + PUBLISHED_AHEAD
    new = a_key("new", begins)
    assert signing_key([old, new], NOON) == old
    assert kids(verifying_keys([old, new], NOON)) == ["new", "old"]
    assert signing_key([old, new], begins) == new


@requirement("auth:rotation")
def test_an_old_key_verifies_until_its_last_token_has_ended() -> None:
    old, new = a_key("old", NOON - QUARTER), a_key("new", NOON)
    last_moment = NOON + LONGEST_TOKEN
    assert kids(verifying_keys([old, new], last_moment - timedelta(seconds=1))) == ["new", "old"]
    assert kids(verifying_keys([old, new], last_moment)) == ["new"]


def test_a_second_rotation_waits_for_the_first() -> None:
    old, coming = a_key("old", NOON - QUARTER), a_key("coming", NOON + PUBLISHED_AHEAD)
    assert successor_begins([old, coming], NOON) is None


def test_a_key_is_replaced_at_its_age() -> None:
    key = a_key("key", NOON)
    assert not needs_successor([key], NOON + QUARTER - timedelta(seconds=1), QUARTER)
    assert needs_successor([key], NOON + QUARTER, QUARTER)
