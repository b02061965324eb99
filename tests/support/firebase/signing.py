"""Signing keys with certificates; valid and forged tokens."""

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID


def _key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True)
class Signer:
    """An RSA key as Google's: `kid` is the fingerprint of its self-signed certificate."""

    private: RSAPrivateKey = field(default_factory=_key, repr=False)

    def __post_init__(self) -> None:
        kid, certificate = self_signed(self.private)
        object.__setattr__(self, "kid", kid)
        object.__setattr__(self, "certificate", certificate)

    kid: str = field(init=False)
    certificate: str = field(init=False)

    def sign(self, claims: Any, **header: Any) -> str:
        """A token signed with RS256; `header` overrides header fields."""
        head = {"alg": "RS256", "kid": self.kid, "typ": "JWT", **header}
        text = signing_input({k: v for k, v in head.items() if v is not None}, claims)
        return f"{text}.{b64(self.private.sign(text.encode(), PKCS1v15(), SHA256()))}"

    def public_pem(self) -> bytes:
        return self.private.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )

    def private_pem(self) -> str:
        """The private key as in a service account file."""
        return self.private.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ).decode()

    def jwk(self) -> dict[str, str]:
        numbers = self.private.public_key().public_numbers()
        return {
            "kty": "RSA",
            "kid": self.kid,
            "n": b64(numbers.n.to_bytes(256)),
            "e": b64(numbers.e.to_bytes(3)),
        }


def self_signed(key: RSAPrivateKey | EllipticCurvePrivateKey) -> tuple[str, str]:
    """Fingerprint and PEM of a self-signed certificate."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "securetoken.system")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=16))
        .sign(key, SHA256())
    )
    return certificate.fingerprint(SHA1()).hex(), certificate.public_bytes(Encoding.PEM).decode()


def signing_input(header: Any, claims: Any) -> str:
    """The signing input of a JWS: header and claims."""
    return f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"


def forged(claims: Any, alg: str, kid: str, secret: bytes = b"") -> str:
    """A token without a signature, or with an HMAC of `secret`."""
    text = signing_input({"alg": alg, "kid": kid, "typ": "JWT"}, claims)
    mac = hmac.digest(secret, text.encode(), hashlib.sha256) if secret else b""
    return f"{text}.{b64(mac)}"


def b64(data: bytes) -> str:
    """Unpadded base64url."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
