"""Content-addressed objects for claim checks: a message carries a reference in place of content that is too large for it."""

import asyncio
import hashlib

from services.kit.claim_check import MAX_CONTENT_BYTES, ContentReference
from services.kit.errors import ErrorCode, RpcError
from services.kit.storage.objects.keys import check_prefix
from services.kit.storage.objects.store import BINARY, ObjectStore


class ContentMissing(RpcError):
    """NOT_FOUND: the content was deleted, or never stored under this prefix."""

    def __init__(self) -> None:
        super().__init__(ErrorCode.NOT_FOUND, "No such content.")


class ContentCorrupt(RpcError):
    """INTERNAL: the stored bytes are not those of the reference. Storing the content again repairs it."""

    def __init__(self) -> None:
        super().__init__(ErrorCode.INTERNAL, "The stored content does not match its hash.")


class ContentStore:
    """Content below one prefix of the object store. The same content is one object, so its references share it.

    Users who must not learn of each other's content need a prefix each. Content is deleted with its prefix or by age:
    `put` of existing content writes it again, which renews its age.
    """

    def __init__(self, objects: ObjectStore, prefix: str) -> None:
        self._objects = objects
        self._prefix = check_prefix(prefix)

    async def put(self, content: bytes, *, content_type: str = BINARY) -> ContentReference:
        """Store content; a repeat, also a concurrent one, is one object.

        Raises:
            RpcError: PAYLOAD_TOO_LARGE: it is over 64 MiB.
        """
        if len(content) > MAX_CONTENT_BYTES:
            raise RpcError(
                ErrorCode.PAYLOAD_TOO_LARGE, f"The content is over {MAX_CONTENT_BYTES} bytes."
            )
        sha256 = await _hash(content)
        reference = ContentReference(sha256=sha256, size=len(content))
        await self._objects.put(
            self.key_of(reference), content, content_type=content_type, sha256=sha256
        )
        return reference

    async def get(self, reference: ContentReference) -> bytes:
        """The content, verified.

        Raises:
            ContentMissing: it is not stored.
            ContentCorrupt: the stored bytes are others.
        """
        try:
            content = await self._read(reference)
        except RpcError as error:
            if error.code is ErrorCode.NOT_FOUND:
                raise ContentMissing from error
            raise
        if content is None or await _hash(content) != reference.sha256:
            raise ContentCorrupt
        return content

    async def _read(self, reference: ContentReference) -> bytes | None:
        """The stored bytes; None if they are more or fewer than those of the reference."""
        async with self._objects.open(self.key_of(reference)) as reader:
            return await reader.read() if reader.size == reference.size else None

    def key_of(self, reference: ContentReference) -> str:
        """The key of its object."""
        return f"{self._prefix}{reference.sha256[:2]}/{reference.sha256}"


async def _hash(content: bytes) -> str:
    return await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest())
