"""API keys: how secrets are written, what a key may do at a moment, and how it changes."""

import secrets
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.domain.keys import (
    BASE62,
    Key,
    Slot,
    audit_log_of,
    check_scopes,
    checksum,
    is_reserved,
    new_secret,
    period_start,
    service_user_of,
    start_of,
)
from services.contracts.apps import USER_SCOPES
from services.contracts.auth.keys import (
    BudgetPeriod,
    CreateApiKeyRequest,
    KeyBudget,
    KeyMode,
    KeyStatus,
    UpdateApiKeyRequest,
    VerifyCode,
)
from services.kit.errors import ErrorCode, RpcError
from tests.requirements import requirement

NOON = datetime(2026, 3, 15, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
READ, WRITE = "conversations:read", "conversations:write"


def draw(length: int) -> str:
    return "".join(secrets.choice(BASE62) for _ in range(length))


def a_key(**fields: object) -> Key:
    request = CreateApiKeyRequest(name="ci", scopes=[READ, WRITE])
    key = Key.create(
        request,
        key_id="key_1",
        user_id="ada",
        email="ada@example.com",
        scopes=USER_SCOPES,
        slot=Slot(start="one", digest=b"1"),
        at=NOON,
    )
    return key.model_copy(update=fields)


def update(key: Key, **fields: Any) -> Key:
    return key.update(UpdateApiKeyRequest(key_id=f"key_{'0' * 26}", **fields), USER_SCOPES, NOON)


@requirement("access:keys:secret")
def test_a_secret_says_its_mode_and_has_160_random_bits_beside_its_start() -> None:
    for mode, prefix in ((KeyMode.LIVE, "yk_live_"), (KeyMode.TEST, "yk_test_")):
        secret = new_secret(mode, draw)
        start = start_of(secret)
        assert secret.startswith(prefix)
        assert start is not None
        assert start == secret[:18]
        unknown = len(secret) - len(start) - 6
        assert 62**unknown >= 2**160
    assert len({new_secret(KeyMode.LIVE, draw) for _ in range(1000)}) == 1000


@requirement("access:keys:secret")
@given(place=st.integers(8, 51), character=st.sampled_from(BASE62))
def test_a_typo_is_known_by_the_checksum(place: int, character: str) -> None:
    secret = new_secret(KeyMode.LIVE, draw)
    typo = secret[:place] + character + secret[place + 1 :]
    assert (start_of(typo) is None) is (typo != secret)


def test_what_is_no_key_has_no_start() -> None:
    secret = new_secret(KeyMode.LIVE, draw)
    other_mode = secret.replace("live", "test")
    for text in ("", "yk_live_", secret[:-1], secret + "0", secret.upper(), other_mode, "é" * 52):
        assert start_of(text) is None
    assert len(checksum("")) == 6


def test_service_users_are_of_organizations_and_of_nobody_else() -> None:
    assert service_user_of("acme") == "organization.acme"
    assert is_reserved("organization.acme")
    assert not is_reserved("organizer")
    assert (audit_log_of("ada"), audit_log_of("organization.acme")) == (
        "user:ada",
        "organization:acme",
    )


def test_periods_begin_with_utc_days_and_months() -> None:
    late = datetime(2026, 3, 31, 23, 30, tzinfo=UTC).astimezone(tz=None)
    assert period_start(BudgetPeriod.DAY, late) == date(2026, 3, 31)
    assert period_start(BudgetPeriod.MONTH, late) == date(2026, 3, 1)
    assert period_start(BudgetPeriod.TOTAL, late) == date.min


@requirement("access:keys:scopes")
def test_a_key_gets_no_scope_that_keys_may_not_have_or_that_its_maker_lacks() -> None:
    assert check_scopes([WRITE, READ, WRITE], USER_SCOPES) == [WRITE, READ]
    for wanted, own in (
        (["keys:write"], USER_SCOPES),
        (["account:write"], USER_SCOPES),
        (["surprise"], ["surprise"]),
        ([READ, WRITE], [READ]),
    ):
        with pytest.raises(RpcError) as refused:
            check_scopes(wanted, own)
        assert refused.value.code is ErrorCode.INVALID_ARGUMENT


def test_an_organizations_key_acts_as_its_service_user_and_carries_no_address() -> None:
    request = CreateApiKeyRequest(name="ci", scopes=[READ], organization_id="acme")
    key = Key.create(
        request,
        key_id="key_1",
        user_id="ada",
        email="ada@example.com",
        scopes=USER_SCOPES,
        slot=Slot(start="one", digest=b"1"),
        at=NOON,
    )
    assert (key.user_id, key.organization_id, key.email) == ("organization.acme", "acme", "")
    assert (a_key().user_id, a_key().email) == ("ada", "ada@example.com")


def test_an_expiry_lies_in_the_future() -> None:
    for at in (NOON, NOON - HOUR):
        with pytest.raises(RpcError) as refused:
            update(a_key(), expires_at=at)
        assert refused.value.violations[0].field == "expiresAt"


def test_a_key_works_until_its_expiry_or_its_revocation() -> None:
    key = a_key(expires_at=NOON + HOUR)
    assert key.status(NOON) is KeyStatus.ACTIVE
    assert key.status(NOON + HOUR) is KeyStatus.EXPIRED
    assert key.revoke(NOON).status(NOON + HOUR) is KeyStatus.REVOKED
    assert key.revoke(NOON).revoke(NOON + HOUR).revoked_at == NOON


def test_a_verdict_names_the_first_reason_against() -> None:
    key = a_key(budget=KeyBudget(amount=1.0))
    assert key.verdict(NOON, 0.99, READ) is VerifyCode.VALID
    assert key.verdict(NOON, 0.99, None) is VerifyCode.VALID
    assert key.verdict(NOON, 1.0, None) is VerifyCode.BUDGET_EXCEEDED
    assert key.verdict(NOON, 1.0, "audit:read") is VerifyCode.INSUFFICIENT_SCOPE
    assert key.revoke(NOON).verdict(NOON, 1.0, "audit:read") is VerifyCode.REVOKED
    over = key.model_copy(update={"expires_at": NOON})
    assert over.verdict(NOON, 0.0, None) is VerifyCode.EXPIRED
    assert a_key().verdict(NOON, 1e6, None) is VerifyCode.VALID


@requirement("access:keys:rotate")
def test_the_secret_before_works_until_the_grace_is_over_and_an_older_one_no_more() -> None:
    second = a_key().rotate(Slot(start="two", digest=b"2"), HOUR, NOON)
    moment = timedelta(microseconds=1)
    assert second.slot("two", NOON) == Slot(start="two", digest=b"2")
    assert second.slot("one", NOON + HOUR - moment) == Slot(
        start="one", digest=b"1", expires_at=NOON + HOUR
    )
    assert second.slot("one", NOON + HOUR) is None
    assert second.slot("none", NOON) is None
    third = second.rotate(Slot(start="three", digest=b"3"), HOUR, NOON)
    assert third.slot("one", NOON) is None
    assert third.slot("two", NOON) is not None


def test_a_grace_does_not_outlive_the_key_and_may_be_none() -> None:
    short = a_key(expires_at=NOON + HOUR / 2).rotate(Slot(start="two", digest=b"2"), HOUR, NOON)
    slot = short.slot("one", NOON)
    assert slot is not None
    assert slot.expires_at == NOON + HOUR / 2
    at_once = a_key().rotate(Slot(start="two", digest=b"2"), timedelta(0), NOON)
    assert at_once.slot("one", NOON) is None


def test_a_key_that_does_not_work_is_not_rotated() -> None:
    for key in (a_key(expires_at=NOON), a_key().revoke(NOON)):
        with pytest.raises(RpcError) as refused:
            key.rotate(Slot(start="two", digest=b"2"), HOUR, NOON)
        assert refused.value.code is ErrorCode.FAILED_PRECONDITION


def test_a_revocation_ends_the_secret_before_too() -> None:
    rotated = a_key().rotate(Slot(start="two", digest=b"2"), HOUR, NOON)
    assert rotated.revoke(NOON).slot("one", NOON) is None


def test_an_update_changes_what_it_names_and_null_lifts_a_limit() -> None:
    key = a_key(expires_at=NOON + HOUR, budget=KeyBudget(amount=1.0))
    renamed = update(key, name="new")
    assert (renamed.name, renamed.budget, renamed.expires_at) == ("new", key.budget, NOON + HOUR)
    lifted = update(key, budget=None, expires_at=None)
    assert (lifted.name, lifted.budget, lifted.expires_at) == ("ci", None, None)
    assert update(key, scopes=[READ]).scopes == [READ]
    for field in ("name", "scopes"):
        with pytest.raises(RpcError) as refused:
            update(key, **{field: None})
        assert refused.value.violations[0].field == field


def test_only_a_change_that_takes_something_away_ends_tokens() -> None:
    key = a_key(expires_at=NOON + HOUR)
    assert update(key, scopes=[READ]).narrowed_from(key)
    assert update(key, expires_at=NOON + HOUR / 2).narrowed_from(key)
    assert update(a_key(), expires_at=NOON + HOUR).narrowed_from(a_key())
    assert not update(key, expires_at=NOON + 2 * HOUR).narrowed_from(key)
    assert not update(key, expires_at=None, name="new").narrowed_from(key)
    assert not update(key, scopes=[READ, WRITE, "audit:read"]).narrowed_from(key)


def test_a_use_is_worth_noting_every_30_seconds() -> None:
    assert a_key().is_use_due(NOON)
    used = a_key(last_used_at=NOON)
    assert not used.is_use_due(NOON + timedelta(seconds=29))
    assert used.is_use_due(NOON + timedelta(seconds=30))


def test_neither_what_is_shown_nor_a_representation_holds_a_hash() -> None:
    key = a_key(digest=b"a-hash", previous_digest=b"a-hash")
    assert "a-hash" not in repr(key)
    shown = key.view(0.5, NOON).to_json()
    assert b"digest" not in shown
    assert b'"spent":0.5' in shown
