"""mTLS for `yocaso up --secure`: sentry's CA, and one identity token per sidecar and control-plane service.

Sentry's `jwks` validator requires a token for an app-id before it signs a certificate for it. Without that, any local
process could obtain the certificate of any app.
"""

import fcntl
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from joserfc import jwt
from joserfc.jwk import ECKey

from services.cli.stack.ports import LOOPBACK, PortPlan
from services.cli.stack.process import ProcessSpec, Readiness, Stage
from services.cli.stack.state import StateFolder, write_private
from services.kit.dapr.access_policy import NAMESPACE, TRUST_DOMAIN

CONTROL_PLANE_DOMAIN: Final = "yocaso.local"
"""Trust domain of sentry, placement and scheduler."""
LIFETIME: Final = timedelta(days=365)
RENEW_BEFORE: Final = timedelta(days=30)
_AUTHORITY_FILES: Final = ("ca.crt", "issuer.crt", "issuer.key")


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """The files of sentry's CA and the identity tokens of one stack."""

    folder: Path
    tokens: Path
    address: str

    @classmethod
    def prepare(cls, state: StateFolder, ports: PortPlan, app_ids: Sequence[str]) -> Self:
        """Load the CA, or create it if it is absent or expires soon; issue new tokens."""
        folder, tokens = state.data / "sentry", state.run / "identities"
        for each in (folder, tokens):
            each.mkdir(mode=0o700, exist_ok=True)
        authority = cls(folder, tokens, f"{LOOPBACK}:{ports.of('sentry')}")
        if not authority._is_valid():
            authority._create()
        enrolled = [token.name for token in tokens.iterdir()]
        subjects = {app: _app_subject(app) for app in (*enrolled, *app_ids)}
        for name in ("placement", "scheduler"):
            subjects[name] = f"spiffe://{CONTROL_PLANE_DOMAIN}/ns/{NAMESPACE}/dapr-{name}"
        authority._issue_tokens(subjects)
        return authority

    def sentry(self, state: StateFolder, ports: PortPlan, binary: Path) -> ProcessSpec:
        used = ports.of_server("sentry")
        config = state.run / "sentry.yaml"
        validator = {"name": "jwks", "options": {"source": str(self.folder / "jwks.json")}}
        content = {
            "apiVersion": "dapr.io/v1alpha1",
            "kind": "Configuration",
            "metadata": {"name": "sentry"},
            "spec": {"mtls": {"enabled": True, "tokenValidators": [validator]}},
        }
        config.write_text(yaml.safe_dump(content))
        arguments = {
            "config": str(config),
            "issuer-credentials": str(self.folder),
            "trust-domain": CONTROL_PLANE_DOMAIN,
            "listen-address": LOOPBACK,
            "port": str(used["sentry"]),
            "healthz-listen-address": LOOPBACK,
            "healthz-port": str(used["sentry health"]),
            "metrics-listen-address": LOOPBACK,
            "metrics-port": str(used["sentry metrics"]),
        }
        return ProcessSpec(
            name="sentry",
            stage=Stage.INFRA,
            argv=(str(binary), *(word for k, v in arguments.items() for word in (f"--{k}", v))),
            ready=Readiness(used["sentry health"], "/healthz"),
            ports=used,
            cwd=state.data,
            env={"NAMESPACE": NAMESPACE},
        )

    def control_plane_arguments(self) -> tuple[str, ...]:
        """The mTLS arguments of placement and scheduler."""
        return (
            "--tls-enabled",
            *("--trust-domain", CONTROL_PLANE_DOMAIN),
            *("--trust-anchors-file", str(self.folder / "ca.crt")),
            *("--sentry-address", self.address),
        )

    def sidecar_arguments(self) -> tuple[str, ...]:
        return (
            "--enable-mtls",
            *("--sentry-address", self.address),
            *("--control-plane-trust-domain", CONTROL_PLANE_DOMAIN),
        )

    def environment(self, name: str) -> dict[str, str]:
        """The mTLS environment of a process, named by app-id, `placement` or `scheduler`."""
        return {
            "NAMESPACE": NAMESPACE,
            "DAPR_TRUST_ANCHORS": (self.folder / "ca.crt").read_text(),
            "DAPR_SENTRY_TOKEN_FILE": str(self.tokens / name),
        }

    def _is_valid(self) -> bool:
        if not all((self.folder / name).exists() for name in _AUTHORITY_FILES):
            return False
        issuer = x509.load_pem_x509_certificate((self.folder / "issuer.crt").read_bytes())
        return issuer.not_valid_after_utc - RENEW_BEFORE > datetime.now(UTC)

    def _create(self) -> None:
        root_key, issuer_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        root = _certificate(CONTROL_PLANE_DOMAIN, root_key, None, root_key)
        issuer = _certificate(f"{CONTROL_PLANE_DOMAIN} issuer", issuer_key, root, root_key)
        write_private(self.folder / "ca.crt", _pem(root))
        write_private(self.folder / "issuer.crt", _pem(issuer))
        private = issuer_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_private(self.folder / "issuer.key", private.decode())

    def _issue_tokens(self, subjects: dict[str, str]) -> None:
        """The signing key is not stored, so it can issue no token later."""
        key = _new_key("identities")
        write_private(self.folder / "jwks.json", json.dumps({"keys": [_public(key)]}))
        for name, subject in subjects.items():
            write_private(self.tokens / name, _token(key, subject))


def enrol(state: StateFolder, app_id: str) -> None:
    """Issue an identity token for an app beside the platform, while sentry runs.

    A key of its own signs it, which is not stored; sentry reads the public half when the file changes.
    """
    keys, key = state.data / "sentry" / "jwks.json", _new_key(f"identity-{app_id}")
    with (state.run / "identities.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other apps may enrol at the same time
        others = [each for each in json.loads(keys.read_text())["keys"] if each["kid"] != key.kid]
        write_private(keys, json.dumps({"keys": [*others, _public(key)]}))
    write_private(state.run / "identities" / app_id, _token(key, _app_subject(app_id)))


def _app_subject(app_id: str) -> str:
    return f"spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/{app_id}"


def _new_key(kid: str) -> ECKey:
    return ECKey.generate_key("P-256", {"kid": kid, "alg": "ES256", "use": "sig"})


def _public(key: ECKey) -> Any:
    return key.as_dict(private=False)


def _token(key: ECKey, subject: str) -> str:
    now = datetime.now(UTC)
    claims = {
        "sub": subject,
        "aud": f"spiffe://{CONTROL_PLANE_DOMAIN}/ns/{NAMESPACE}/dapr-sentry",
        "iat": int(now.timestamp()),
        "exp": int((now + LIFETIME).timestamp()),
    }
    return jwt.encode({"alg": "ES256", "kid": key.kid}, claims, key)


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    signer: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)])
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=15))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA256())
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
