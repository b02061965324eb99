"""Webhook signatures by Standard Webhooks 1.0, symmetric (`v1`): https://www.standardwebhooks.com.

The package `standardwebhooks` reads secrets and computes the HMAC. Its own `verify` reads the system clock, takes text
in place of the bytes that were signed, and raises untyped errors on malformed headers.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from pydantic import SecretStr
from standardwebhooks import Webhook
from standardwebhooks.webhooks import hmac_data

from services.kit.clock import Clock, utc_now
from services.kit.errors import ErrorCode, RpcError

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"
TOLERANCE: Final = timedelta(minutes=5)
"""How far a timestamp may be in the past or the future. Receivers remember ids for twice as long to refuse replays."""
MAX_SECRETS: Final = 2
MAX_SIGNATURES: Final = 16
"""Signatures that are compared; a sender has one per secret and version."""
MIN_SECRET_BYTES: Final = 24
MAX_SECRET_BYTES: Final = 64

_PREFIX: Final = "whsec_"
_MESSAGE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,256}")
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")
_VERSION: Final = "v1"


class WebhookSigner:
    """Signs and verifies messages with a secret, and during its rotation with the next one too.

    A secret is base64 of 24 to 64 random bytes, with or without `whsec_`. Rotation: add the new secret at both ends in
    any order, then remove the old one.
    """

    def __init__(self, *secrets: SecretStr, clock: Clock = utc_now) -> None:
        """Take one or two secrets.

        Raises:
            ValueError: there are none or more, or one is malformed; the message does not contain it.
        """
        if not 1 <= len(secrets) <= MAX_SECRETS:
            raise ValueError("a webhook needs one secret, or two during a rotation")
        self._keys = [_Key(_checked(secret)) for secret in secrets]
        self._clock = clock

    def sign(self, message_id: str, body: bytes) -> dict[str, str]:
        """The headers of a message: with one signature per secret, of these bytes at this time.

        Retries keep the `message_id`, by which the receiver knows a repeat, and are signed again.

        Raises:
            RpcError: INVALID_ARGUMENT: the id is not 1 to 256 of letters, digits, `-` and `_`.
        """
        if not _MESSAGE_ID.fullmatch(message_id):
            raise RpcError.invalid("id", "must be 1 to 256 letters, digits, - and _")
        timestamp = str(int(self._clock().timestamp()))
        signatures = [key.signature(message_id, timestamp, body) for key in self._keys]
        return {
            ID_HEADER: message_id,
            TIMESTAMP_HEADER: timestamp,
            SIGNATURE_HEADER: " ".join(
                f"{_VERSION},{base64.b64encode(each).decode()}" for each in signatures
            ),
        }

    def verify(self, headers: Mapping[str, str], body: bytes) -> str:
        """The id of a message whose headers, in any case, fit its body and one of the secrets.

        Raises:
            RpcError: SIGNATURE_INVALID, the same for every reason: it tells a forger nothing.
        """
        lowered = {name.lower(): value for name, value in headers.items()}
        message_id = lowered.get(ID_HEADER, "")
        timestamp = lowered.get(TIMESTAMP_HEADER, "")
        given = _signatures(lowered.get(SIGNATURE_HEADER, ""))
        is_signed = self._is_signed(message_id, timestamp, given, body)
        if not (is_signed and _MESSAGE_ID.fullmatch(message_id) and self._is_recent(timestamp)):
            raise RpcError(ErrorCode.SIGNATURE_INVALID, "The webhook signature is not valid.")
        return message_id

    def _is_signed(
        self, message_id: str, timestamp: str, given: Sequence[bytes], body: bytes
    ) -> bool:
        """Whether one of the signatures is right; compares all of them, in constant time each."""
        expected = [key.signature(message_id, timestamp, body) for key in self._keys]
        matches = [hmac.compare_digest(mine, theirs) for mine in expected for theirs in given]
        return any(matches)

    def _is_recent(self, timestamp: str) -> bool:
        if not _TIMESTAMP.fullmatch(timestamp):
            return False
        now = self._clock().timestamp()
        return abs(now - int(timestamp)) <= TOLERANCE.total_seconds()


class _Key(Webhook):
    """A secret of the package, applied to bytes."""

    def signature(self, message_id: str, timestamp: str, body: bytes) -> bytes:
        signed = f"{message_id}.{timestamp}.".encode(errors="surrogatepass") + body
        return hmac_data(self._whsecret, signed)


def _checked(secret: SecretStr) -> str:
    text = secret.get_secret_value().removeprefix(_PREFIX)
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a webhook secret must be base64, with or without whsec_") from None
    if not MIN_SECRET_BYTES <= len(decoded) <= MAX_SECRET_BYTES:
        raise ValueError(
            f"a webhook secret must have {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes"
        )
    return text


def _signatures(header: str) -> list[bytes]:
    """The signatures of our version; others, and malformed ones, are passed over."""
    found: list[bytes] = []
    for each in header.split(" ", MAX_SIGNATURES)[:MAX_SIGNATURES]:
        version, _, encoded = each.partition(",")
        if version == _VERSION:
            try:
                found.append(base64.b64decode(encoded, validate=True))
            except (binascii.Error, ValueError):
                continue
    return found
