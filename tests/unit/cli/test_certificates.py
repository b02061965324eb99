"""The CA of `yocaso up --secure`: created once, renewed before it expires, readable only by its owner."""

import json
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from joserfc import jwt
from joserfc.jwk import KeySet

from services.cli.stack import certificates
from services.cli.stack.certificates import CertificateAuthority
from services.cli.stack.ports import PortPlan
from services.cli.stack.state import StateFolder
from tests.requirements import requirement


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "state")
    folder.create()
    return folder


def prepared(state: StateFolder) -> CertificateAuthority:
    return CertificateAuthority.prepare(state, PortPlan(), ["llm", "edge"])


@requirement("access:proven-callers")
def test_a_second_start_keeps_the_ca_and_issues_new_tokens(state: StateFolder) -> None:
    first = prepared(state)
    authority = (first.folder / "ca.crt").read_text()
    token = (first.tokens / "llm").read_text()
    second = prepared(state)
    assert (second.folder / "ca.crt").read_text() == authority
    assert (second.tokens / "llm").read_text() != token


@requirement("access:proven-callers")
def test_a_ca_that_expires_soon_is_replaced(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = (prepared(state).folder / "ca.crt").read_text()
    monkeypatch.setattr(certificates, "RENEW_BEFORE", certificates.LIFETIME + timedelta(days=1))
    assert (prepared(state).folder / "ca.crt").read_text() != authority


@requirement("access:proven-callers")
def test_a_token_has_one_process_as_subject_and_sentry_as_audience(state: StateFolder) -> None:
    made = prepared(state)
    keys = KeySet.import_key_set(json.loads((made.folder / "jwks.json").read_text()))
    claims = jwt.decode((made.tokens / "llm").read_text(), keys, algorithms=["ES256"]).claims
    assert claims["sub"] == "spiffe://public/ns/default/llm"
    assert claims["aud"] == "spiffe://yocaso.local/ns/default/dapr-sentry"
    issuer = x509.load_pem_x509_certificate((made.folder / "issuer.crt").read_bytes())
    root = x509.load_pem_x509_certificate((made.folder / "ca.crt").read_bytes())
    issuer.verify_directly_issued_by(root)


def test_its_files_are_readable_only_by_their_owner(state: StateFolder) -> None:
    made = prepared(state)
    for file in (*made.folder.iterdir(), *made.tokens.iterdir()):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
