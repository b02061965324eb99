"""What is known of a Firebase user, and what follows for a sign-in."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from services.auth.domain.firebase import (
    AdmitFirebaseUserCommand,
    FirebaseAccount,
    FirebaseIdentity,
    FirebaseUser,
    FirebaseVerdict,
    is_fresh,
    user_id_of,
)
from services.auth.settings import FirebaseSettings
from services.contracts.auth.tokens import IssueLocalTokenRequest
from services.kit.settings import load_settings
from tests.requirements import requirement
from tests.support.firebase import Signer

NOON: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
BELIEVED: Final = timedelta(seconds=30)
SECOND: Final = timedelta(seconds=1)
SIGNED_IN: Final = NOON - timedelta(minutes=10)


def an_account(**fields: Any) -> FirebaseAccount:
    given: dict[str, Any] = {"looked_up_at": NOON, "existing": True, **fields}
    return FirebaseAccount(**given)


def a_sign_in(**fields: Any) -> AdmitFirebaseUserCommand:
    given: dict[str, Any] = {"project_id": "p", "uid": "u", "authenticated_at": SIGNED_IN, **fields}
    return AdmitFirebaseUserCommand(**given)


@requirement("access:firebase:standing")
@pytest.mark.parametrize(
    ("account", "verdict"),
    [
        (None, FirebaseVerdict.UNKNOWN),
        (an_account(), FirebaseVerdict.VALID),
        (an_account(disabled=True), FirebaseVerdict.DISABLED),
        (an_account(existing=False), FirebaseVerdict.DELETED),
        (an_account(existing=False, disabled=True), FirebaseVerdict.DELETED),
        (an_account(tokens_valid_after=SIGNED_IN), FirebaseVerdict.VALID),
        (an_account(tokens_valid_after=SIGNED_IN + SECOND), FirebaseVerdict.REVOKED),
    ],
)
def test_firebases_word_decides(account: FirebaseAccount | None, verdict: FirebaseVerdict) -> None:
    assert FirebaseIdentity(account=account).verdict(SIGNED_IN, NOON, BELIEVED) is verdict


@requirement("access:firebase:fail-closed")
@pytest.mark.parametrize("fields", [{}, {"disabled": True}, {"existing": False}])
def test_an_old_word_decides_nothing_and_neither_does_one_of_the_future(
    fields: dict[str, bool],
) -> None:
    identity = FirebaseIdentity(account=an_account(**fields))
    for off in (-BELIEVED, BELIEVED):
        assert identity.verdict(SIGNED_IN, NOON + off, BELIEVED) is not FirebaseVerdict.UNKNOWN
    for off in (-BELIEVED - SECOND, BELIEVED + SECOND):
        assert identity.verdict(SIGNED_IN, NOON + off, BELIEVED) is FirebaseVerdict.UNKNOWN


def test_where_firebase_cannot_be_asked_the_signature_is_enough() -> None:
    assert FirebaseIdentity().verdict(SIGNED_IN, NOON, None) is FirebaseVerdict.VALID


def test_an_older_word_that_comes_late_changes_nothing() -> None:
    disabled = FirebaseIdentity(account=an_account(disabled=True))
    late = an_account(looked_up_at=NOON - SECOND)
    assert disabled.updated(late) == disabled
    assert disabled.updated(an_account()) == disabled
    newer = an_account(looked_up_at=NOON + SECOND)
    assert disabled.updated(newer).account == newer
    assert FirebaseIdentity().updated(late).account == late


@requirement("access:firebase:link")
def test_a_link_remembers_the_first_and_the_last_sign_in() -> None:
    first = FirebaseIdentity().linked(a_sign_in(email="old@example.com"))
    assert first.linked(a_sign_in(email="old@example.com")) == first
    later = first.linked(a_sign_in(authenticated_at=NOON, email="new@example.com"))
    earlier = later.linked(a_sign_in(authenticated_at=SIGNED_IN - SECOND))
    assert later.link is not None
    assert earlier.link is not None
    assert (later.link.first_sign_in, later.link.last_sign_in) == (SIGNED_IN, NOON)
    assert later.link.email == "new@example.com"
    assert earlier.link.last_sign_in == NOON


@requirement("access:firebase:link")
def test_ids_are_users_ids_and_apart_by_project_and_user() -> None:
    ids = [user_id_of(*each) for each in (("p", "u"), ("p", "v"), ("q", "u"), ("p|u", "v"))]
    assert len(set(ids)) == len(ids)
    assert user_id_of("p", "u") == ids[0]
    for user_id in ids:
        IssueLocalTokenRequest(user_id=user_id, email="a@example.com")


def test_a_session_cookie_is_for_somebody_who_has_just_signed_in() -> None:
    user = FirebaseUser("user_1", "u", None, SIGNED_IN)
    assert is_fresh(user, SIGNED_IN + timedelta(minutes=5))
    assert not is_fresh(user, SIGNED_IN + timedelta(minutes=5, seconds=1))


ACCOUNT: Final = {
    "type": "service_account",
    "project_id": "yocaso-tests",
    "private_key": Signer().private_pem(),
    "client_email": "a@example.com",
    "token_uri": "http://127.0.0.1:1/token",
}


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **env: str) -> str:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        load_settings(FirebaseSettings)
    said = capsys.readouterr().err
    assert not any(part in said for part in ("secret", "PRIVATE KEY"))
    return said


def test_without_a_project_sign_in_by_firebase_is_off() -> None:
    settings = load_settings(FirebaseSettings)
    assert (settings.project_id, settings.service_account()) == ("", None)


@requirement("access:firebase:settings")
@pytest.mark.parametrize("allowed", ["true", "false"])
def test_production_refuses_the_emulator_whatever_else_is_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], allowed: str
) -> None:
    said = refusal(
        monkeypatch,
        capsys,
        YOCASO_ENV="production",
        FIREBASE_AUTH_EMULATOR_HOST="127.0.0.1:9099",
        AUTH_FIREBASE_ALLOW_EMULATOR=allowed,
    )
    assert said.startswith("FIREBASE_AUTH_EMULATOR_HOST")


@requirement("access:firebase:settings")
def test_the_emulator_has_to_be_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(monkeypatch, capsys, FIREBASE_AUTH_EMULATOR_HOST="127.0.0.1:9099")
    assert "AUTH_FIREBASE_ALLOW_EMULATOR" in said
    monkeypatch.setenv("AUTH_FIREBASE_ALLOW_EMULATOR", "true")
    assert load_settings(FirebaseSettings).emulator_host == "127.0.0.1:9099"


@requirement("access:firebase:settings")
@pytest.mark.parametrize(
    "credentials",
    [
        "{",
        __file__,
        "/nowhere/account.json",
        "{}",
        json.dumps({**ACCOUNT, "private_key": 1}),
        json.dumps({**ACCOUNT, "private_key": "a secret of Google"}),
        json.dumps({**ACCOUNT, "type": "authorized_user"}),
        json.dumps({**ACCOUNT, "project_id": "another-project"}),
    ],
)
def test_credentials_that_cannot_be_used_are_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], credentials: str
) -> None:
    env = {
        "AUTH_FIREBASE_PROJECT_ID": "yocaso-tests",
        "AUTH_FIREBASE_CREDENTIALS": credentials,
    }
    assert refusal(monkeypatch, capsys, **env).startswith("AUTH_FIREBASE_CREDENTIALS")


def test_credentials_are_text_or_a_file_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "account.json"
    path.write_text(json.dumps(ACCOUNT))
    monkeypatch.setenv("AUTH_FIREBASE_PROJECT_ID", "yocaso-tests")
    for given in (str(path), json.dumps(ACCOUNT)):
        monkeypatch.setenv("AUTH_FIREBASE_CREDENTIALS", given)
        settings = load_settings(FirebaseSettings)
        assert settings.service_account() == ACCOUNT
        assert "PRIVATE KEY" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AUTH_FIREBASE_PROJECT_ID", "Not A Project"),
        ("AUTH_FIREBASE_CLOCK_SKEW_SECONDS", "61"),
        ("AUTH_FIREBASE_CLOCK_SKEW_SECONDS", "-1"),
        ("AUTH_FIREBASE_REVOCATION_SECONDS", "4"),
        ("AUTH_FIREBASE_CERTS_URL", "ftp://example.com"),
        ("FIREBASE_AUTH_EMULATOR_HOST", "http://127.0.0.1:9099"),
    ],
)
def test_a_bad_value_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    assert refusal(monkeypatch, capsys, **{name: value}).startswith(name)
