"""The authority of the secure profile: made once, renewed in time, and readable by nobody else."""

import json
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from joserfc import jwt
from joserfc.jwk import KeySet

from services.cli.stack import trust
from services.cli.stack.ports import PortPlan
from services.cli.stack.state import StateFolder
from services.cli.stack.trust import Trust
from tests.requirements import requirement


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "state")
    folder.create()
    return folder


def prepared(state: StateFolder) -> Trust:
    return Trust.prepare(state, PortPlan(), ["llm", "edge"])


@requirement("access:proven-callers")
def test_the_authority_stays_and_the_tokens_are_new(state: StateFolder) -> None:
    first = prepared(state)
    authority = (first.folder / "ca.crt").read_text()
    token = (first.tokens / "llm").read_text()
    second = prepared(state)
    assert (second.folder / "ca.crt").read_text() == authority
    assert (second.tokens / "llm").read_text() != token


@requirement("access:proven-callers")
def test_an_authority_that_ends_soon_is_made_anew(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = (prepared(state).folder / "ca.crt").read_text()
    monkeypatch.setattr(trust, "RENEWED_BEFORE", trust.LIFETIME + timedelta(days=1))
    assert (prepared(state).folder / "ca.crt").read_text() != authority


@requirement("access:proven-callers")
def test_a_token_names_one_process_and_is_for_sentry_only(state: StateFolder) -> None:
    made = prepared(state)
    keys = KeySet.import_key_set(json.loads((made.folder / "jwks.json").read_text()))
    claims = jwt.decode((made.tokens / "llm").read_text(), keys, algorithms=["ES256"]).claims
    assert claims["sub"] == "spiffe://public/ns/default/llm"
    assert claims["aud"] == "spiffe://yocaso.local/ns/default/dapr-sentry"
    issuer = x509.load_pem_x509_certificate((made.folder / "issuer.crt").read_bytes())
    root = x509.load_pem_x509_certificate((made.folder / "ca.crt").read_bytes())
    issuer.verify_directly_issued_by(root)


def test_nobody_else_reads_them(state: StateFolder) -> None:
    made = prepared(state)
    for file in (*made.folder.iterdir(), *made.tokens.iterdir()):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
