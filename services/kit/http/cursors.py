"""Opaque cursors: a position, bound to the list that it was given for."""

import base64
import binascii
import hashlib

from services.kit.errors import RpcError


def encode_cursor(scope: str, position: int) -> str:
    """A cursor for the list that `scope` names."""
    raw = f"{_mark(scope)}:{position}"
    return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")


def decode_cursor(scope: str, cursor: str) -> int:
    """The position of a cursor.

    Raises:
        RpcError: INVALID_ARGUMENT for a cursor of another list, of another user, or none of ours.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        mark, position = base64.urlsafe_b64decode(padded.encode("ascii")).decode("ascii").split(":")
        if mark == _mark(scope) and position.isdecimal() and len(position) <= 18:
            return int(position)
    except (ValueError, binascii.Error):
        pass
    raise RpcError.invalid("cursor", "is not a cursor of this list")


def _mark(scope: str) -> str:
    return hashlib.sha256(scope.encode()).hexdigest()[:16]
