"""Claim check: a message carries a reference in place of content that is too large for it."""

from typing import Final

from pydantic import Field

from services.kit.contract import Int64, Message

MAX_CONTENT_BYTES: Final = 64 * 1024**2


class ContentReference(Message):
    """The SHA-256 and size in bytes of stored content: all that is needed to read it, and to verify it."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: Int64 = Field(ge=0, le=MAX_CONTENT_BYTES)
