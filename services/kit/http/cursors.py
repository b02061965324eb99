"""Opaque pagination cursors: a position with a hash of its list."""

import base64
import binascii
import hashlib

from services.kit.errors import RpcError


def encode_cursor(scope: str, position: int) -> str:
    """A cursor for the list that `scope` identifies."""
    raw = f"{_hash(scope)}:{position}"
    return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")


def decode_cursor(scope: str, cursor: str) -> int:
    """The position of a cursor.

    Raises:
        RpcError: INVALID_ARGUMENT for a malformed cursor, or one of another list or user.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        sent, position = base64.urlsafe_b64decode(padded.encode("ascii")).decode("ascii").split(":")
        if sent == _hash(scope) and position.isdecimal() and len(position) <= 18:
            return int(position)
    except (ValueError, binascii.Error):
        pass
    raise RpcError.invalid("cursor", "is not a cursor of this list")


def _hash(scope: str) -> str:
    return hashlib.sha256(scope.encode()).hexdigest()[:16]
