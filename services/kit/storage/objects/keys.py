"""Object keys: segments of safe characters, so that a key is a key for S3 and a path for a file system."""

import re
from typing import Final

from services.kit.errors import RpcError

MAX_KEY_BYTES: Final = 1024
"""S3's limit."""
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_=@+-][A-Za-z0-9._=@+-]{0,254}")
_MEDIA_TYPE: Final = re.compile(r"[\w.+-]{1,127}/[\w.+-]{1,127}(?:; ?[\w.-]+=[\w.+-]+)?", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def check_key(key: str, field: str = "key") -> str:
    """The key itself. A key must not be the folder of another one: file systems cannot store both.

    Raises:
        RpcError: INVALID_ARGUMENT: it is over 1,024 bytes, or not segments of 1 to 255 of `A-Za-z0-9._=@+-`, of which none
            begins with a dot, joined by single slashes.
    """
    if len(key) > MAX_KEY_BYTES:
        raise RpcError.invalid(field, f"is longer than {MAX_KEY_BYTES} bytes")
    if not all(_SEGMENT.fullmatch(segment) for segment in key.split("/")):
        raise RpcError.invalid(
            field, "must be segments of letters, digits and ._=@+-, none beginning with a dot"
        )
    return key


def check_prefix(prefix: str) -> str:
    """A prefix of keys: empty, or a folder with its last slash, so that `users/1` does not include `users/10`."""
    return check_key(prefix.removesuffix("/"), "prefix") + "/" if prefix else ""


def check_content_type(content_type: str) -> str:
    """The media type itself.

    Raises:
        RpcError: INVALID_ARGUMENT: it is not a type and subtype with at most one parameter.
    """
    if not _MEDIA_TYPE.fullmatch(content_type):
        raise RpcError.invalid("contentType", "is not a media type, such as text/plain")
    return content_type


def check_sha256(sha256: str) -> str:
    """The hash itself.

    Raises:
        RpcError: INVALID_ARGUMENT: it is not 64 lower-case hexadecimal digits.
    """
    if not _SHA256.fullmatch(sha256):
        raise RpcError.invalid("sha256", "must be 64 lower-case hexadecimal digits")
    return sha256
